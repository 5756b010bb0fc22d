"""The command line: nouns and verbs of the life cycle. Each command parses, calls one function and renders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from noria import __version__
from noria.apps.commands import (
    batch,
    canary,
    compare,
    data,
    evaluate,
    export,
    features,
    forget,
    judge,
    keys,
    labels,
    lights,
    registry,
    releases,
    replay,
    scan,
    tune,
)
from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened
from noria.errors import Invalid, NoriaError

# Heavy rooms are imported inside the commands, so that `noria --help` answers at once.

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="noria: the whole life of a language model on your own machines, as one loop that closes.",
)


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
        Serving(opened(project), screen, ready_file, workers).run()


@app.command()
def run(
    until: Annotated[str | None, typer.Argument(help="Last stage to run; the whole cycle without it.")] = None,
    cycle_name: Annotated[
        str | None, typer.Option("--cycle", help="Name of the cycle, for schedulers; STAGE is then run alone.")
    ] = None,
    watching: Annotated[bool, typer.Option("--watch", help="Run again whenever sources or traffic change.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")] = 60.0,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Turn the wheel once: sources to release. What is unchanged is not done again; a killed cycle goes on.

    Example: noria run            Example: noria run dataset            Example: noria run --watch --every 60
    """
    from noria import cycle
    from noria.apps import views, watch
    from noria.apps.screen import Screen, show

    if watching:
        if cycle_name is not None:
            raise Invalid("--watch begins cycles of its own", "leave --cycle away")
        watch.Watch(project.resolve(), task, until, every, as_json).run()
        return
    platform = opened(project)
    with Screen() as screen:
        turn = cycle.turn(
            platform, task, screen, until=until, cycle=cycle_name, started=screen.started, finished=screen.finished
        )
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

    told = views.status(opened(project))
    if as_json:
        show(told, as_json=True)
        return
    rows = [
        [name, each["champion"] or f"base {each['base']}", str(each["version"]),
         f"{each['risk']['left']:.4f} of {each['risk']['budget']:g}",
         f"{each['sealed']['looks']} of {each['sealed']['limit']}", views.standing(each), each["because"]]
        for name, each in told["tasks"].items()
    ]  # fmt: skip
    show(None, False, table_of(["task", "champion", "release", "risk left", "looks", "", "because"], rows))
    for name, each in told["tasks"].items():
        if each["sealed"]["advice"]:
            typer.echo(f"{name}: {each['sealed']['advice']}")
    cycles = [
        [each["cycle"], each["task"], each["began"], each["verdict"] or f"at {len(each['stages'])} stages",
         f"{each['seconds']:.1f} s"]
        for each in told["cycles"]
    ]  # fmt: skip
    show(None, False, table_of(["cycle", "task", "began", "verdict", "took"], cycles))


@app.command()
def doctor(
    ladder: Annotated[bool, typer.Option("--ladder", help="How far has this installation come, from 0 to 10?")] = False,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Check this machine and this project; exit code 1 when something would not work.

    Example: noria doctor            Example: noria doctor --ladder
    """
    from noria.apps import checks
    from noria.apps.screen import show, table_of

    if ladder:
        _ladder(project, as_json)
        return
    found = checks.examine(project)
    rows = [["ok" if each.good else "FAULT", each.name, each.found, each.hint] for each in found]
    values = [{"check": each.name, "ok": each.good, "found": each.found, "hint": each.hint} for each in found]
    show(values, as_json, table_of(["", "check", "found", "try"], rows))
    if not all(each.good for each in found):
        raise typer.Exit(1)


def _ladder(project: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from noria.apps import ladder
    from noria.apps.screen import show, table_of

    rungs = ladder.climb(opened(project))
    if as_json:
        show({"height": ladder.height(rungs), "rungs": [asdict(each) for each in rungs]}, as_json=True)
        return
    show(None, False, table_of(["", "", "what it takes, with all above it", "next"], [*ladder.told(rungs)]))
    typer.echo(f"{ladder.height(rungs)} of 10")


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

    platform = opened(project)
    name, _ = platform.settings.task(task)
    told = talk.ask(platform, name, question)
    if as_json:
        show(told, as_json=True)
        return
    typer.echo(told["answer"])
    typer.echo(f"\n{told['served_by']}\n{told['id']}")


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


app.add_typer(releases.group)
app.add_typer(data.group, name="data")
app.add_typer(replay.group)
app.add_typer(registry.group, name="registry")
app.add_typer(keys.group, name="keys")
app.add_typer(batch.group, name="batch")
app.add_typer(labels.group, name="labels")
app.add_typer(lights.group, name="lights")
app.add_typer(canary.group, name="canary")
app.add_typer(judge.group, name="judge")
app.add_typer(compare.group)
app.add_typer(evaluate.group, name="evaluate")
app.add_typer(scan.group)
app.add_typer(forget.group)
app.add_typer(features.group, name="features")
app.add_typer(tune.group, name="tune")
app.add_typer(export.group, name="export")


if __name__ == "__main__":
    main()
