"""`noria registry`: candidates as model versions in MLflow, their cards, and how they travel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, opened
from noria.errors import Invalid

group = typer.Typer(
    no_args_is_help=True,
    help="Candidates as model versions: list, cards, bills of materials, push and pull.\n\n"
    "Example: noria registry show helpdesk champion",
)

TaskName = Annotated[str | None, typer.Argument(help="Which task; not needed where there is only one.")]
Which = Annotated[str, typer.Argument(help="A version, part of a candidate's digest, champion, challenger or latest.")]
Probes = Annotated[
    bool, typer.Option("--probes", help="Take along probes.json, which holds beginnings of training rows.")
]


@group.callback()
def about_registry() -> None:
    """Candidates as model versions in MLflow."""


@group.command("list")
def list_versions(task: TaskName = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """Every model version of a task with its aliases, as MLflow has it, and candidates that have none.

    Example: noria registry list helpdesk
    """
    from noria.apps import registering
    from noria.apps.screen import show, table_of

    platform = opened(project)
    name, _ = platform.settings.task(task)
    found = registering.listed(platform, name)
    rows = [
        [each["version"] or ("removed" if each.get("removed") else "none"), ", ".join(each["aliases"]),
         each["candidate"], each["recipe"] or "", each["verdict"] or "", each["tags"].get("origin", "")]
        for each in found
    ]  # fmt: skip
    show(found, as_json, table_of(["version", "aliases", "candidate", "recipe", "verdict", "origin"], rows))


@group.command("show")
def show_card(
    task: Annotated[str, typer.Argument(help="Which task.")],
    which: Which = "latest",
    bom: Annotated[bool, typer.Option("--bom", help="The bill of materials (CycloneDX 1.6) instead.")] = False,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """The card of a candidate: what it is for, how it was made, what it can and cannot do.

    Example: noria registry show helpdesk champion            Example: noria registry show helpdesk 3 --bom
    """
    from noria.apps import registering
    from noria.apps.screen import show

    platform = opened(project)
    name, _ = platform.settings.task(task)
    if bom:
        typer.echo(registering.bill(platform, name, which), nl=False)
        return
    told, text = registering.shown(platform, name, which)
    if as_json:
        show(told, as_json=True)
        return
    typer.echo(text)
    typer.echo(f"version {told['version'] or 'none'} of the model '{name}'; files: {told['files']['README.md']}")


@group.command("sync")
def sync_versions(
    task: TaskName = None,
    new: Annotated[bool, typer.Option("--new", help="Only what came since the last sync.")] = False,
    parent: Annotated[int | None, typer.Option(hidden=True, help="End with this process.")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Make MLflow's model versions, tags and aliases equal to the ledger. noria does so itself after each release.

    Example: noria registry sync helpdesk
    """
    from noria.apps.screen import show
    from noria.registry import versions

    if parent is not None:
        from noria.backends.child import die_with_parent

        die_with_parent(parent)
    platform = opened(project)
    name, _ = platform.settings.task(task)
    done = versions.sync(platform, name, whole=not new)
    if as_json:
        show(done.told(), as_json=True)
        return
    for ref in done.added:
        typer.echo(f"added {ref}")
    for ref in done.changed:
        typer.echo(f"mended {ref}")
    for alias, version in done.aliases.items():
        typer.echo(f"{alias}: {f'version {version}' if version else 'none'}")
    for ref, fact in done.failed.items():
        typer.echo(f"left {ref} as it was: {fact}")
    if not (done.added or done.changed or done.aliases or done.failed):
        typer.echo(f"the registry's '{name}' is as the ledger has it")


@group.command("remove")
def remove_version(
    task: Annotated[str, typer.Argument(help="Which task.")],
    which: Annotated[str, typer.Argument(help="A version, or part of a candidate's digest.")],
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Take a model version out of MLflow for good; its report, card and adapter stay. What serves cannot go.

    Example: noria registry remove helpdesk 2
    """
    from noria.apps.screen import show
    from noria.registry import candidates, versions

    platform = opened(project)
    name, _ = platform.settings.task(task)
    each = candidates.find(platform, name, which)
    version = versions.remove(platform, each)
    if as_json:
        show({"task": name, "version": version, "candidate": each.ref}, as_json=True)
        return
    typer.echo(f"removed version {version} of '{name}': {each.ref}")


@group.command("export")
def export_package(
    task: Annotated[str, typer.Argument(help="Which task.")],
    which: Which,
    to: Annotated[Path, typer.Option(help="A folder that is not there yet.")],
    probes: Probes = False,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Write a candidate into a folder: adapter, card, bill of materials and a manifest with every file's SHA-256.

    Example: noria registry export helpdesk champion --to helpdesk-3
    """
    from noria.apps import registering
    from noria.apps.screen import show

    platform = opened(project)
    name, _ = platform.settings.task(task)
    told = registering.exported(platform, name, which, to, probes=probes)
    if as_json:
        show(told, as_json=True)
        return
    typer.echo(f"{told['candidate']}: {len(told['files'])} files of the adapter in {told['folder']}")


@group.command("push")
def push_package(
    task: Annotated[str, typer.Argument(help="Which task.")],
    which: Which = "champion",
    to: Annotated[str, typer.Option(help="hf://OWNER/NAME, a bucket such as s3://BUCKET/PREFIX, or a folder.")] = "",
    probes: Probes = False,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Send a candidate to a hub, a bucket or a folder; [registry] share = true allows it. The hub's token is HF_TOKEN.

    Example: noria registry push helpdesk champion --to hf://acme/helpdesk
    """
    from noria.apps import carrying
    from noria.apps.screen import show

    platform = opened(project)
    name, _ = platform.settings.task(task)
    told = carrying.push(platform, name, which, _given(to, "--to"), probes=probes)
    if as_json:
        show(told, as_json=True)
        return
    typer.echo(f"pushed {told['candidate']}: {len(told['files'])} files to {told['to']}")


@group.command("pull")
def pull_package(
    task: Annotated[str, typer.Argument(help="The task that gets the candidate.")],
    source: Annotated[
        str, typer.Option("--from", help="hf://OWNER/NAME[@REVISION], a bucket's address, or a folder.")
    ] = "",
    report: Annotated[bool, typer.Option("--report", help="Measure it at once on the latest data set.")] = False,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Fetch an adapter as a candidate of a task. Every digest is checked; files that may hold code are refused.

    It serves nothing: with a report it can be promoted, like any other candidate.

    Example: noria registry pull helpdesk --from hf://acme/helpdesk --report
    """
    from noria.apps import carrying
    from noria.apps.screen import Screen, show

    platform = opened(project)
    name, _ = platform.settings.task(task)
    with Screen() as screen:
        told = carrying.pull(platform, name, _given(source, "--from"), screen, measured=report)
    if as_json:
        show(told, as_json=True)
        return
    typer.echo(f"pulled {told['candidate']} from {told['origin']}")
    typer.echo(f"next: noria {'promote ' + told['candidate'] if report else 'registry list ' + name}")


def _given(text: str, option: str) -> str:
    if not text:
        raise Invalid(f"{option} is missing", f"such as {option} hf://OWNER/NAME")
    return text
