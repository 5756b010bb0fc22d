"""What rows have together: a statistic is a function of the sum of their rows, or a quantile of them.

A metric of many answers is seldom a mean of one number: BLEU divides sums of counts, F1 divides others. Where it is a
function of sums, each row carries its share of them, and leaving rows out or drawing them twice is an addition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OfSums:
    """A function of sums that stays the same when every row is there twice, such as a ratio of two of them.

    `of` maps an array of shape (..., k) to one of shape (...), and gives a finite number for sums of 0 too. `low` and
    `high` are the range of its values.
    """

    of: Callable[[FloatArray], FloatArray]
    low: float = -math.inf
    high: float = math.inf

    def each(self, rows: FloatArray) -> FloatArray:
        """Values of the rows by themselves; `rows` has shape (n, k)."""
        return self.of(rows)

    def value(self, rows: FloatArray) -> float:
        """Value of all rows together."""
        return float(self.of(rows.sum(axis=0)))


@dataclass(frozen=True, slots=True)
class Quantile:
    """The value below which a share in (0, 1) of the rows lies; rows have shape (n, 1)."""

    share: float
    low: float = -math.inf
    high: float = math.inf

    def each(self, rows: FloatArray) -> FloatArray:
        """The rows themselves."""
        return rows[:, 0]

    def value(self, rows: FloatArray) -> float:
        """The quantile of all rows, between two of them where it falls there."""
        return float(np.quantile(rows[:, 0], self.share))


Statistic = OfSums | Quantile


def ratio(sums: FloatArray) -> FloatArray:
    """First sum by second; 0 where the second is 0."""
    parts, wholes = sums[..., 0], sums[..., 1]
    return np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes != 0)


def mean(low: float = -math.inf, high: float = math.inf) -> OfSums:
    """The mean of values in [low, high]; their rows are those of `rows_of`."""
    return OfSums(ratio, low, high)


def rows_of(values: Sequence[float]) -> FloatArray:
    """Rows of a mean: each value, counted once; shape (n, 2)."""
    found = np.asarray(values, np.float64)
    return np.column_stack([found, np.ones_like(found)])


def members(clusters: Sequence[str]) -> tuple[npt.NDArray[np.intp], int]:
    """Number of the cluster of each row, and how many clusters there are."""
    names, found = np.unique(np.asarray(clusters), return_inverse=True)
    return found, len(names)


def summed(rows: FloatArray, member: npt.NDArray[np.intp], count: int) -> FloatArray:
    """Sums of the rows of each cluster; shape (clusters, k)."""
    return np.column_stack([np.bincount(member, column, count) for column in rows.T])
