"""Pictures of what was measured, as PNG files. The same data gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from noria.errors import Invalid, Unavailable
from noria.types import Report


def report(of: Report, file: Path) -> None:
    """Gain of every metric on every slice with its interval; green is better, red is worse."""
    Figure = figure_class()
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


class Placed(Protocol):
    """A candidate in the picture of a comparison."""

    @property
    def label(self) -> str:
        """Its name."""

    @property
    def across(self) -> float:
        """What it takes."""

    @property
    def value(self) -> float:
        """Its score."""

    @property
    def low(self) -> float:
        """Lower bound of the score."""

    @property
    def high(self) -> float:
        """Upper bound of the score."""

    @property
    def member(self) -> bool:
        """Whether it is in the front."""

    @property
    def chosen(self) -> bool:
        """Whether it is the cheapest of the front."""


def comparison(of: Sequence[Placed], across: str, up: str, file: Path) -> None:
    """Scores with their intervals against what they take: the front is green, the rest grey, the chosen one ringed.

    The file's ending says whether it is SVG or PNG; raises Invalid for any other, and where nothing was measured.
    """
    if file.suffix not in (".svg", ".png"):
        raise Invalid(f"'{file.name}' is neither an SVG nor a PNG file", "name it front.svg")
    if not of:
        raise Invalid("nothing was measured that could be drawn", "leave out --timed 0 and --recorded")
    Figure = figure_class()
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for each in of:
        color = "tab:green" if each.member else "tab:gray"
        bounds = [[max(0.0, each.value - each.low)], [max(0.0, each.high - each.value)]]
        axes.errorbar([each.across], [each.value], yerr=bounds, fmt="o", color=color, capsize=3)
        if each.chosen:
            axes.plot([each.across], [each.value], "o", markersize=15, fillstyle="none", color=color)
        axes.annotate(each.label, (each.across, each.value), xytext=(9, 6), textcoords="offset points")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_xlim(left=0)
    axes.margins(x=0.25)
    axes.grid(alpha=0.3)
    from matplotlib import rc_context

    # An SVG's ids are random without it.
    with rc_context({"svg.hashsalt": "noria"}):
        figure.savefig(file, dpi=100, metadata={"Software": None} if file.suffix == ".png" else {"Date": None})


def lengths(of: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Histograms of lengths, one below the other; `of` is the profile's `lengths`: part, unit, spread."""
    Figure = figure_class()
    drawn = [(f"{part}, {unit}", spread) for part, units in of.items() for unit, spread in units.items()]
    figure = Figure(figsize=(8, 0.4 + 1.5 * max(1, len(drawn))), layout="constrained")
    for place, (label, spread) in enumerate(drawn, 1):
        axes = figure.add_subplot(len(drawn), 1, place)
        edges, rows = spread["histogram"]["edges"], spread["histogram"]["rows"]
        widths = [high - low for low, high in pairwise(edges)]
        axes.bar(edges[:-1], rows, width=widths, align="edge", color="tab:blue", edgecolor="white", linewidth=0.5)
        axes.axvline(max(1.0, spread["median"]), color="black", linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks([], minor=True)
        axes.set_xticks(edges[:: max(1, len(edges) // 8)], [f"{each:,}" for each in edges[:: max(1, len(edges) // 8)]])
        axes.set_title(f"{label}: median {spread['median']:g}, 95 % up to {spread['p95']:g}", loc="left", fontsize=9)
        axes.set_ylabel("rows")
    figure.savefig(file, dpi=100, metadata={"Software": None})


def steps(of: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Rows that each step let through, and in grey what it took out; `of` is the profile's `steps`."""
    Figure = figure_class()
    figure = Figure(figsize=(8, 0.9 + 0.42 * max(1, len(of))), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(of))
    kept, took = [step["out"] for step in reversed(of)], [step["in"] for step in reversed(of)]
    axes.barh(places, took, color="lightgray")
    axes.barh(places, kept, color="tab:blue")
    for place, (gave, had) in enumerate(zip(kept, took, strict=True)):
        axes.annotate(f" {gave:,} of {had:,}", (max(gave, had), place), va="center", fontsize=8)
    axes.set_yticks(places, [step["step"] for step in reversed(of)])
    axes.set_xlabel("rows")
    axes.margins(x=0.2)
    figure.savefig(file, dpi=100, metadata={"Software": None})


def figure_class() -> Any:
    """Matplotlib's figure, without any window; raises Unavailable."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[train]'") from error
    return Figure
