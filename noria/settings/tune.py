"""tasks.NAME.tune: the search for the values of a recipe, and what it may cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, JsonValue, Tag, ValidationError, model_validator

from noria.errors import Invalid
from noria.settings.base import Table, known
from noria.settings.recipe import RecipeSettings

Sampler = Literal["tpe", "random", "grid", "hyperopt-tpe"]
Pruning = Literal["median", "halving", "none"]
LOSS = "loss"
"""The metric that is the loss of the validation rows; less is better."""
FIXED = {
    "kind": "a study is of one kind of recipe",
    "preset": "it stands for values of other fields",
    "max_length": "the features are made before the search",
    "validation": "it is what trials are compared on: set it in tune",
    "patience": "whether a trial ends early is the pruning's matter",
    "start": "what a training goes on from is settled before the search",
}
"""Fields of a recipe that no trial may change, and why."""


class RangeSettings(Table):
    """One field of `space` that is a number between two bounds, both of which may be drawn."""

    low: float
    high: float
    log: bool = False
    """Drawn evenly on a logarithmic scale."""
    step: float | None = Field(default=None, gt=0.0)
    points: int = Field(default=3, ge=2, le=100)
    """How many values a grid takes of it where there is no step."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"'low' must be below 'high'; they are {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0.0:
            raise ValueError(f"a logarithmic scale has no {self.low:g}; give a 'low' above 0")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic scale has no steps; leave 'log' or 'step' out")
        if self.step is not None and abs(_rest(self.high - self.low, self.step)) > 1e-9 * self.step:
            raise ValueError(f"{self.step:g} does not lead from {self.low:g} to {self.high:g}; change 'step' or 'high'")
        return self


class Axis(Table):
    """One field that is searched: choices, or a range. `whole` says that the field takes whole numbers only."""

    name: str
    choices: tuple[JsonValue, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False
    points: int = 3

    def grid(self) -> tuple[JsonValue, ...]:
        """The values of a grid, each once: all choices, all steps, or `points` values evenly on the scale."""
        if self.choices:
            return self.choices
        if self.step is not None:
            values = [self.low + number * self.step for number in range(round((self.high - self.low) / self.step) + 1)]
        elif self.log:
            ratio = (self.high / self.low) ** (1 / (self.points - 1))
            values = [self.low * ratio**number for number in range(self.points)]
        else:
            values = [self.low + (self.high - self.low) * n / (self.points - 1) for n in range(self.points)]
        values[-1] = self.high
        return tuple(dict.fromkeys(round(value) if self.whole else float(f"{value:.12g}") for value in values))

    def holds(self, value: JsonValue) -> bool:
        """Whether a search could draw this value."""
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or abs(_rest(value - self.low, self.step)) <= 1e-9 * self.step


def _rest(length: float, step: float) -> float:
    """How far the nearest whole number of steps misses this length."""
    return length - step * round(length / step)


def _form(value: Any) -> str:
    return "range" if isinstance(value, dict | RangeSettings) else "choices"


Choices = Annotated[tuple[JsonValue, ...], Field(min_length=1)]
Part = Annotated[Annotated[RangeSettings, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_form)]

PRESETS: Mapping[str, Mapping[str, RangeSettings | tuple[JsonValue, ...]]] = {
    "booklet": {
        "learning_rate": RangeSettings(low=1e-5, high=1e-3, log=True),
        "batch": (8, 16),
        "epochs": RangeSettings(low=2, high=4, step=1),
    }
}
"""By name. The booklet means its bounds as values; its own code, which rounds their logarithms, draws 1.67e-5 to
2.48e-3."""


class TuneSettings(Table):
    """[tasks.NAME.tune]: fields of the recipe are searched on validation rows before the adapter is trained."""

    sampler: Sampler = "tpe"
    trials: int = Field(default=12, ge=1, le=10_000)
    """How many are made in all, by all processes, in all sittings."""
    minutes: float | None = Field(default=None, gt=0.0)
    """What all trials together may take, summed over processes; none begins after that."""
    energy_wh: float | None = Field(default=None, gt=0.0)
    """Watt hours after which no trial begins, on machines that count their energy."""
    metric: str = LOSS
    """The loss of the validation rows, or one of the task's metrics of the answers to them."""
    pruning: Pruning = "median"
    """Which trials end early: those behind the median at the same part of their training, or all but the best third
    at each rung (successive halving)."""
    validation: float = Field(default=0.2, gt=0.0, le=0.5)
    """Share of the training conversations that trials do not learn but are compared on."""
    seed: int = 7
    renew: Literal["data", "settings"] = "data"
    """What asks for another study: other training rows, or nothing but other settings."""
    preset: Literal["booklet"] | None = None
    """A space by name, beneath what stands in `space`."""
    space: dict[str, Part] = Field(default_factory=dict)

    def axes(self, recipe: RecipeSettings, place: Callable[[str], str]) -> tuple[Axis, ...]:
        """What is searched, by name; `place` says where in the file a field of the space stands.

        Raises Invalid for an empty space, for a field that the recipe has not or that is none of the search's, and
        for bounds or choices that the recipe itself would refuse.
        """
        parts = {**(PRESETS[self.preset] if self.preset else {}), **self.space}
        if not parts:
            raise Invalid(
                "the table 'tune' names nothing to search",
                'space = { learning_rate = { low = 1e-5, high = 1e-3, log = true } }, or preset = "booklet"',
                where=place(""),
            )
        return tuple(_axis(name, part, recipe, place(name)) for name, part in sorted(parts.items()))


def _axis(name: str, part: RangeSettings | tuple[JsonValue, ...], recipe: RecipeSettings, where: str) -> Axis:
    fields = type(recipe).model_fields
    if name not in fields:
        raise Invalid(
            f"'space.{name}': recipe '{recipe.kind}' has no field '{name}'",
            known(name, fields.keys() - FIXED.keys()),
            where=where,
        )
    if name in FIXED:
        raise Invalid(f"'space.{name}' cannot be searched: {FIXED[name]}", "leave it out", where=where)
    types = {fields[name].annotation, *get_args(fields[name].annotation)}
    whole = int in types
    if isinstance(part, tuple):
        values: list[JsonValue] = list(part)
        axis = Axis(name=name, choices=tuple({json.dumps(value): value for value in part}.values()))
    elif whole or float in types:
        values = [part.low, part.high, *([] if part.step is None else [part.low + part.step])]
        axis = Axis(name=name, whole=whole, **part.model_dump())
    else:
        hint = f"give its choices: {name} = […]"
        raise Invalid(f"'space.{name}' is no number, so it has no range", hint, where=where)
    for value in values:
        if reason := refused(recipe, {name: value}):
            shown = f"{value:g}" if isinstance(value, float) else value
            fact = f"'space.{name}': recipe '{recipe.kind}' refuses '{shown}': {reason}"
            raise Invalid(fact, "keep the space within what the recipe takes", where=where)
    return axis


def refused(recipe: RecipeSettings, values: Mapping[str, JsonValue]) -> str:
    """Why the recipe cannot have these values; empty where it can."""
    try:
        with_values(recipe, values)
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return ""


def with_values(recipe: RecipeSettings, values: Mapping[str, JsonValue]) -> RecipeSettings:
    """The recipe with other values in these fields; raises pydantic's ValidationError."""
    return type(recipe).model_validate({**recipe.model_dump(), **values})


class SearchPlan(Table):
    """All that a study is told when it is opened; `budget` may change from one sitting to the next, as may the sampler.

    `first` are the values that the recipe has without a search: they are tried before any other.
    """

    task: str
    axes: tuple[Axis, ...]
    higher_is_better: bool = False
    sampler: Sampler = "tpe"
    pruning: Pruning = "median"
    seed: int = 7
    trials: int = 12
    minutes: float | None = None
    energy_wh: float | None = None
    first: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def most(self) -> int:
        """Trials in all: those of the budget, or fewer where the grid has fewer."""
        if self.sampler != "grid":
            return self.trials
        return min(self.trials, math.prod(len(axis.grid()) for axis in self.axes))
