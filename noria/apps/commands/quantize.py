"""`noria quantize`: a model at lower precision, with what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, opened

if TYPE_CHECKING:
    from noria.ports import Platform

group = typer.Typer()

Model = Annotated[
    str, typer.Argument(help="A known model, a GGUF file, a Hugging Face folder, or adapter:TASK@DIGEST (merged).")
]
Out = Annotated[Path, typer.Option(help="Folder for what is made.")]
Rows = Annotated[
    str | None,
    typer.Option(
        help="JSONL file or dataset:NAME@DIGEST to measure (and calibrate) with; else the task's, or noria's own."
    ),
]
ForTask = Annotated[str | None, typer.Option("--task", help="Make what comes of it candidates of this task.")]
Engine = Annotated[str | None, typer.Option(help="Measure with the threads and context of this engine's table.")]
Report = Annotated[
    bool, typer.Option("--report", help="With --task: measure on its sealed rows at once, for the gate.")
]
SHRUNK = Path("shrunk")


@group.command("quantize")
def quantize_model(
    model: Model,
    to: Annotated[
        str,
        typer.Option(
            help="Kinds, with commas: q8_0 q5_1 q5_0 q4_1 q4_0 bf16 f16 (GGUF), q4_k_m and others (llama-quantize), "
            "bnb-int8 bnb-nf4 bnb-fp4 (folders), awq gptq (on a GPU)."
        ),
    ] = "q8_0",
    out: Out = SHRUNK,
    rows: Rows = None,
    program: Annotated[Path | None, typer.Option(help="llama.cpp's llama-quantize; else the one on PATH.")] = None,
    requantize: Annotated[
        bool, typer.Option("--requantize", help="Allow a source that has lost already; it shows nothing about loss.")
    ] = False,
    task: ForTask = None,
    engine: Engine = None,
    report: Report = False,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Write a model at lower precision and say what it costs: size, memory, speed, and agreement with the source.

    Example: noria quantize model.f16.gguf --to q8_0,q4_0      Example: noria quantize champion --task helpdesk
    """
    from noria.apps import shrinking
    from noria.apps.screen import Screen

    platform = project_for(model, task, engine, rows, project)
    order = shrinking.Order(model, out, rows, task, engine, report)
    kinds = [*dict.fromkeys(each.strip().lower() for each in to.split(",") if each.strip())]
    with Screen() as screen:
        told = shrinking.quantize(order, kinds, program, requantize, platform, screen)
    printed(told, as_json)


def project_for(model: str, task: str | None, engine: str | None, rows: str | None, project: Path) -> Platform | None:
    """The project's platform where something of it is named; a model by itself needs none."""
    refs = model.startswith("adapter:") or (rows or "").startswith("dataset:")
    platform = opened(project) if task or engine or refs else None
    if platform is not None and task is not None:
        platform.settings.task(task)
    return platform


def printed(told: dict[str, Any], as_json: bool) -> None:
    """Print the table that quantizing and pruning end in."""
    from noria.apps import shrink_table
    from noria.apps.screen import show, table_of

    if as_json:
        show(told, as_json=True)
        return
    if told["warning"]:
        typer.echo(f"warning: {told['warning']}")
    show(None, False, table_of([*shrink_table.COLUMNS], [shrink_table.cells(each) for each in told["table"]]))
    for each in told["table"]:
        if each.get("fallbacks"):
            typer.echo(
                f"{each['precision']}: {len(each['fallbacks'])} of {each['tensors']} tensors fell back to another type"
            )
        if "unmeasured" in each:
            typer.echo(f"{each['precision']}: {each['unmeasured']}")
    told_of = told["rows"]
    typer.echo(f"measured on {told_of['measured']} rows of {told_of['origin']}; files in {told['out']}")
    for each in told["candidates"]:
        typer.echo(f"{each['kind']}: {each['candidate']}")
        if each.get("report"):
            typer.echo(f"next: noria promote {each['candidate']}")
