"""The picture of a benchmark: speed and memory of each engine and precision, by concurrency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noria.backends.plots import figure_class
from noria.errors import Invalid


def draw(of: Mapping[str, Any], file: Path) -> None:
    """`of` is what `noria bench --json` prints; the file's ending says SVG or PNG.

    A panel for each scenario: tokens per second over requests at once, with the spread of the rounds. Void rows have
    no point. Raises Invalid for another ending.
    """
    if file.suffix not in (".svg", ".png"):
        raise Invalid(f"'{file.name}' is neither an SVG nor a PNG file", "name it bench.svg")
    Figure = figure_class()
    from matplotlib import rc_context

    names = list(dict.fromkeys(row["scenario"] for row in of["rows"]))
    labels = list(dict.fromkeys(_label(row) for row in of["rows"]))
    figure = Figure(figsize=(4.2 * len(names) + 1.2, 3.9), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        rows = [row for row in of["rows"] if row["scenario"] == name]
        levels = sorted({row["concurrency"] for row in rows})
        for number, label in enumerate(labels):
            mine = [row for row in rows if _label(row) == label and row["tokens_per_s"] is not None]
            if not mine:
                continue
            speeds = [row["tokens_per_s"] for row in mine]
            spread = [
                [max(0.0, row["tokens_per_s"] - row["tokens_per_s_low"]) for row in mine],
                [max(0.0, row["tokens_per_s_high"] - row["tokens_per_s"]) for row in mine],
            ]
            # Beside one another, where they would hide each other.
            width = 0.8 / len(labels)
            places = [levels.index(row["concurrency"]) - 0.4 + width * (number + 0.5) for row in mine]
            axes.bar(places, speeds, width, yerr=spread, capsize=2, label=label, color=f"C{number}")
        axes.set_xticks(range(len(levels)), [str(level) for level in levels])
        axes.set_xlabel("requests at once")
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("tokens per second")
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend([*handles.values()], [*handles], loc="outside lower center", ncols=min(4, 2 * len(names)), fontsize=8)
    with rc_context({"svg.hashsalt": "noria"}):
        figure.savefig(file, dpi=100, metadata={"Software": None} if file.suffix == ".png" else {"Date": None})


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['engine']} {row['precision']}"
