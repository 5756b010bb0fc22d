"""Intervals of one system's value on rows of which those of a conversation belong together.

| values | interval |
|---|---|
| 0 or 1, each row alone in its conversation | Wilson's score interval (Wilson, "Probable Inference", 1927) |
| in a range with two ends | Wilson's with the effective number of rows, and Student's t for the normal quantile |
| without an end | bootstrap-t over conversations (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993) |
| quantiles | Woodruff's ("Confidence Intervals for Medians and Other Position Measures", 1952) |

The effective number of rows is value * (1 - value) / variance on the scale of the range (Korn and Graubard,
"Confidence Intervals for Proportions with Small Expected Number of Positive Counts", 1998; Franco et al., "Comparative
Study of Confidence Intervals for Proportions in Complex Sample Surveys", 2019). The variance is that of the jackknife
which leaves out one conversation at a time, and t has one degree of freedom less than there are conversations: the
percentile bootstrap and the normal quantile are too narrow where these are few (Cameron and Miller, "A Practitioner's
Guide to Cluster-Robust Inference", 2015). How often all these cover is measured in `benchmarks/coverage.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt

from noria.errors import Unavailable
from noria.stats.statistic import FloatArray, OfSums, Quantile, Statistic, members, ratio, summed

FEW = 20
"""Fewer conversations than this are told of: no interval was shown to cover there."""
SCARCE = 5
"""With fewer effective rows than this on the rarer side an interval is widened: Wilson's alone can be too narrow there,
and how alike the rows of a conversation are cannot be told, so that each conversation counts as one row at most."""
SKEWED = 25
"""An interval without an end is too narrow where there are fewer conversations than this times their squared skewness
(Cochran, "Sampling Techniques", 1977, section 2.15)."""
RESAMPLES = 2000
RARE = "widened: hardly any row differs"
ALIKE = "all rows are alike: nothing is known of others"


@dataclass(frozen=True, slots=True)
class Bounds:
    """A value, where it lies with the stated confidence, how that was found, and what must be known of it."""

    value: float
    low: float
    high: float
    method: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Jackknife:
    """How far each cluster moves the value, shape (clusters,), and the value's standard error.

    The influences of equally large clusters on a mean are the distances of their own means from it.
    """

    value: float
    influence: FloatArray

    @property
    def error(self) -> float:
        """Standard error of the value; 0 for a single cluster, of which none can be known."""
        count = len(self.influence)
        return math.sqrt(float((self.influence**2).sum()) / (count * (count - 1))) if count > 1 else 0.0


def of(rows: FloatArray, clusters: Sequence[str], statistic: Statistic, *, confidence: float = 0.95) -> Bounds:
    """The value of all rows, of shape (n, k), with its interval; the same arguments give the same bounds.

    Args:
        rows: sufficient statistics, a row each.
        clusters: the conversation of each row.
        statistic: what the rows have together.
        confidence: coverage of the two-sided interval, in (0, 1).

    Raises:
        ValueError: where rows and clusters differ in number, or there are none.
        Unavailable: scipy is not installed.
    """
    if len(rows) != len(clusters) or not len(rows):
        raise ValueError(f"{len(rows)} rows and {len(clusters)} clusters do not belong together")
    member, count = members(clusters)
    if isinstance(statistic, Quantile):
        return _of_quantile(rows[:, 0], member, count, statistic, confidence)
    if count == len(rows) and binary(rows, statistic):
        return _of_shares(int(rows[:, 0].sum()), count, confidence)
    sums = summed(rows, member, count)
    found = jackknife(sums, statistic)
    if count > 1 and math.isinf(statistic.high - statistic.low):
        return _without_end(sums, statistic, found, confidence)
    return _within(found, statistic, count, confidence)


def jackknife(sums: FloatArray, statistic: OfSums) -> Jackknife:
    """Leave out one cluster at a time; `sums` has shape (clusters, k)."""
    count, whole = len(sums), sums.sum(axis=0)
    value = float(statistic.of(whole))
    if count == 1:
        return Jackknife(value, np.zeros(1))
    without = statistic.of(whole - sums)
    return Jackknife(value, (count - 1) * (without.mean() - without))


@functools.lru_cache(maxsize=4)
def draws(count: int, resamples: int = RESAMPLES, seed: int = 0) -> FloatArray:
    """How often each cluster is drawn into each bootstrap sample; shape (resamples, count).

    Times the clusters' sums these are the sums of the samples: the whole bootstrap is one product of matrices.
    """
    drawn = np.random.default_rng(seed).integers(0, count, size=(resamples, count))
    places = (drawn + count * np.arange(resamples)[:, None]).ravel()
    return np.bincount(places, minlength=resamples * count).reshape(resamples, count).astype(np.float64)


def wilson(share: float, rows: float, critical: float) -> tuple[float, float]:
    """Wilson's score interval of a share of rows; their number need not be whole."""
    square = critical**2 / rows
    middle, half = share + square / 2, critical * math.sqrt(share * (1 - share) / rows + square / (4 * rows))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def of_share(hits: int, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of `hits` in `rows` independent ones; it holds at shares of 0 and 1 too.

    Raises ValueError where `hits` is not in 0 to `rows`, or there are no rows.
    """
    if not 0 <= hits <= rows or not rows:
        raise ValueError(f"{hits} of {rows} is no share")
    low, high = wilson(hits / rows, rows, normal(confidence))
    return round(low, 6), round(high, 6)


def binary(rows: FloatArray, statistic: Statistic) -> bool:
    """Whether the statistic is the share of rows that are 1, all others being 0."""
    if not isinstance(statistic, OfSums) or statistic.of is not ratio or (statistic.low, statistic.high) != (0, 1):
        return False
    return bool(((rows[:, 0] == 0) | (rows[:, 0] == 1)).all() and (rows[:, 1] == 1).all())


def normal(confidence: float) -> float:
    """Two-sided quantile of the normal distribution."""
    return float(_special().ndtri((1 + confidence) / 2))


def student(confidence: float, freedom: float) -> float:
    """Two-sided quantile of Student's t with so many degrees of freedom; infinite without any."""
    return float(_special().stdtrit(freedom, (1 + confidence) / 2)) if freedom > 0 else math.inf


def few(clusters: int) -> tuple[str, ...]:
    """A warning where there are fewer conversations than any interval was shown to need."""
    return (f"fewer than {FEW} conversations",) if clusters < FEW else ()


def quantile_shares(
    values: FloatArray, member: npt.NDArray[np.intp], count: int, share: float
) -> tuple[FloatArray, float]:
    """By cluster how many rows too many lie below the quantile, and the effective number of rows."""
    place = float(np.quantile(values, share))
    below = np.bincount(member, (values <= place) - share, count).astype(np.float64)
    spread = float(((below - below.mean()) ** 2).sum()) * count / max(1, count - 1)
    rows = len(values)
    return below, min(rows * rows * share * (1 - share) / spread, rows) if spread > 0 else float(count)


def _of_shares(hits: int, rows: int, confidence: float) -> Bounds:
    """Wilson's interval; with few rows on the rarer side not within that of Clopper and Pearson (1934)."""
    share, tail = hits / rows, (1 - confidence) / 2
    low, high = wilson(share, rows, normal(confidence))
    if min(hits, rows - hits) >= SCARCE:
        return Bounds(share, low, high, "Wilson", few(rows))
    inverse = _special().betaincinv
    low = min(low, float(inverse(hits, rows - hits + 1, tail))) if hits else 0.0
    high = max(high, float(inverse(hits + 1, rows - hits, 1 - tail))) if hits < rows else 1.0
    return Bounds(share, low, high, "Wilson", (*few(rows), RARE))


def _of_quantile(
    values: FloatArray, member: npt.NDArray[np.intp], count: int, statistic: Quantile, confidence: float
) -> Bounds:
    _, effective = quantile_shares(values, member, count, statistic.share)
    half = student(confidence, count - 1) * math.sqrt(statistic.share * (1 - statistic.share) / effective)
    first, last = statistic.share - half, statistic.share + half
    warning = () if first > 0 and last < 1 else ("too few rows for a bound on each side",)
    return Bounds(
        statistic.value(values[:, None]),
        float(np.quantile(values, first)) if first > 0 else statistic.low,
        float(np.quantile(values, last)) if last < 1 else statistic.high,
        "Woodruff",
        (*few(count), *warning),
    )


def _within(found: Jackknife, statistic: OfSums, count: int, confidence: float) -> Bounds:
    """Wilson's interval on a scale from 0 to 1, with as many rows as the standard error says."""
    if count == 1:
        return Bounds(found.value, statistic.low, statistic.high, "none", few(count))
    span = statistic.high - statistic.low
    share, error = (found.value - statistic.low) / span, found.error / span
    effective, scarce = float(count), True
    if error > 0 and 0 < share < 1:
        effective = share * (1 - share) / error**2
        scarce = min(share, 1 - share) * effective < SCARCE
    low, high = wilson(share, min(effective, count) if scarce else effective, student(confidence, count - 1))
    return Bounds(
        found.value,
        statistic.low + span * low,
        statistic.low + span * high,
        "Wilson, effective rows",
        (*few(count), *((RARE,) if scarce else ())),
    )


def _without_end(sums: FloatArray, statistic: OfSums, found: Jackknife, confidence: float) -> Bounds:
    """Bootstrap-t: how many standard errors off the value is, rather than how far, is read off the resamples."""
    count = len(sums)
    if not found.error:
        return Bounds(found.value, found.value, found.value, "none", (*few(count), ALIKE))
    drawn = draws(count)
    whole = drawn @ sums
    values, error = statistic.of(whole), _linear_error(sums, statistic)
    errors = np.sqrt((drawn * (_slopes(statistic, whole) @ sums.T) ** 2).sum(axis=1) * count / (count - 1))
    distances = np.divide(values - found.value, errors, out=np.zeros_like(values), where=errors > 0)
    tail = (1 - confidence) / 2
    above, below = np.quantile(distances, [1 - tail, tail])
    skewed = count < SKEWED * _skewness(found.influence) ** 2
    low, high = found.value - above * error, found.value - below * error
    return Bounds(
        found.value,
        max(statistic.low, float(low)),
        min(statistic.high, float(high)),
        "bootstrap-t",
        (*few(count), *(("very skewed: may be too narrow",) if skewed else ())),
    )


def _linear_error(sums: FloatArray, statistic: OfSums) -> float:
    moved = _slopes(statistic, sums.sum(axis=0)[None]) @ sums.T
    return math.sqrt(float((moved**2).sum()) * len(sums) / (len(sums) - 1))


def _slopes(statistic: OfSums, whole: FloatArray) -> FloatArray:
    """Derivatives of the value by each sum, by central differences; shapes (m, k)."""
    found = np.empty_like(whole)
    for column in range(whole.shape[1]):
        step = np.zeros_like(whole)
        step[:, column] = 1e-5 * np.maximum(np.abs(whole[:, column]), 1e-3)
        found[:, column] = (statistic.of(whole + step) - statistic.of(whole - step)) / (2 * step[:, column])
    return found


def _skewness(values: FloatArray) -> float:
    away = values - values.mean()
    spread = float((away**2).mean())
    return float((away**3).mean()) / spread**1.5 if spread > 0 else 0.0


def _special() -> ModuleType:
    try:
        from scipy import special
    except ModuleNotFoundError as error:
        raise Unavailable("'scipy' is not installed", "pip install 'noria[evaluate]'") from error
    found: ModuleType = special
    return found
