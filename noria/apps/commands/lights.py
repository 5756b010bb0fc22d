"""`noria lights`: how far an answer can be trusted."""

from __future__ import annotations

from typing import Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, opened

group = typer.Typer(no_args_is_help=True, help="Lights on answers.\n\nExample: noria lights calibrate helpdesk")


@group.callback()
def about_lights() -> None:
    """Lights on answers."""


@group.command("calibrate")
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

    platform = opened(project)
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
