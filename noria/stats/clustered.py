"""Intervals for rows that belong together: conversations are independent of each other, their rows are not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noria.stats.intervals import student

GROUPS = 100
"""Most parts that a jackknife leaves out one by one; more clusters than this are grouped."""


@dataclass(frozen=True, slots=True)
class Bounded:
    """A number with the bounds of its interval at `confidence`."""

    value: float
    low: float
    high: float
    confidence: float = 0.95


def coefficient(
    statistic: Callable[[Sequence[int]], float], clusters: Sequence[str], confidence: float = 0.95
) -> Bounded | None:
    """A coefficient of agreement, at most 1, with a jackknife interval over whole clusters.

    The coefficient is taken to Fisher's z scale, where its jackknife (Tukey, "Bias and confidence in not quite large
    samples", 1958) is closer to a t distribution, and back. Where all rows agree, the interval reaches down as far as
    a share of disagreement that this many clusters may have missed.

    Args:
        statistic: its value from the numbers of the rows to use; NaN where it is not defined.
        clusters: the conversation of each row.
        confidence: of the two-sided interval, in (0, 1).

    Returns:
        None where the coefficient is not defined or there are fewer than three clusters.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    value = statistic(range(len(clusters))) if len(names) >= 3 else math.nan
    if math.isnan(value):
        return None
    if value >= 1.0:
        unseen = 1 - ((1 - confidence) / 2) ** (1 / len(names))
        return Bounded(1.0, 1 - 2 * unseen, 1.0, confidence)
    count = min(GROUPS, len(names))
    group = [names[name] % count for name in clusters]
    left_out = []
    for part in range(count):
        left = statistic([row for row, member in enumerate(group) if member != part])
        left_out.append(_z(value if math.isnan(left) else left))
    centre = sum(left_out) / count
    spread = math.sqrt((count - 1) / count * sum((each - centre) ** 2 for each in left_out))
    reach = student(confidence, count - 1) * spread
    return Bounded(value, math.tanh(_z(value) - reach), math.tanh(_z(value) + reach), confidence)


def mean(numbers: Sequence[float], clusters: Sequence[str], confidence: float = 0.95) -> Bounded | None:
    """The mean over rows with a t interval over whole clusters; None with fewer than two.

    The variance is that of the jackknife over clusters (CR3; Bell and McCaffrey 2002), which is not too small where
    there are few of them.
    """
    row = np.asarray(numbers, float)
    member, count = numbered(clusters)
    if count < 2:
        return None
    value = float(row.mean())
    parts = np.bincount(member, weights=row - value) / (len(row) - np.bincount(member))
    apart = float(((row - value) ** 2).sum()) / (len(row) * (len(row) - 1))
    # Conversations that are balanced within are not believed to know the mean without any error.
    spread = math.sqrt(max(float((parts**2).sum()), apart))
    reach = student(confidence, count - 1) * spread
    return Bounded(value, value - reach, value + reach, confidence)


def slope(
    x: Sequence[float], y: Sequence[float], given: Sequence[float], clusters: Sequence[str], confidence: float = 0.95
) -> Bounded | None:
    """Change of y with x where `given` is the same (least squares), with a cluster-robust t interval.

    The variance is the sandwich of Liang and Zeger ("Longitudinal data analysis using generalized linear models", 1986)
    with residuals weighted up by their leverage (HC3; MacKinnon and White 1985). None where x does not vary by itself
    or there are fewer than five clusters.
    """
    member, count = numbered(clusters)
    if count < 5:
        return None
    design = np.column_stack([np.ones(len(given)), np.asarray(given, float), np.asarray(x, float)])
    # What is left of x without the others is what tells its own effect (Frisch and Waugh 1933).
    others = design[:, :2]
    alone = design[:, 2] - others @ np.linalg.lstsq(others, design[:, 2], rcond=None)[0]
    ground = float((alone**2).sum())
    if ground <= 1e-9 * float((design[:, 2] ** 2).sum()) or ground == 0.0:
        return None
    up = np.asarray(y, float)
    residual = up - design @ np.linalg.lstsq(design, up, rcond=None)[0]
    leverage = np.minimum(0.9, np.einsum("ij,jk,ik->i", design, np.linalg.pinv(design.T @ design), design))
    value = float((alone * up).sum()) / ground
    each = alone * residual / (1 - leverage) / ground
    parts = np.bincount(member, weights=each)
    reach = student(confidence, max(1, count - 3)) * math.sqrt(max(float((parts**2).sum()), float((each**2).sum())))
    # What is nothing but rounding must not look like an effect without any error.
    return Bounded(round(value, 9), round(value - reach, 9), round(value + reach, 9), confidence)


def numbered(clusters: Sequence[str]) -> tuple[npt.NDArray[np.int64], int]:
    """The number of each row's cluster, from 0, and how many there are."""
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    return np.array([names[name] for name in clusters], np.int64), len(names)


def _z(value: float) -> float:
    return math.atanh(min(0.999999, max(-0.999999, value)))
