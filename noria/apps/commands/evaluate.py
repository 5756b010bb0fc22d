"""`noria evaluate`: what answers are measured with."""

from __future__ import annotations

from typing import Annotated

import typer

from noria.apps.commands.options import AsJson

group = typer.Typer(no_args_is_help=True, help="Measure answers.\n\nExample: noria evaluate metrics")


@group.callback()
def about_evaluate() -> None:
    """Measure answers."""


@group.command("metrics")
def list_metrics(
    name: Annotated[str | None, typer.Argument(help="Only this one, with its definition.")] = None,
    as_json: AsJson = False,
) -> None:
    """What can stand in tasks.NAME.metrics: needs, range, direction, unit, definition and source of every metric.

    Example: noria evaluate metrics            Example: noria evaluate metrics bleu
    """
    from noria.apps import views
    from noria.apps.screen import show, table_of
    from noria.evaluation import metrics

    found = [views.metric_told(metrics.find(each)) for each in ([name] if name else metrics.names())]
    if as_json:
        show({"metrics": found}, as_json=True)
    elif name:
        show(None, False, table_of(["", ""], [[key, str(value)] for key, value in found[0].items()]))
    else:
        columns = ["name", "needs", "low", "high", "better", "unit", "definition"]
        rows = [["" if each[key] is None else str(each[key]) for key in columns] for each in found]
        show(None, False, table_of(columns, rows))
