"""`noria compare`: candidates, engines and reports on the same sealed rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened

if TYPE_CHECKING:
    from pydantic import JsonValue

group = typer.Typer()


@group.command()
def compare(
    sides: Annotated[
        list[str] | None,
        typer.Argument(
            help="champion, base, engine:NAME, candidate:…@… or report:…@…; the first is the one that the others are "
            "compared with. None, or a task's name alone: one candidate of every kind.",
        ),
    ] = None,
    kinds: Annotated[
        str, typer.Option("--with", help="KIND,… or KIND@ENGINE: only these beside the champion; made where missing.")
    ] = "",
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="URL of a server outside that speaks OpenAI's API.")
    ] = None,
    baseline_model: Annotated[str | None, typer.Option("--baseline-model", help="Which of its models.")] = None,
    baseline_key: Annotated[
        str, typer.Option("--baseline-key", help="Environment variable that holds its key; it is off without.")
    ] = "OPENAI_API_KEY",
    html: Annotated[Path | None, typer.Option("--html", help="Write a page here that needs nothing beside it.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw quality against cost or latency: a .svg or .png file.")
    ] = None,
    timed: Annotated[int, typer.Option(min=0, help="Questions to measure latency and cost with; 0 measures none.")] = 8,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Ask nothing; use the answers that reports hold.")
    ] = False,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Compare candidates and engines on the same sealed rows: quality with intervals, latency, memory, cost, energy.

    Would a prompt, a few examples or an encoder do the job? The front names all that are not worse than the best by the
    gate's margin, and the cheapest of them. Answers that no report holds yet are asked for. An engine attached by
    [engines.NAME] url and key, such as OpenAI's, is a side like any other. Each comparison is a look at the sealed
    rows, and counts as one.

    Example: noria compare helpdesk --with few-shot,lora,engine:big --plot front.svg
    """  # fmt: skip
    asked = Asked(
        words=list(sides or ()), kinds=[each.strip() for each in kinds.split(",") if each.strip()], timed=timed,
        recorded=recorded, baseline=(baseline, baseline_model, baseline_key) if baseline is not None else None,
    )  # fmt: skip
    told = _compared(project, task, asked, html, plot)
    if as_json:
        from noria.apps.screen import show

        show(told, as_json=True)
        return
    from noria.apps import tables

    tables.printed(told)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be compared; `baseline` is a URL, a model's name and a variable's."""

    words: list[str]
    kinds: list[str]
    timed: int
    recorded: bool
    baseline: tuple[str, str | None, str] | None


def _compared(
    project: Path, task: str | None, asked: Asked, html: Path | None, plot: Path | None
) -> dict[str, JsonValue]:
    """Compare, keep and draw; returns what is told."""
    import time

    from noria.apps import making, memory
    from noria.apps.screen import Screen
    from noria.backends import energy, plots
    from noria.evaluation import comparison
    from noria.evaluation.compare import Meters, compare

    began = time.monotonic()
    platform = opened(project)
    words = asked.words
    if task is None and words and words[0] in platform.settings.tasks:
        task, *words = words
    name, _ = platform.settings.task(task)
    if asked.baseline is not None:
        platform = making.with_baseline(platform, *asked.baseline)
    meters = Meters(memory.of_children, energy.EnergyMeter().joules)
    with Screen() as screen:
        found = compare(
            platform, name, words, screen, timed=asked.timed, recorded=asked.recorded, meters=meters,
            kinds=asked.kinds, also=[f"engine:{making.BASELINE}"] if asked.baseline is not None else [],
            make=lambda kind: making.made(platform, name, kind, screen),
        )  # fmt: skip
        artifact = comparison.keep(platform, found, began)
    if html is not None:
        html.write_text(comparison.drawn(found))
    if plot is not None:
        plots.comparison(*comparison.points(found), plot)
    return {"report": str(artifact.ref), **comparison.told(found)}
