"""`noria data`: versions of the data, and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened
from noria.apps.commands.sign import sign

group = typer.Typer(
    no_args_is_help=True,
    help="Versions of the data: show, profile, compare, remove; and where it comes from.\n\nExample: noria data list",
)

Version = Annotated[
    str, typer.Argument(help="A ref or part of one: latest, previous, documents@latest, dataset@1a2b.", metavar="ref")
]
Sealed = Annotated[
    bool, typer.Option("--sealed", help="Show sealed test rows too. Who tunes on them measures nothing.")
]
Rows = Annotated[int, typer.Option("--rows", min=0, help="How many rows to show.")]


Places = Annotated[
    list[str], typer.Argument(help="Folders, files, URLs of databases, addresses of sites.", metavar="place…")
]
Called = Annotated[str | None, typer.Option("--name", help="Name of the source; else that of the folder or file.")]
Licence = Annotated[str | None, typer.Option(help="What it may be used for, such as cc-by-4.0; it goes on the card.")]


@group.command("add")
def add_source(
    place: Places,
    name: Called = None,
    licence: Licence = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be added.")] = False,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Look at files or at a database, and add them to noria.toml as sources of the task.

    Example: noria data add handbook --name faq            Example: noria data add postgresql://reader@host/shop
    """
    from noria.apps import adding, data_tables
    from noria.apps.screen import show

    root = adding.root_of(project)
    found = adding.look(place, root, name, licence)
    file, fresh = adding.add(project, task, found, write=not dry_run)
    told = {
        "file": str(file),
        "written": bool(fresh) and not dry_run,
        "added": [{**each.keys, "files": each.files} for each in fresh],
        "skipped": [{"file": skipped, "because": reason} for skipped, reason in found.skipped],
    }
    if as_json:
        show(told, as_json=True)
    else:
        data_tables.added(told)


@group.command("make")
def make_dataset(
    place: Places,
    name: Called = None,
    licence: Licence = None,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """From files and databases to a data set with its card. Where there is no noria.toml one is begun.

    Example: noria data make handbook postgresql://reader@host/shop
    """
    from noria import cycle
    from noria.apps import adding, data_tables, versions
    from noria.apps.screen import Screen, show

    found = adding.look(place, adding.root_of(project), name, licence)
    file, fresh = adding.add(project, task, found)
    platform = opened(file.parent)
    with Screen() as screen:
        for each, reason in found.skipped:
            screen.line(f"left out: {each}: {reason}")
        turn = cycle.turn(platform, task, screen, until="dataset", started=screen.started, finished=screen.finished)
    version = versions.find(platform, turn.cycle.task, str(turn.artifact("dataset").ref))
    told, _ = versions.carded(platform, version)
    if as_json:
        show({**told, "added": [each.keys for each in fresh]}, as_json=True)
    else:
        data_tables.made(told)


@group.command("list")
def list_versions(task: Task = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """List data sets and documents, newest first, and which of them what serves was made from.

    Example: noria data list
    """
    from noria.apps import versions
    from noria.apps.screen import show, table_of

    platform = opened(project)
    name, _ = platform.settings.task(task)
    found = versions.listed(platform, name)
    rows = [[each["ref"], str(each["rows"]), each["at"], each["cycle"], ", ".join(each["serves"])] for each in found]
    show(found, as_json, table_of(["ref", "rows", "made", "cycle", "serves"], rows))


@group.command("show")
def show_version(
    ref: Version = "latest",
    rows: Rows = 5,
    source: Annotated[str | None, typer.Option(help="Only rows of this source, or `traffic`.")] = None,
    slice_: Annotated[str | None, typer.Option("--slice", help="Only rows of this slice.")] = None,
    side: Annotated[Literal["train", "test"] | None, typer.Option(help="Only rows of this side.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Beside it the text as collected, personal data and all.")] = False,
    sealed: Sealed = False,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Show counts and some rows of a data set or of documents.

    Example: noria data show latest --source faq --raw
    """
    from noria.apps import data_tables, versions
    from noria.apps.screen import show

    platform = opened(project)
    name, _ = platform.settings.task(task)
    wanted = versions.Wanted(rows, source, slice_, side, raw, sealed)
    told = versions.shown(platform, versions.find(platform, name, ref), wanted)
    if as_json:
        show(told, as_json=True)
    else:
        data_tables.shown(told)


@group.command("profile")
def profile_version(
    ref: Version = "latest",
    out: Annotated[Path | None, typer.Option(help="Write profile.json, lengths.png and steps.png there.")] = None,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Counts, lengths, languages, duplicates, sources, quarantine, personal data, and rows by step.

    Example: noria data profile latest --out profile
    """
    from noria.apps import data_tables, versions
    from noria.apps.screen import show

    platform = opened(project)
    name, _ = platform.settings.task(task)
    told = versions.profiled(platform, versions.find(platform, name, ref))
    written = data_tables.drawn(told, out) if out is not None else []
    if as_json:
        show(told, as_json=True)
        return
    data_tables.profiled(told)
    for file in written:
        typer.echo(f"wrote {file}")


@group.command("diff")
def diff_versions(
    old: Version = "previous",
    new: Version = "latest",
    rows: Rows = 3,
    sealed: Sealed = False,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Rows that were added, removed or changed between two versions, by source.

    Example: noria data diff previous latest            Example: noria data diff documents@previous documents@latest
    """
    from noria.apps import data_tables, versions
    from noria.apps.screen import show

    platform = opened(project)
    name, _ = platform.settings.task(task)
    here, there = (versions.find(platform, name, each) for each in (old, new))
    told = versions.compared(platform, here, there, rows, sealed)
    if as_json:
        show(told, as_json=True)
    else:
        data_tables.compared(told)


@group.command("card")
def card_of_version(
    ref: Version = "latest",
    out: Annotated[Path | None, typer.Option(help="Write README.md and card.json into this folder.")] = None,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """The card of a data set: a Hugging Face dataset card, with sources, steps and digests.

    Example: noria data card latest --out card
    """
    from noria.apps import data_tables, versions
    from noria.apps.screen import show

    platform = opened(project)
    name, _ = platform.settings.task(task)
    told, text = versions.carded(platform, versions.find(platform, name, ref))
    written = data_tables.carded(told, text, out) if out is not None else []
    if as_json:
        show(told, as_json=True)
    elif written:
        typer.echo("\n".join(f"wrote {file}" for file in written))
    else:
        typer.echo(text)


@group.command("remove")
def remove_version(
    ref: Annotated[str, typer.Argument(help="A ref or part of one, from `noria data list`.", metavar="ref")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Take a version out of the lake. What serves, or the next split, rests on is kept.

    Example: noria data remove dataset@1a2b3c4d --yes
    """
    from noria.apps import versions
    from noria.apps.screen import show

    platform = opened(project)
    name, _ = platform.settings.task(task)
    version = versions.find(platform, name, ref)
    versions.removable(platform, version)
    if not yes:
        typer.confirm(f"remove {version.ref} for good?", abort=True)
    told: dict[str, Any] = {"removed": str(version.ref), "folder": str(versions.remove(platform, version))}
    show(told if as_json else f"removed {version.ref}", as_json)


group.command("sign")(sign)
