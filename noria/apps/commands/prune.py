"""`noria prune`: weights or layers taken out of a model, measured before and after."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from noria.apps.commands.options import HERE, AsJson, Folder
from noria.apps.commands.quantize import SHRUNK, Engine, ForTask, Model, Out, Report, Rows, printed, project_for
from noria.errors import Invalid

group = typer.Typer()
METHODS, PATTERNS = ("wanda", "magnitude", "layers"), ("", "2:4")


@group.command("prune")
def prune_model(
    model: Model,
    method: Annotated[str, typer.Option(help="wanda, magnitude, or layers (whole ones that change least).")] = "wanda",
    sparsity: Annotated[float, typer.Option(help="Share of the weights that go.")] = 0.5,
    pattern: Annotated[str, typer.Option(help="2:4: two of each four neighbours in a row go.")] = "",
    drop: Annotated[int, typer.Option(min=1, help="With layers: how many go.")] = 2,
    kind: Annotated[str, typer.Option(help="Precision of the GGUF file: f32, f16, bf16, q8_0.")] = "f16",
    out: Out = SHRUNK,
    rows: Rows = None,
    task: ForTask = None,
    engine: Engine = None,
    report: Report = False,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Take weights out of a model and say what it costs. Zeros are stored: only sparse kernels on a GPU gain by 2:4.

    Example: noria prune model.f16.gguf --method wanda --sparsity 0.5        Example: noria prune DIR --pattern 2:4
    """
    from noria.apps import shrinking
    from noria.apps.screen import Screen

    for value, name, allowed in ((method, "--method", METHODS), (pattern, "--pattern", PATTERNS)):
        if value not in allowed:
            raise Invalid(f"{name} '{value}' is not known", f"one of {', '.join(filter(None, allowed))}")
    how = shrinking.Pruning(
        cast("shrinking.Method", method), sparsity, cast("shrinking.Pattern", pattern), drop, kind.lower()
    )
    platform = project_for(model, task, engine, rows, project)
    with Screen() as screen:
        told = shrinking.prune(shrinking.Order(model, out, rows, task, engine, report), how, platform, screen)
    printed(told, as_json)
