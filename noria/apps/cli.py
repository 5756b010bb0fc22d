"""The command line: nouns and verbs of the life cycle. Each command parses, calls one function and renders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria import __version__
from noria.errors import Invalid, NoriaError

if TYPE_CHECKING:
    from noria.ports import Platform

# Heavy rooms are imported inside the commands, so that `noria --help` answers at once.

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="noria: the whole life of a language model on your own machines, as one loop that closes.",
)
keys = typer.Typer(no_args_is_help=True, help="API keys.\n\nExample: noria keys create --name app --role user")
app.add_typer(keys, name="keys")
batch = typer.Typer(
    no_args_is_help=True, help="Many requests, answered when there is room.\n\nExample: noria batch submit in.jsonl"
)
app.add_typer(batch, name="batch")
lights = typer.Typer(no_args_is_help=True, help="Lights on answers.\n\nExample: noria lights calibrate helpdesk")
app.add_typer(lights, name="lights")

Folder = Annotated[Path, typer.Option("--project", help="Folder of noria.toml (or one below it).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Task = Annotated[str | None, typer.Option("--task", help="Which task; not needed where there is only one.")]
HERE = Path()


def main() -> None:
    """Run a command; errors that a user may meet end in one clear message and exit code 1 (2 for wrong input)."""
    try:
        app()
    except NoriaError as error:
        from noria.apps.screen import complain

        complain(error)
        sys.exit(2 if isinstance(error, Invalid) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version, or do nothing."""
    if show:
        typer.echo(f"noria {__version__}")
        raise typer.Exit


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Where to make the project.")] = HERE) -> None:
    """Make a small project that runs as it is.

    Example: noria init shop && cd shop && noria run
    """
    from noria.apps import start

    for file in start.make(folder):
        typer.echo(f"made {file}")
    typer.echo(f"next: cd {folder} && noria run && noria up" if folder != HERE else "next: noria run && noria up")


@app.command()
def up(
    ready_file: Annotated[Path | None, typer.Option(help="Write both URLs here once it answers.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=32, help="Gateway processes that share the port; else [gateway] workers.")
    ] = None,
    parent: Annotated[int | None, typer.Option(hidden=True, help="End with this process.")] = None,
    project: Folder = HERE,
) -> None:
    """Serve: engines, the OpenAI-compatible gateway and the control plane. Ctrl-C stops all of it.

    SIGHUP reads noria.toml again without dropping a request.

    Example: noria up --workers 4 --ready-file ready.json
    """
    from noria.apps.screen import Screen
    from noria.apps.up import Serving

    if parent is not None:
        from noria.backends.child import die_with_parent

        die_with_parent(parent)
    with Screen() as screen:
        Serving(_open(project), screen, ready_file, workers).run()


@app.command()
def run(
    until: Annotated[str | None, typer.Argument(help="Last stage to run; the whole cycle without it.")] = None,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Turn the wheel once: sources to release. What is unchanged is not done again; a killed cycle goes on.

    Example: noria run            Example: noria run dataset
    """
    from noria import cycle
    from noria.apps import views
    from noria.apps.screen import Screen, show

    platform = _open(project)
    with Screen() as screen:
        turn = cycle.turn(platform, task, screen, until=until, started=screen.started, finished=screen.finished)
    told = views.result(platform, turn)
    if as_json:
        show(told, as_json=True)
        return
    if all(step.skipped for step in turn.steps if step.stage != "release"):
        typer.echo("nothing new: every stage was done before and was not run again")
    if turn.decision is not None:
        typer.echo(f"{turn.decision.verdict}: {turn.decision.because}")
        typer.echo(f"serves: {told['champion'] or 'the base model'}")


@app.command()
def status(as_json: AsJson = False, project: Folder = HERE) -> None:
    """What serves, since when and why, and the latest cycles.

    Example: noria status
    """
    from noria.apps import views
    from noria.apps.screen import show, table_of

    told = views.status(_open(project))
    if as_json:
        show(told, as_json=True)
        return
    rows = [
        [name, each["champion"] or f"base {each['base']}", str(each["version"]),
         "on hold" if each["paused"] else "", each["because"]]
        for name, each in told["tasks"].items()
    ]  # fmt: skip
    show(None, False, table_of(["task", "champion", "release", "", "because"], rows))
    cycles = [
        [each["cycle"], each["task"], each["began"], each["verdict"] or f"at {len(each['stages'])} stages",
         f"{each['seconds']:.1f} s"]
        for each in told["cycles"]
    ]  # fmt: skip
    show(None, False, table_of(["cycle", "task", "began", "verdict", "took"], cycles))


@app.command()
def doctor(as_json: AsJson = False, project: Folder = HERE) -> None:
    """Check this machine and this project; exit code 1 when something would not work.

    Example: noria doctor
    """
    from noria.apps import checks
    from noria.apps.screen import show, table_of

    found = checks.examine(project)
    rows = [["ok" if each.good else "FAULT", each.name, each.found, each.hint] for each in found]
    values = [{"check": each.name, "ok": each.good, "found": each.found, "hint": each.hint} for each in found]
    show(values, as_json, table_of(["", "check", "found", "try"], rows))
    if not all(each.good for each in found):
        raise typer.Exit(1)


@app.command()
def chat(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Ask what serves (noria up must run). The id on the last line is what `noria why` wants.

    Example: noria chat "How long does delivery take?"
    """
    from noria.apps import talk
    from noria.apps.screen import show

    platform = _open(project)
    name, _ = platform.settings.task(task)
    told = talk.ask(platform, name, question)
    if as_json:
        show(told, as_json=True)
        return
    typer.echo(told["answer"])
    typer.echo(f"\n{told['served_by']}\n{told['id']}")


@app.command()
def promote(
    candidate: Annotated[str, typer.Argument(help="candidate:TASK@DIGEST, as `noria status` and reports name it.")],
    project: Folder = HERE,
) -> None:
    """Make a candidate the champion by hand.

    Example: noria promote candidate:helpdesk@0123456789abcdef
    """
    from noria.deployment import release
    from noria.types import Ref

    try:
        ref = Ref.parse(candidate)
    except ValueError as error:
        raise Invalid(str(error), "such as candidate:helpdesk@0123456789abcdef") from error
    platform = _open(project)
    name, _ = platform.settings.task(ref.name)
    live = release.promote(platform, name, ref, _person())
    typer.echo(f"release {live.version} of '{name}': {ref}")


@app.command()
def rollback(
    task: Task = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")] = "no reason given",
    project: Folder = HERE,
) -> None:
    """Put the previous champion back. The one taken back is held: no cycle promotes it again.

    Example: noria rollback --reason "wrong prices"
    """
    from noria.deployment import release

    platform = _open(project)
    name, _ = platform.settings.task(task)
    live = release.rollback(platform, name, _person(), reason)
    typer.echo(f"release {live.version} of '{name}': {live.champion.ref if live.champion else 'the base'}")


@app.command()
def hold(
    task: Task = None,
    off: Annotated[bool, typer.Option("--off", help="Allow promotions again.")] = False,
    project: Folder = HERE,
) -> None:
    """Stop promotions of a task; what serves goes on serving.

    Example: noria hold            Example: noria hold --off
    """
    from noria.deployment import release

    platform = _open(project)
    name, _ = platform.settings.task(task)
    release.hold(platform, name, _person(), paused=not off)
    typer.echo(f"promotions of '{name}' are {'allowed' if off else 'on hold'}")


@app.command()
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

    told = lineage.explain(_open(project), answer, rows)
    if as_json:
        show(told, as_json=True)
        return
    show(None, False, table_of(["", ""], _why_rows(told)))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="A fresh folder to work in.")] = Path("demo"),
    example: Annotated[Path, typer.Option(help="The example's folder.")] = Path("examples/helpdesk"),
) -> None:
    """Two turns of the wheel on a made-up help desk: learn it, serve it, be corrected, get better.

    Example: noria demo --folder demo
    """
    from noria.apps.demo import play

    if not play(folder, example):
        raise typer.Exit(1)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="Who or what uses it.")],
    role: Annotated[str, typer.Option(help="admin, developer or user.")] = "user",
    models: Annotated[str, typer.Option(help="What it may ask, with commas between; else all its role may.")] = "",
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Prompt and answer together.")] = None,
    streams: Annotated[int | None, typer.Option(min=1, help="Requests at the same time.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="Of a day in UTC.")] = None,
    cost_per_day: Annotated[float | None, typer.Option(help="In the currency of the engines' prices.")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Make a key. It is shown this once; only its SHA-256 is kept. With a limit of its own, [gateway] limits are void.

    Example: noria keys create --name app --models helpdesk --requests-per-minute 60
    """
    from noria.apps import access
    from noria.apps.screen import show
    from noria.settings import LimitSettings

    if cost_per_day is not None and not cost_per_day > 0:
        raise Invalid(f"--cost-per-day is {cost_per_day:g}", "a number above 0; to end a key: noria keys revoke ID")
    limits = LimitSettings(
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, streams=streams,
        tokens_per_day=tokens_per_day, cost_per_day=cost_per_day,
    )  # fmt: skip
    names = [each.strip() for each in models.split(",")] if models else []
    key, text = access.make(_open(project), name, role, names, limits)
    told = key.model_dump(mode="json", include={"id", "name", "role", "models", "limits"})
    show({**told, "key": text} if as_json else text, as_json)


@keys.command("list")
def list_keys(as_json: AsJson = False, project: Folder = HERE) -> None:
    """List keys, revoked ones too.

    Example: noria keys list
    """
    from noria.apps import access
    from noria.apps.screen import show, table_of

    found = _open(project).keys.all()
    rows = [
        [key.id, key.name, key.role, f"{key.prefix}…", ", ".join(key.models), access.shown(key.limits),
         key.revoked.isoformat() if key.revoked else ""]
        for key in found
    ]  # fmt: skip
    told = [key.model_dump(mode="json", exclude={"sha256"}) for key in found]
    show(told, as_json, table_of(["id", "name", "role", "key", "models", "limits", "revoked"], rows))


@keys.command("revoke")
def revoke_key(
    which: Annotated[str, typer.Argument(help="Id of the key, from `noria keys list`, or its name.", metavar="key")],
    project: Folder = HERE,
) -> None:
    """End a key's life; the running gateway refuses it within a second.

    Example: noria keys revoke app
    """
    from noria.apps import access

    typer.echo(f"revoked {access.revoke(_open(project), which)}")


@batch.command("submit")
def submit_batch(
    file: Annotated[Path, typer.Argument(help="One request a line, in the form of OpenAI's Batch API.", exists=True)],
    hours: Annotated[int, typer.Option(min=1, max=720, help="Lines not answered by then expire.")] = 24,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Have the requests in a file answered; its first line says by which endpoint.

    Example: noria batch submit in.jsonl
    """
    from noria.apps import batches
    from noria.apps.screen import show

    told = batches.submit(_open(project), file, hours)
    show(told if as_json else told["id"], as_json)


@batch.command("list")
def list_batches(as_json: AsJson = False, project: Folder = HERE) -> None:
    """List the batches of the CLI's own key, newest first.

    Example: noria batch list
    """
    from noria.apps import batches
    from noria.apps.screen import show, table_of

    found = batches.ask(_open(project), "GET", "/batches?limit=100")["data"]
    show(found, as_json, table_of(["id", "status", "done", "failed", "of"], [*map(batches.row, found)]))


@batch.command("show")
def show_batch(
    identity: Annotated[str, typer.Argument(help="Id, from `noria batch list`.")],
    output: Annotated[Path | None, typer.Option(help="Write the answers of one that has ended here.")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """How far a batch is, and its answers.

    Example: noria batch show batch_0193… --output out.jsonl
    """
    from noria.apps import batches
    from noria.apps.screen import show, table_of

    told = batches.look(_open(project), identity, output)
    show(told, as_json, table_of(["id", "status", "done", "failed", "of"], [batches.row(told)]))


@batch.command("cancel")
def cancel_batch(
    identity: Annotated[str, typer.Argument(help="Id, from `noria batch list`.")], project: Folder = HERE
) -> None:
    """Stop a batch; what was answered stays.

    Example: noria batch cancel batch_0193…
    """
    from noria.apps import batches

    typer.echo(batches.ask(_open(project), "POST", f"/batches/{identity}/cancel")["status"])


@lights.callback()
def about_lights() -> None:
    """Lights on answers."""


@lights.command("calibrate")
def calibrate_lights(
    task: Annotated[str | None, typer.Argument(help="Which task; not needed where there is only one.")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Set the thresholds of green and red from what people said of answers; what serves takes them over at once.

    Example: noria lights calibrate helpdesk
    """
    from noria.apps import views
    from noria.apps.screen import show, table_of
    from noria.evaluation.lights import calibrate

    platform = _open(project)
    name, settings = platform.settings.task(task)
    found = calibrate(platform, name)
    if as_json:
        show({"task": name, "candidates": [each.told() for each in found]}, as_json=True)
        return
    columns = ["served by", "labels", "wrong", "green from", "wrong of these", "red below", "wrong of these"]
    show(None, False, table_of(columns, [views.lights_of(each) for each in found]))
    if settings.lights is not None:
        typer.echo(
            f"each share holds for answers like the labelled ones, with a risk of {100 * settings.lights.risk:g} %"
        )


def _open(project: Path) -> Platform:
    from noria.wiring import open_project

    return open_project(project.resolve())


def _person() -> str:
    from noria.settings import environment

    return environment("USER") or environment("LOGNAME") or "a person"


def _why_rows(told: dict[str, Any]) -> list[list[str]]:
    answer = told["answer"]
    decision = told["decision"] or {"verdict": "", "because": "the base model, before any promotion"}
    return [
        ["question", answer["question"]],
        ["answer", answer["text"]],
        ["context", answer["context"] or ""],
        ["served by", told["served_by"]],
        ["decision", f"{decision['verdict']}: {decision['because']}"],
        ["report", told["report"] or ""],
        ["adapter", told["adapter"] or ""],
        ["dataset", told["dataset"] or ""],
        *(["learned from", f"{row['origin']}: {row['text']}"] for row in told["rows"]),
        *(["source", f"{source['name']}: {source['file']} {source['digest'][:16]}"] for source in told["sources"]),
    ]


if __name__ == "__main__":
    main()
