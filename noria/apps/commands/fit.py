"""`noria fit`: which model fits where, in which precision, for how many, and how it is started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from noria.apps.commands.options import AsJson
from noria.errors import Invalid

if TYPE_CHECKING:
    from noria.deployment.fitting import Fitted, Row
    from noria.deployment.memory_plan import Asked

group = typer.Typer()
COLUMNS = [
    "precision",
    "engine",
    "weights",
    "cache",
    "the rest",
    "in all",
    "",
    "requests",
    "context",
    "tok/s at most",
    "",
]
CHOICES = ["model", "parameters", "best", "GiB", "requests", "context", "tok/s at most", "for", "licence", ""]


@group.command("fit")
def fit(
    model: Annotated[
        str | None,
        typer.Argument(help="A known name or hub id, a folder with a config.json, a .gguf file; all without."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="H100, 2xL40S, rtx-4090, m4-max=128GiB, CPU=64GiB; this machine without it.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Tokens of one request, prompt and answer.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=4096, help="Requests at once.")] = 4,
    kv: Annotated[
        Literal["fp16", "fp8", "q8_0"] | None,
        typer.Option(help="KV cache; of the 8-bit kinds each engine has its own."),
    ] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    engine: Annotated[
        Literal["llamacpp", "vllm", "infinity"] | None, typer.Option(help="Plan for this engine only.")
    ] = None,
    use: Annotated[
        str | None, typer.Option(help="Without MODEL: chat, code, light, strong, embed, rerank, classify.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Without MODEL: a language's code, such as de.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the parts of the memory into this .svg or .png.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Start it here and hold the plan against reality.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What fits, with how much context for how many requests, why, and the command that starts it.

    Speeds are upper bounds that the memory's bandwidth sets, for one request and for all of them together.

    Example: noria fit qwen3-14b --device L4            Example: noria fit --use code --device rtx-4090
    """
    from noria.apps import fitting as glue
    from noria.backends import fit_plot
    from noria.deployment import fitting
    from noria.deployment.memory_plan import Asked

    if model is None:
        if plot or measure or precision or engine:
            raise Invalid("without MODEL nothing is planned in detail", "noria fit MODEL …")
        _choose(device, Asked(context or 0, concurrency, kv), use, language, as_json)
        return
    if use or language:
        raise Invalid("--use and --language choose a model, and one is given", "noria fit --use code")
    found, entry, stated = glue.model_of(model)
    where, note = glue.device_of(device)
    asked = Asked(context or fitting.usual(found.shape), concurrency, kv)
    only = precision or ([stated] if stated else [])
    fitted = fitting.fit(found, where, asked, only, engine)
    notes = [line for line in (note, entry.note if entry else "") if line]
    value = glue.told(fitted, entry, notes)
    if entry is not None:
        value["larger"] = glue.larger(entry, fitted)
    if plot is not None:
        fit_plot.draw(value, plot)
    if measure:
        value["measured"] = _measured(fitted)
    _show(fitted, value, as_json)


def _show(fitted: Fitted, value: dict[str, Any], as_json: bool) -> None:
    from noria.apps.screen import show, table_of

    if as_json:
        show(value, as_json=True)
        return
    shape, device = fitted.model.shape, fitted.device
    size = (
        f"{shape.parameters / 1e9:.2f} billion" if shape.parameters >= 1e9 else f"{shape.parameters / 1e6:.1f} million"
    )
    typer.echo(
        f"{fitted.model.name}: {size} parameters, at most {shape.context:,} tokens of context\n"
        f"{device.called}: {device.memory_gib * device.count:.1f} GiB; an engine gets {device.share:.0%}\n"
        f"asked: {fitted.asked.concurrency} requests of {fitted.asked.context:,} tokens (GiB: █ weights ▓ cache ▒ "
        "activations ░ engine | what there is)"
    )
    show(None, False, table_of(COLUMNS, [_cells(row) for row in fitted.rows]))
    for line in (*value["notes"], value.get("larger", "")):
        if line:
            typer.echo(line)
    if value["gated"]:
        typer.echo(f"gated: accept the licence on the page of {value['id']}, then export HF_TOKEN=…")
    _say_best(fitted, value)
    if "measured" in value:
        told = value["measured"]
        typer.echo(
            f"\nmeasured {told['precision']}: {told['measured_gib']:.3f} GiB, planned {told['planned_gib']:.3f}: "
            f"the plan is off by {100 * told['off']:+.1f} %"
        )


def _say_best(fitted: Fitted, value: dict[str, Any]) -> None:
    if fitted.best is not None:
        typer.echo(f"\nbest that fits: {fitted.best.plan.precision}\n  {fitted.best.command}\n\n{value['toml']}")
        return
    typer.echo("\nnothing fits as asked")
    for row in fitted.rows:
        if row.gives:
            typer.echo(f"  {row.plan.precision} would with {', or '.join(row.gives)}")


def _cells(row: Row) -> list[str]:
    from noria.apps import fitting as glue

    plan = row.plan
    sizes = [plan.weights, plan.cache, plan.activations + plan.overhead, plan.total]
    requests = "" if row.requests is None else f"{row.requests:,.2f}"
    speed = "" if row.speed is None else f"{row.speed[0]:,.0f} / {row.speed[1]:,.0f}"
    why = "fits" if row.fits else row.because
    first = next(iter(row.gives), "")
    return [
        plan.precision, plan.engine, *(f"{glue.gib(each):.2f}" for each in sizes), glue.bar(plan), requests,
        f"{row.context:,}", speed, f"{why}; {first} would do" if first else why,
    ]  # fmt: skip


def _measured(fitted: Fitted) -> dict[str, Any]:
    from noria.apps import fitting as glue

    row = next((row for row in fitted.rows if row.exact), None)
    if row is None:
        raise Invalid(f"there are no weights of '{fitted.model.name}' here", "noria fit FILE.gguf --measure")
    found = glue.measure(fitted, row)
    return {
        "precision": row.plan.precision,
        "planned_gib": glue.gib(found.planned),
        "measured_gib": glue.gib(found.measured),
        "off": round(found.off, 4),
    }


def _choose(device: str | None, asked: Asked, use: str | None, language: str | None, as_json: bool) -> None:
    from noria.apps import fitting as glue
    from noria.apps.screen import show, table_of

    where, note = glue.device_of(device)
    chosen = glue.choose(where, asked, use, language)
    if as_json:
        rows = [{**glue.told(fitted, entry, []), "rows": [glue.row_told(fitted.best)] if fitted.best else []}
                for entry, fitted in chosen]  # fmt: skip
        show({"device": where.called, "note": note, "models": rows}, as_json=True)
        return
    typer.echo(f"{where.called}: {where.memory_gib * where.count:.1f} GiB, largest model that fits first")
    cells = []
    for entry, fitted in chosen:
        best = fitted.best
        fits = ["nothing fits", "", "", "", ""] if best is None else [
            best.plan.precision, f"{glue.gib(best.plan.total):.1f}",
            "" if best.requests is None else f"{best.requests:,.1f}", f"{best.context:,}",
            "" if best.speed is None else f"{best.speed[0]:,.0f} / {best.speed[1]:,.0f}",
        ]  # fmt: skip
        cells.append([entry.key, f"{entry.parameters / 1e9:.2f} B", *fits, ", ".join(entry.uses), entry.licence,
                      "gated" if entry.gated else ""])  # fmt: skip
    show(None, False, table_of(CHOICES, cells))
