"""What serves: promote, roll back, hold, and why an answer is as it is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from noria.apps.commands.options import HERE, AsJson, Candidate, Folder, Task, opened, person, reference, registered

group = typer.Typer()


@group.command()
def promote(
    candidate: Candidate,
    project: Folder = HERE,
) -> None:
    """Make a candidate the champion by hand.

    Example: noria promote candidate:helpdesk@0123456789abcdef
    """
    from noria.deployment import release

    platform, ref = opened(project), reference(candidate)
    name, _ = platform.settings.task(ref.name)
    live = release.promote(platform, name, ref, person())
    typer.echo(f"release {live.version} of '{name}': {ref}")
    registered(platform, name)


@group.command()
def rollback(
    task: Task = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")] = "no reason given",
    project: Folder = HERE,
) -> None:
    """Put the previous champion back; during a canary, take the challenger back. What is taken back is held: no cycle
    promotes it again.

    Example: noria rollback --reason "wrong prices"
    """
    from noria.deployment import release

    platform = opened(project)
    name, _ = platform.settings.task(task)
    live = release.rollback(platform, name, person(), reason)
    typer.echo(f"release {live.version} of '{name}': {live.champion.ref if live.champion else 'the base'}")
    registered(platform, name)


@group.command()
def hold(
    task: Task = None,
    off: Annotated[bool, typer.Option("--off", help="Allow promotions again.")] = False,
    project: Folder = HERE,
) -> None:
    """Stop promotions of a task; what serves goes on serving.

    Example: noria hold            Example: noria hold --off
    """
    from noria.deployment import release

    platform = opened(project)
    name, _ = platform.settings.task(task)
    release.hold(platform, name, person(), paused=not off)
    typer.echo(f"promotions of '{name}' are {'allowed' if off else 'on hold'}")


@group.command()
def why(
    answer: Annotated[str, typer.Argument(help="Id of an answer: its header x-noria-interaction.")],
    rows: Annotated[int, typer.Option(min=0, help="How many training rows to show, nearest first.")] = 5,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """From an answer to the adapter, the evidence that promoted it and the rows that trained it.

    Example: noria why 01932f6e-7a3c-7c11-9f00-1234567890ab
    """
    from noria.apps.screen import show, table_of
    from noria.registry import lineage

    told = lineage.explain(opened(project), answer, rows)
    if as_json:
        show(told, as_json=True)
        return
    show(None, False, table_of(["", ""], _why_rows(told)))


def _model_rows(model: dict[str, Any] | None) -> list[list[str]]:
    from noria import replays

    if model is None:
        return []
    version = f"version {model['version']} of '{model['name']}'" if model["version"] else "in no registry"
    rows = [["model", version], ["card", model["card"]]]
    again = replays.read(model["replay"])
    return [*rows, ["replay", again.words()]] if again is not None else rows


def _why_rows(told: dict[str, Any]) -> list[list[str]]:
    answer = told["answer"]
    decision = told["decision"] or {"verdict": "", "because": "the base model, before any promotion"}
    return [
        ["question", answer["question"]],
        ["answer", answer["text"]],
        ["context", answer["context"] or ""],
        *(["from", f"{each['name']}: {each['file']}"] for each in answer["documents"]),
        ["served by", f"{told['served_by']} ({answer['arm']})"],
        *_model_rows(told["model"]),
        ["decision", f"{decision['verdict']}: {decision['because']}"],
        ["report", told["report"] or ""],
        ["adapter", told["adapter"] or ""],
        ["dataset", told["dataset"] or ""],
        *(["learned from", f"{row['origin']}: {row['text']}"] for row in told["rows"]),
        *(["source", f"{source['name']}: {source['file']} {source['digest'][:16]}"] for source in told["sources"]),
    ]
