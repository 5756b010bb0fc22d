"""The picture of a memory plan: for each precision its parts side by side, and where the device ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from noria.backends.plots import figure_class
from noria.errors import Invalid

_PARTS: Final = (
    ("weights_gib", "weights", "tab:blue"),
    ("kv_gib", "KV cache", "tab:orange"),
    ("activations_gib", "activations", "tab:green"),
    ("overhead_gib", "engine", "tab:gray"),
)
_BEYOND: Final = 1.6
"""Bars are cut at so many times the device's memory."""


def draw(of: Mapping[str, Any], file: Path) -> None:
    """`of` is what `noria fit --json` prints; the file's ending says SVG or PNG. Raises Invalid for any other."""
    if file.suffix not in (".svg", ".png"):
        raise Invalid(f"'{file.name}' is neither an SVG nor a PNG file", "name it fit.svg")
    Figure = figure_class()
    from matplotlib import rc_context

    rows = [*reversed(of["rows"])]
    usable = of["device"]["usable_gib"]
    figure = Figure(figsize=(9, 1.4 + 0.34 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows))
    ends = [0.0] * len(rows)
    for key, label, colour in _PARTS:
        sizes = [row[key] for row in rows]
        axes.barh(places, sizes, left=ends, color=colour, label=label)
        ends = [end + size for end, size in zip(ends, sizes, strict=True)]
    axes.axvline(usable, color="black", linewidth=1.5)
    widest = max([usable, *(min(end, _BEYOND * usable) for end in ends)]) * 1.12
    axes.set_xlim(0, widest)
    for place, end in enumerate(ends):
        axes.annotate(f" {end:.1f}", (min(end, widest * 0.93), place), va="center", fontsize=8)
    axes.set_yticks(places, [f"{row['precision']}{'' if row['fits'] else ' (no)'}" for row in rows])
    asked = f"{of['concurrency']} requests of {of['context']:,} tokens"
    axes.set_title(f"{of['model']} on {of['device']['name']}, {asked}", loc="left", fontsize=10)
    axes.set_xlabel(f"GiB; the line is what an engine gets, {usable:g}")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    with rc_context({"svg.hashsalt": "noria"}):
        figure.savefig(file, dpi=100, metadata={"Software": None} if file.suffix == ".png" else {"Date": None})
