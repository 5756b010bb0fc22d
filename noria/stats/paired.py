"""Paired comparison of two systems on the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from noria.types import Interval


def bootstrap(
    name: str,
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean paired difference, resampling whole clusters.

    Rows of one conversation are not independent, so a conversation is drawn or left out as a whole (cluster
    bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).

    Args:
        name: the metric.
        before: scores of the old system, one a row.
        after: scores of the new system on the same rows.
        clusters: the conversation of each row.
        confidence: coverage of the two-sided interval, in (0, 1).
        resamples: bootstrap samples drawn.
        seed: of the generator; the same arguments give the same interval.

    Raises:
        ValueError: where the three sequences differ in length or are empty.
    """
    if not len(before) == len(after) == len(clusters) or not before:
        raise ValueError(f"{len(before)}, {len(after)} scores and {len(clusters)} clusters cannot be paired")
    old, new = np.asarray(before, float), np.asarray(after, float)
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(member, weights=new - old)
    sizes = np.bincount(member)
    drawn = np.random.default_rng(seed).integers(0, len(sums), size=(resamples, len(sums)))
    gains = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(gains, [tail, 1 - tail])
    return Interval(
        name=name,
        before=_short(old.mean()),
        after=_short(new.mean()),
        gain=_short((new - old).mean()),
        low=_short(low),
        high=_short(high),
        rows=len(before),
        confidence=confidence,
    )


def _short(value: float) -> float:
    return round(float(value), 6)
