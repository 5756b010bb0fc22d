"""`noria scan`: personal data in finished data sets and files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, opened

if TYPE_CHECKING:
    from noria.ports import Platform

group = typer.Typer()


@group.command()
def scan(
    what: Annotated[
        str, typer.Argument(help="A file, a folder, an artifact (dataset:TASK@DIGEST), or a task: its latest data set.")
    ],
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Look for personal data by the validated pass; exit code 1 when there is any. What is found is counted only.

    Of a report, questions and sampled answers are looked at. Names and places need a model and are not looked for.

    Example: noria scan helpdesk            Example: noria scan export.csv
    """
    from noria.apps.screen import show, table_of
    from noria.datasets import leaks
    from noria.datasets.scrub import Rules, rules_of

    place, rules = Path(what), Rules()
    if not place.exists():
        platform = opened(project)
        place, task = _artifact(platform, what)
        tasks = platform.settings.tasks
        rules = rules_of(tasks[task].scrub, platform.settings.state) if task in tasks else rules
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


def _artifact(platform: Platform, what: str) -> tuple[Path, str]:
    """Folder and task of an artifact, or of a task's latest data set; raises NotFound."""
    from noria.errors import NotFound
    from noria.names import Ref

    if what in platform.settings.tasks:
        for _, runs in platform.runs.cycles(what, 1000):
            for run in reversed(runs):
                if run.stage == "dataset" and platform.lake.has(run.output):
                    return platform.lake.path(run.output), what
        raise NotFound(f"task '{what}' has no data set yet", "make one: noria run dataset")
    try:
        ref = Ref.parse(what)
    except ValueError:
        raise NotFound(f"'{what}' is no file, no task and no artifact", "such as dataset:helpdesk@0123…") from None
    return platform.lake.path(ref), ref.name
