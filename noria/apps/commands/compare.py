"""`noria compare`: candidates, engines and reports on the same sealed rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened

group = typer.Typer()


@group.command()
def compare(
    sides: Annotated[
        list[str],
        typer.Argument(
            help="champion, base, engine:NAME, candidate:…@… or report:…@…; the first is the one "
            "that the others are compared with."
        ),
    ],
    html: Annotated[Path | None, typer.Option("--html", help="Write a page here that needs nothing beside it.")] = None,
    timed: Annotated[int, typer.Option(min=0, help="Questions to measure latency and cost with; 0 measures none.")] = 8,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Ask nothing; use the answers that reports hold.")
    ] = False,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Compare candidates and engines on the same sealed rows: quality with intervals, latency, cost and memory.

    Answers that no report holds yet are asked for. An engine attached by [engines.NAME] url and key, such as OpenAI's,
    is a side like any other.

    Example: noria compare champion engine:gpu --html compared.html
    """  # fmt: skip
    import time

    from noria.apps import memory, tables
    from noria.apps.screen import Screen, show
    from noria.evaluation import comparison
    from noria.evaluation.compare import compare as compared

    began = time.monotonic()
    platform = opened(project)
    name, _ = platform.settings.task(task)
    with Screen() as screen:
        found = compared(platform, name, sides, screen, timed=timed, recorded=recorded, memory=memory.of_children)
        artifact = comparison.keep(platform, found, began)
    if html is not None:
        html.write_text(comparison.drawn(found))
    told = {"report": str(artifact.ref), **comparison.told(found)}
    if as_json:
        show(told, as_json=True)
        return
    tables.printed(told)
