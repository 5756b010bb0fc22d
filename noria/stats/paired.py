"""Paired comparison of two systems on the same rows, of which those of a conversation belong together.

| values | interval of the gain |
|---|---|
| 0 or 1, each row alone in its conversation | Tango's score interval (1998), beside McNemar's exact p-value |
| in a range with two ends | Tango's with the effective number of rows, and Student's t for the normal quantile |
| without an end | Student's t with the jackknife's standard error |
| quantiles | from the two intervals by themselves (MOVER) |

Tango, "Equivalence Test and Confidence Interval for the Difference in Proportions for the Paired-Sample Design", 1998;
Zou and Donner, "Construction of Confidence Limits about Effect Measures", 2008.

Rows that get better and rows that get worse are to a gain what ones are to a share. Where all of them are rows that
stay equal, Tango's interval still has a width: that no row of 20 changed does not show that none of 1000 would.
The effective number of rows is what makes Tango's variance that of the jackknife, as in `noria.stats.intervals`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from noria.stats import intervals
from noria.stats.statistic import FloatArray, OfSums, Quantile, Statistic, mean, members, rows_of, summed
from noria.types import Interval

STEPS = 60
"""Halvings in which a bound is found."""
SCARCE = 5
"""With fewer conversations than this that changed, Student's t says nothing."""


def of_scores(
    name: str,
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[str],
    *,
    low: float = 0.0,
    high: float = 1.0,
    confidence: float = 0.95,
    higher_is_better: bool = True,
) -> Interval:
    """Compare means of scores in [low, high], one a row; everything else is as in `compare`."""
    if not len(before) == len(after) == len(clusters) or not len(before):
        raise ValueError(f"{len(before)}, {len(after)} scores and {len(clusters)} clusters cannot be paired")
    return compare(
        name, rows_of(before), rows_of(after), clusters, mean(low, high),
        confidence=confidence, higher_is_better=higher_is_better,
    )  # fmt: skip


def compare(
    name: str,
    before: FloatArray,
    after: FloatArray,
    clusters: Sequence[str],
    statistic: Statistic,
    *,
    confidence: float = 0.95,
    higher_is_better: bool = True,
) -> Interval:
    """Both values, the gain (after minus before) and the intervals of all three; the same arguments give the same.

    Args:
        name: the metric.
        before: sufficient statistics of the old system's answers, shape (n, k).
        after: those of the new system's answers to the same rows.
        clusters: the conversation of each row.
        statistic: what the rows have together.
        confidence: coverage of each two-sided interval, in (0, 1).
        higher_is_better: the metric's direction, which is only noted.

    Raises:
        ValueError: where the sequences differ in length or are empty.
    """
    if before.shape != after.shape or len(before) != len(clusters) or not len(before):
        raise ValueError(f"{len(before)}, {len(after)} rows and {len(clusters)} clusters cannot be paired")
    old = intervals.of(before, clusters, statistic, confidence=confidence)
    new = intervals.of(after, clusters, statistic, confidence=confidence)
    p_value = None
    if isinstance(statistic, Quantile):
        gain = _of_quantiles(before[:, 0], after[:, 0], clusters, statistic, old, new)
    elif _independent(before, after, clusters, statistic):
        better, worse = int((after[:, 0] > before[:, 0]).sum()), int((after[:, 0] < before[:, 0]).sum())
        low, high = tango(better, worse, len(before), intervals.normal(confidence))
        p_value = mcnemar(better, worse)
        gain = intervals.Bounds(new.value - old.value, low, high, "Tango", _warned(len(before), better + worse))
    else:
        gain = _of_sums(before, after, clusters, statistic, confidence)
    return Interval(
        name=name,
        before=_short(old.value),
        after=_short(new.value),
        gain=_short(gain.value),
        low=_short(gain.low),
        high=_short(gain.high),
        rows=len(before),
        confidence=confidence,
        higher_is_better=higher_is_better,
        error=None if isinstance(statistic, Quantile) else _short(_error(before, after, clusters, statistic)),
        clusters=len(set(clusters)),
        before_bounds=(_short(old.low), _short(old.high)),
        after_bounds=(_short(new.low), _short(new.high)),
        method=_told(gain, old, new),
        p_value=p_value,
    )


def _error(before: FloatArray, after: FloatArray, clusters: Sequence[str], statistic: OfSums) -> float:
    """Standard error of the gain, for bounds at any level.

    Between two ends it is widened by what one of two added conversations that go opposite ways would bring (Agresti and
    Min, "Simple Improved Confidence Intervals for Comparing Matched Proportions", 2005): where nothing has changed, it
    is not known for certain that nothing would.
    """
    member, count = members(clusters)
    old = intervals.jackknife(summed(before, member, count), statistic)
    new = intervals.jackknife(summed(after, member, count), statistic)
    change = intervals.Jackknife(new.value - old.value, new.influence - old.influence)
    span = statistic.high - statistic.low
    return math.hypot(change.error, 0.0 if math.isinf(span) else span / (count + 2))


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p-value of McNemar's test that as many rows get better as get worse (McNemar, 1947)."""
    count = better + worse
    tail = math.fsum(math.comb(count, number) / 2**count for number in range(min(better, worse) + 1))
    return min(1.0, 2 * tail)


def tango(better: float, worse: float, rows: float, critical: float) -> tuple[float, float]:
    """Tango's score interval of the share of rows that get better minus that of those that get worse.

    The numbers need not be whole; `better` + `worse` is at most `rows`.
    """
    gain = (better - worse) / rows

    def beyond(supposed: float) -> bool:
        """Whether a gain as far from the supposed one as this is too unlikely."""
        half = better + worse - (2 * rows - better + worse) * supposed
        root = math.sqrt(max(0.0, half**2 + 8 * rows * worse * supposed * (1 - supposed)))
        losing = max(0.0, (root + half) / (4 * rows))
        variance = rows * (2 * losing + supposed * (1 - supposed))
        return (better - worse - rows * supposed) ** 2 > critical**2 * max(variance, 0.0)

    def bound(outside: float) -> float:
        inside = gain
        if not beyond(outside):
            return outside
        for _ in range(STEPS):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
        return inside

    return bound(-1.0), bound(1.0)


def _independent(before: FloatArray, after: FloatArray, clusters: Sequence[str], statistic: Statistic) -> bool:
    alone = len(set(clusters)) == len(before)
    return alone and intervals.binary(before, statistic) and intervals.binary(after, statistic)


def _of_sums(
    before: FloatArray, after: FloatArray, clusters: Sequence[str], statistic: OfSums, confidence: float
) -> intervals.Bounds:
    member, count = members(clusters)
    old = intervals.jackknife(summed(before, member, count), statistic)
    new = intervals.jackknife(summed(after, member, count), statistic)
    change = intervals.Jackknife(new.value - old.value, new.influence - old.influence)
    critical, span = intervals.student(confidence, count - 1), statistic.high - statistic.low
    if count == 1:
        return intervals.Bounds(change.value, -span, span, "none", intervals.few(count))
    moved = int(np.count_nonzero(change.value + change.influence))
    if math.isinf(span) and moved >= SCARCE:
        half = critical * change.error
        return intervals.Bounds(change.value, change.value - half, change.value + half, "t", intervals.few(count))
    warnings = _warned(count, moved)
    if math.isinf(span):
        # As if nothing could change by more than what was seen differs.
        seen = np.concatenate([statistic.each(before), statistic.each(after)])
        span = float(seen.max() - seen.min())
    if not span:
        return intervals.Bounds(0.0, 0.0, 0.0, "none", (*intervals.few(count), intervals.ALIKE))
    low, high = _effective_tango(change, count, span, critical)
    return intervals.Bounds(change.value, low, high, "Tango, effective rows", warnings)


def _effective_tango(change: intervals.Jackknife, count: int, span: float, critical: float) -> tuple[float, float]:
    parts = (change.value + change.influence) / span
    better, worse = float(np.maximum(parts, 0).mean()), float(np.maximum(-parts, 0).mean())
    spread = better + worse - (better - worse) ** 2
    error = change.error / span
    rows = spread / error**2 if error > 0 and spread > 0 else float(count)
    low, high = tango(better * rows, worse * rows, rows, critical)
    return span * low, span * high


def _of_quantiles(
    before: FloatArray,
    after: FloatArray,
    clusters: Sequence[str],
    statistic: Quantile,
    old: intervals.Bounds,
    new: intervals.Bounds,
) -> intervals.Bounds:
    member, count = members(clusters)
    mine, _ = intervals.quantile_shares(before, member, count, statistic.share)
    theirs, _ = intervals.quantile_shares(after, member, count, statistic.share)
    mine, theirs = mine - mine.mean(), theirs - theirs.mean()
    whole = math.sqrt(float((mine**2).sum() * (theirs**2).sum()))
    alike = float((mine * theirs).sum()) / whole if whole > 0 else 0.0
    gain = new.value - old.value
    return intervals.Bounds(
        gain,
        gain - _apart(new.value - new.low, old.high - old.value, alike),
        gain + _apart(new.high - new.value, old.value - old.low, alike),
        "MOVER",
    )


def _apart(one: float, other: float, alike: float) -> float:
    if math.isinf(one + other):
        return math.inf
    return math.sqrt(max(0.0, one**2 + other**2 - 2 * alike * one * other))


def _warned(clusters: int, moved: int) -> tuple[str, ...]:
    few = intervals.few(clusters)
    return (*few, "widened: hardly any conversation changed") if moved < SCARCE else few


def _told(gain: intervals.Bounds, old: intervals.Bounds, new: intervals.Bounds) -> str:
    """How the three intervals were found, and every warning once."""
    warnings = dict.fromkeys((*gain.warnings, *old.warnings, *new.warnings))
    return "; ".join((f"gain: {gain.method}", f"values: {new.method}", *warnings))


def _short(value: float) -> float:
    return round(float(value), 6)
