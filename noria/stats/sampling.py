"""Samples with known chances, and what they say of all that they were drawn from.

Rows are drawn independently of one another, each with a chance of its own that is fixed beforehand (Poisson
sampling; Särndal, Swensson and Wretman, "Model Assisted Survey Sampling", 1992, section 3.5). Weighting each drawn
row by one over its chance makes up for drawing some kinds of rows more often than others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from noria.stats.intervals import student, wilson


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its bounds. `effective` is how many rows, drawn alike, would say as much."""

    value: float
    low: float
    high: float
    rows: int
    effective: float
    confidence: float


def proportional(weights: Sequence[float], expected: float) -> list[float]:
    """Chances in proportion to the weights, capped at 1, that add up to `expected` as far as that can be.

    Rows whose share exceeds 1 are taken for certain and the rest is shared out anew (Särndal, Swensson and Wretman
    1992, section 3.6.2). Rows of weight 0 have no chance.

    Raises:
        ValueError: for a negative weight or number.
    """
    if expected < 0 or any(not weight >= 0 for weight in weights):
        raise ValueError("neither weights nor the number of rows can be below 0")
    found = [0.0] * len(weights)
    left = [place for place, weight in enumerate(weights) if weight > 0]
    while left and expected > 0:
        whole = math.fsum(weights[place] for place in left)
        certain = {place for place in left if weights[place] * expected >= whole}
        if not certain:
            for place in left:
                found[place] = weights[place] * expected / whole
            break
        for place in certain:
            found[place] = 1.0
        expected -= len(certain)
        left = [place for place in left if place not in certain]
    return found


def horvitz_thompson(values: Sequence[float], chances: Sequence[float]) -> float:
    """The total over all rows, estimated without bias (Horvitz and Thompson 1952): the sum of value over chance.

    Args:
        values: of the rows that were drawn.
        chances: with which each of them was drawn, in (0, 1].

    Raises:
        ValueError: where both differ in number, or a chance is out of range.
    """
    _check(values, chances)
    return math.fsum(value / chance for value, chance in zip(values, chances, strict=True))


def hajek(
    values: Sequence[float], chances: Sequence[float], clusters: Sequence[str], *, confidence: float = 0.95
) -> Estimate:
    """The mean over all rows (Hájek 1971) with an interval for the mean of what rows like these come from.

    The variance is that of the linearised estimate, summed by cluster (Särndal, Swensson and Wretman 1992, sections
    5.7 and 5.10). Without a correction for a finite population, the interval holds for rows to come as well. For
    values of 0 and 1 it is Wilson's at the effective number of rows, fewer for few clusters (Korn and Graubard 1998;
    Franco, Little, Louis and Slud, "Comparative Study of Confidence Intervals for Proportions in Complex Sample
    Surveys", 2019); for others Student's.

    Args:
        values: of the rows that were drawn.
        chances: with which each of them was drawn, in (0, 1].
        clusters: the conversation of each row; rows of one are not independent.
        confidence: coverage of the two-sided interval, in (0, 1).

    Raises:
        ValueError: where the three differ in number or are empty, or a number is out of range.
    """
    _check(values, chances)
    if not values or len(clusters) != len(values):
        raise ValueError(f"{len(values)} values and {len(clusters)} clusters cannot be paired")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} must lie between 0 and 1")
    weights = [1 / chance for chance in chances]
    whole = math.fsum(weights)
    mean = math.fsum(weight * value for weight, value in zip(weights, values, strict=True)) / whole
    residuals: dict[str, float] = {}
    sizes: dict[str, float] = {}
    for value, weight, cluster in zip(values, weights, clusters, strict=True):
        residuals[cluster] = residuals.get(cluster, 0.0) + weight * (value - mean)
        sizes[cluster] = sizes.get(cluster, 0.0) + weight
    count = len(residuals)
    effective = whole**2 / math.fsum(size**2 for size in sizes.values())
    if count == 1:
        return Estimate(mean, -math.inf, math.inf, len(values), effective, confidence)
    variance = count / (count - 1) * math.fsum(each**2 for each in residuals.values()) / whole**2
    if set(values) <= {0.0, 1.0}:
        if variance > 0:
            effective = mean * (1 - mean) / variance
        low, high = wilson(mean, effective, student(confidence, count - 1))
    else:
        reach = student(confidence, max(effective - 1, 1.0)) * math.sqrt(variance)
        low, high = mean - reach, mean + reach
    return Estimate(mean, low, high, len(values), effective, confidence)


def _check(values: Sequence[float], chances: Sequence[float]) -> None:
    if len(values) != len(chances):
        raise ValueError(f"{len(values)} values and {len(chances)} chances cannot be paired")
    if any(not 0 < chance <= 1 for chance in chances):
        raise ValueError("a row that was drawn had a chance above 0 and of 1 at most")
