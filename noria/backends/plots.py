"""Pictures of what was measured, as PNG files. The same data gives the same bytes."""

from __future__ import annotations

from pathlib import Path

from noria.errors import Unavailable
from noria.types import Report


def report(of: Report, file: Path) -> None:
    """Gain of every metric on every slice with its interval; green is better, red is worse."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[train]'") from error
    rows = [(group, each) for group, metrics in of.intervals.items() for each in metrics.values()]
    figure = Figure(figsize=(8, 0.9 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for position, (_, each) in enumerate(reversed(rows)):
        up, down = ("tab:green", "tab:red") if each.higher_is_better else ("tab:red", "tab:green")
        color = up if each.low > 0 else down if each.high < 0 else "tab:gray"
        axes.plot([each.low, each.high], [position, position], color=color, linewidth=3, solid_capstyle="butt")
        axes.plot([each.gain], [position], "o", color=color, markersize=7)
    axes.axvline(0, color="black", linewidth=1)
    labels = [f"{group} · {each.name} ({each.rows} rows)" for group, each in reversed(rows)]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_xlabel(f"gain of the candidate, {rows[0][1].confidence:.0%} paired interval" if rows else "no rows")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=100, metadata={"Software": None})
