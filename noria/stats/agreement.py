"""How far several people (or judges) who rate the same things agree, beyond what chance would bring about."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

Level = Literal["nominal", "ordinal", "interval"]


def cohen_kappa(a: Sequence[float], b: Sequence[float], weights: Literal["linear", "quadratic"] | None = None) -> float:
    """Cohen's kappa (1960) of two raters, weighted (1968) where the distance of two ratings matters.

    1 is full agreement, 0 what chance would give; nan where neither rater ever varies.

    Raises:
        ValueError: where the raters rated different numbers of things, or none.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"{len(a)} and {len(b)} ratings cannot be paired")
    values = sorted({*a, *b})
    place = {value: number for number, value in enumerate(values)}
    power = {None: 0, "linear": 1, "quadratic": 2}[weights]

    def apart(one: float, other: float) -> float:
        return float(one != other) if not power else float(abs(place[one] - place[other]) ** power)

    seen = sum(apart(one, other) for one, other in zip(a, b, strict=True)) / len(a)
    first, second = Counter(a), Counter(b)
    chance = sum(apart(x, y) * first[x] * second[y] for x in values for y in values) / len(a) ** 2
    return 1 - seen / chance if chance else float("nan")


def krippendorff_alpha(ratings: Sequence[Sequence[float | None]], level: Level) -> float:
    """Krippendorff's alpha ("Content Analysis", 2004, chapter 11) of any number of raters, with gaps.

    1 is full agreement, 0 what chance would give; nan where all ratings are equal, or nothing was rated twice.

    Args:
        ratings: one row a rater, one column a thing; None where a rater did not rate it.
        level: whether values are names, ranks or numbers.

    Raises:
        ValueError: where the rows differ in length.
    """
    if len({len(row) for row in ratings}) > 1:
        raise ValueError("each rater has one place for each thing")
    things = [[value for value in column if value is not None] for column in zip(*ratings, strict=True)]
    weights: dict[tuple[float, float], float] = {}
    for thing in things:
        for pair in itertools.permutations(thing, 2):
            weights[pair] = weights.get(pair, 0.0) + 1 / (len(thing) - 1)
    totals: dict[float, float] = {}
    for (value, _), weight in weights.items():
        totals[value] = totals.get(value, 0.0) + weight
    whole = sum(totals.values())
    apart = _apart(totals, level)
    chance = sum(apart(x, y) * totals[x] * totals[y] for x in totals for y in totals)
    seen = sum(weight * apart(*pair) for pair, weight in weights.items())
    return 1 - (whole - 1) * seen / chance if chance else float("nan")


def _apart(totals: dict[float, float], level: Level) -> Callable[[float, float], float]:
    """Squared difference of two values."""
    ranks: dict[float, float] = {}
    below = 0.0
    for value in sorted(totals):
        # The middle of the ratings of this value: the difference of two such is Krippendorff's sum over ranks between.
        ranks[value] = below + totals[value] / 2
        below += totals[value]

    def apart(one: float, other: float) -> float:
        if level == "nominal":
            return float(one != other)
        if level == "ordinal":
            return (ranks[one] - ranks[other]) ** 2
        return (one - other) ** 2

    return apart
