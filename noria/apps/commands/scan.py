"""`noria scan`: personal data in finished data sets and files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened

if TYPE_CHECKING:
    from noria.ports import Platform

group = typer.Typer()


@group.command()
def scan(
    what: Annotated[
        str,
        typer.Argument(help="A file, a folder, a ref or part of one (dataset@latest), or a task: its latest data set."),
    ],
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Look for personal data by the validated pass; exit code 1 when there is any. What is found is counted only.

    Of a report, questions and sampled answers are looked at. Names and places need a model and are not looked for.

    Example: noria scan helpdesk            Example: noria scan dataset@latest            Example: noria scan export.csv
    """
    from noria.apps.screen import show, table_of
    from noria.datasets import leaks
    from noria.datasets.scrub import Rules, rules_of

    place, rules = Path(what), Rules()
    if not place.exists():
        platform = opened(project)
        place, owner = _artifact(platform, what, task)
        tasks = platform.settings.tasks
        rules = rules_of(tasks[owner].scrub, platform.settings.state) if owner in tasks else rules
    found = leaks.scan(place, rules)
    kinds = leaks.kinds_of(found)
    told = {"scanned": what, "texts": sum(each.texts for each in found), "leaks": kinds,
            "files": [each.told() for each in found]}  # fmt: skip
    rows = [
        [each.file, str(each.texts), str(each.leaking),
         ", ".join(f"{kind} {number}" for kind, number in sorted(each.kinds.items())) or "none"]
        for each in found
    ]  # fmt: skip
    show(told, as_json, table_of(["file", "texts", "with personal data", "found"], rows))
    if kinds:
        raise typer.Exit(1)


def _artifact(platform: Platform, what: str, task: str | None) -> tuple[Path, str]:
    """Folder and task of a version, named as for `noria data show`, or of any artifact; raises NotFound."""
    from noria.apps import versions
    from noria.errors import NotFound
    from noria.names import Ref

    text = f"dataset:{what}@{versions.LATEST}" if what in platform.settings.tasks else what
    try:
        # Reports can be scanned too, which are no versions of data.
        ref = Ref.parse(text)
        return platform.lake.path(ref), ref.name
    except ValueError:
        pass
    if "@" not in text and text not in (*versions.KINDS, versions.LATEST, versions.PREVIOUS):
        raise NotFound(f"'{what}' is no file, no task and no artifact", "such as dataset@latest")
    name = text.rpartition("@")[0].partition(":")[2] or platform.settings.task(task)[0]
    ref = versions.find(platform, name, text).ref
    return platform.lake.path(ref), ref.name
