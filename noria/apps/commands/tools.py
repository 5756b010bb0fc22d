"""`noria tools`: what models may call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened, person
from noria.errors import Invalid, NotFound

group = typer.Typer(no_args_is_help=True, help="Tools that models may call.\n\nExample: noria tools list")

ToolName = Annotated[str, typer.Argument(help="Name of a tool, as `noria tools list` shows it.", metavar="name")]


@group.callback()
def about_tools() -> None:
    """Tools that models may call."""


@group.command("list")
def list_tools(task: Task = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """Every tool of the project, or those that a task may call.

    Example: noria tools list            Example: noria tools list --task helpdesk
    """
    from noria.apps import tooling
    from noria.apps.screen import show, table_of

    platform = opened(project)
    allowed = platform.settings.task(task)[1].tools if task else tooling.EVERY
    if not platform.settings.tools or not allowed:
        show([], as_json) if as_json else typer.echo("there are no tools; see docs/tools.md")
        return
    with tooling.toolbox(platform, allowed, person()) as box:
        found = tooling.listed(box)
    rows = [
        [each["tool"], ", ".join(each["parameters"]["properties"]), f"{each['seconds']:g} s", each["description"][:120]]
        for each in found
    ]
    show(found, as_json, table_of(["tool", "arguments", "at most", "what it gives"], rows))


@group.command("show")
def show_tool(name: ToolName, project: Folder = HERE) -> None:
    """A tool as a model is told of it, in JSON.

    Example: noria tools show get_weather_forecast
    """
    from noria.apps import tooling
    from noria.apps.screen import show

    platform = opened(project)
    with tooling.toolbox(platform, tooling.EVERY, person()) as box:
        found = [each for each in tooling.listed(box) if name in (each["tool"], each["name"])]
    if not found:
        raise NotFound(f"there is no tool '{name}'", "noria tools list")
    show(found[0], as_json=True)


@group.command("call")
def call_tool(
    name: ToolName,
    arguments: Annotated[str, typer.Argument(help="A JSON object.")] = "{}",
    project: Folder = HERE,
) -> None:
    """Call a tool by hand, with the limits that hold for a model; exit code 1 when it fails.

    Example: noria tools call describe_table '{"table": "taxi"}'
    """
    from noria.apps import tooling

    given = tooling.arguments_of(arguments)
    with tooling.toolbox(opened(project), tooling.EVERY, person()) as box:
        text, well = tooling.called(box, name, given)
    typer.echo(text)
    if not well:
        raise typer.Exit(1)


@group.command("test")
def measure_tools(
    questions: Annotated[Path, typer.Argument(help="JSONL: questions with the calls and answers that are right.")],
    engine: Annotated[str | None, typer.Option(help="Which engine's base model; else that of the task.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Print every conversation.")] = False,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Measure how well a model uses tools: a rate with its interval for each kind of question. It starts the engine.

    Example: noria tools test questions.jsonl --engine local
    """
    from noria.apps import tooling
    from noria.apps.screen import Screen, show, table_of
    from noria.settings import known
    from noria.tools import calling
    from noria.tools import questions as asking

    platform = opened(project)
    name, settings = platform.settings.task(task)
    engine = engine or settings.engine
    if engine not in platform.settings.engines:
        raise Invalid(f"there is no engine '{engine}'", known(engine, platform.settings.engines))
    wanted = asking.read_questions(questions)
    form = tooling.form_of(platform, engine, settings.calling)
    with Screen() as screen, tooling.toolbox(platform, settings.tools, "noria tools test") as box:
        screen.line(f"starting engine {engine}…")
        with tooling.started(platform, engine) as ask:
            found = asking.measure(ask, box, wanted, settings.calling, form, screen)
    if trace:
        for scored, dialogue in found:
            typer.echo(
                f"--- {scored.id}: {'right' if scored.success else 'wrong'}\n{calling.log_of(dialogue.messages)}"
            )
    rates = asking.rates([scored for scored, _ in found])
    told = {
        "task": name, "engine": engine, "form": form, "rates": rates,
        "questions": [scored.model_dump(mode="json") | {"success": scored.success} for scored, _ in found],
    }  # fmt: skip
    show(told, as_json, table_of(["questions", *asking.ASPECTS], tooling.rate_rows(rates)))
