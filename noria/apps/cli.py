"""The command line: nouns and verbs of the life cycle. Each command parses, calls one function and renders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria import __version__
from noria.apps.commands import (
    batch,
    bench,
    canary,
    compare,
    data,
    engines,
    evaluate,
    export,
    features,
    fit,
    forget,
    judge,
    keys,
    labels,
    lights,
    mcp,
    prune,
    quantize,
    registry,
    releases,
    replay,
    scan,
    tools,
    tune,
)
from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened, person
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
    for alert in told["alerts"]:
        typer.echo(f"ALERT {alert['fact']}\n  try: {alert['hint']}")
    cycles = [
        [each["cycle"], each["task"], each["began"], each["verdict"] or f"at {len(each['stages'])} stages",
         f"{each['seconds']:.1f} s"]
        for each in told["cycles"]
    ]  # fmt: skip
    show(None, False, table_of(["cycle", "task", "began", "verdict", "took"], cycles))


@app.command()
def doctor(
    ladder: Annotated[bool, typer.Option("--ladder", help="How far has this installation come, from 0 to 10?")] = False,
    log: Annotated[Path | None, typer.Option("--log", help="An engine's log: what does its error mean?")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Check this machine, this project and its engines; exit code 1 when something would not work.

    Example: noria doctor            Example: noria doctor --ladder            Example: noria doctor --log vllm.log
    """
    from noria.apps import checks
    from noria.apps.screen import show, table_of

    if log is not None:
        _log(log, as_json)
        return

    if ladder:
        _ladder(project, as_json)
        return
    found = checks.examine(project)
    words = {"ok": "ok", "warn": "warn", "fault": "FAULT"}
    rows = [[words[each.level], each.name, each.found, each.hint] for each in found]
    values = [
        {"check": each.name, "ok": each.good, "level": each.level, "found": each.found, "hint": each.hint}
        for each in found
    ]
    show(values, as_json, table_of(["", "check", "found", "try"], rows))
    if any(each.level == "fault" for each in found):
        raise typer.Exit(1)


def _log(log: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from noria.apps.doctor import logs
    from noria.apps.screen import show, table_of

    seen = logs.recognised(logs.read(log))
    if not seen and not as_json:
        typer.echo(f"no known trouble in {log}")
        return
    rows = [[str(each.line), each.name, each.says, each.hint] for each in seen]
    show([asdict(each) for each in seen], as_json, table_of(["line", "trouble", "it says", "try"], rows))
    if seen:
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
    tools: Annotated[
        str | None, typer.Option(help='Tools that it may call, such as "get_*,table.*"; else those of the task.')
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Print every message between model and tools.")] = False,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Ask what serves (noria up must run). The id on the last line is what `noria why` wants.

    Where the task has tools, or --tools names some, they are run here, and what serves is asked until it answers.

    Example: noria chat "How long does delivery take?"            Example: noria chat "Which day is it?" --tools "*"
    """
    from noria.apps import talk
    from noria.apps.screen import show

    platform = opened(project)
    name, settings = platform.settings.task(task)
    allowed = settings.tools if tools is None else tuple(each.strip() for each in tools.split(",") if each.strip())
    if allowed:
        _chat_with_tools(platform, name, question, allowed, trace, as_json)
        return
    told = talk.ask(platform, name, question)
    if as_json:
        show(told, as_json=True)
        return
    typer.echo(told["answer"])
    typer.echo(f"\n{told['served_by']}\n{told['id']}")


def _chat_with_tools(
    platform: Platform, task: str, question: str, allowed: tuple[str, ...], trace: bool, as_json: bool
) -> None:
    from noria.apps import tooling
    from noria.apps.screen import show
    from noria.errors import Unavailable
    from noria.tools.calling import log_of

    found = tooling.ask(platform, task, question, allowed, person(), platform.settings.tasks[task].calling)
    if as_json:
        show(tooling.told(found), as_json=True)
    elif trace:
        typer.echo(log_of(found.messages))
    if found.answer is None:
        raise Unavailable(found.because, "see each message: --trace; the bounds are in [tasks.NAME.calling]")
    if not as_json and not trace:
        typer.echo(found.answer)


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
app.add_typer(engines.group, name="engines")
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
app.add_typer(fit.group)
app.add_typer(bench.group, name="bench")
app.add_typer(features.group, name="features")
app.add_typer(tune.group, name="tune")
app.add_typer(export.group, name="export")
app.add_typer(tools.group, name="tools")
app.add_typer(mcp.group)
app.add_typer(quantize.group)
app.add_typer(prune.group)


if __name__ == "__main__":
    main()
