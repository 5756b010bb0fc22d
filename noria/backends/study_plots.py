"""Pictures of a study, as PNG files. The same trials give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from noria.backends.plots import figure_class
from noria.settings import Axis, SearchPlan
from noria.types import Trial

COLOURS = {"complete": "tab:blue", "pruned": "tab:orange", "failed": "tab:red"}
LONGEST = 24
"""Letters of a choice."""


def draw(plan: SearchPlan, trials: Sequence[Trial], importance: Mapping[str, float], metric: str, folder: Path) -> None:
    """Write `history.png`, `slices.png` and, where it can be said, `importance.png`."""
    _save(_history(plan, trials, metric), folder / "history.png")
    _save(_slices(plan, trials, metric), folder / "slices.png")
    if importance:
        _save(_importance(importance, metric), folder / "importance.png")


def _save(figure: Any, file: Path) -> None:
    figure.savefig(file, dpi=100, metadata={"Software": None})


def _last(trial: Trial) -> float | None:
    """The trial's value; of one that was pruned, what it had last."""
    return trial.value if trial.value is not None else trial.curve[-1] if trial.curve else None


def _history(plan: SearchPlan, trials: Sequence[Trial], metric: str) -> Any:
    """The value of each trial, and the best so far."""
    figure = figure_class()(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for state, colour in COLOURS.items():
        points = [(each.number, value) for each in trials if each.state == state and (value := _last(each)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=colour, label=state)
    done = [each for each in trials if each.value is not None]
    better = max if plan.higher_is_better else min
    best = [*accumulate((each.value for each in done if each.value is not None), better)]
    axes.plot([each.number for each in done], best, color="black", linewidth=1, drawstyle="steps-post", label="best")
    axes.set_xlabel("trial")
    axes.set_ylabel(f"{metric} of the validation rows")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def _importance(importance: Mapping[str, float], metric: str) -> Any:
    """How much of the differences each field accounts for."""
    names = [*importance][::-1]
    figure = figure_class()(figsize=(7, 0.9 + 0.4 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(names)), [importance[name] for name in names], color="tab:blue")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(f"share of the differences in {metric} (PED-ANOVA)")
    axes.set_xlim(left=0)
    return figure


def _slices(plan: SearchPlan, trials: Sequence[Trial], metric: str) -> Any:
    """The value by each field; later trials are darker."""
    across = min(3, len(plan.axes))
    down = -(-len(plan.axes) // across)
    figure = figure_class()(figsize=(3.2 * across + 0.6, 2.8 * down + 0.4), layout="constrained")
    done = [each for each in trials if each.value is not None]
    for place, axis in enumerate(plan.axes, 1):
        axes = figure.add_subplot(down, across, place)
        places = [_place(axis, each) for each in done]
        axes.scatter(places, [each.value for each in done], c=[each.number for each in done], cmap="Blues",
                     vmin=-len(trials) / 2, edgecolors="tab:blue")  # fmt: skip
        if axis.choices:
            axes.set_xticks(range(len(axis.choices)), [str(each)[:LONGEST] for each in axis.choices])
            axes.set_xlim(-0.5, len(axis.choices) - 0.5)
        elif axis.log:
            axes.set_xscale("log")
            axes.set_xlim(axis.low / 1.3, axis.high * 1.3)
            axes.xaxis.set_minor_formatter(lambda value, place: "")
        axes.set_xlabel(axis.name)
        axes.grid(alpha=0.3)
        if place % across == 1 or across == 1:
            axes.set_ylabel(metric)
    return figure


def _place(axis: Axis, trial: Trial) -> float:
    value = trial.values[axis.name]
    return float(axis.choices.index(value)) if axis.choices else float(str(value))
