"""Bounds of a mean at any level from its standard error, and how many rows it would take to decide."""

from __future__ import annotations

import math

from noria.stats.intervals import normal, student

POWER = 0.8
"""Chance that as many rows as `rows_to_decide` says really decide."""


def lower(value: float, error: float, clusters: int, level: float) -> float:
    """One-sided lower bound with Student's t at `clusters` - 1 degrees of freedom; minus infinity for one cluster.

    For means over clusters with a cluster-robust standard error (Cameron and Miller, "A Practitioner's Guide to
    Cluster-Robust Inference", 2015).
    """
    return value - student(1 - 2 * level, clusters - 1) * error if clusters > 1 else -math.inf


def rows_to_decide(distance: float, error: float, clusters: int, rows: int, level: float) -> int | None:
    """Rows in all of which `lower` would be above the null that lies `distance` below the value, with power .8.

    None where the value itself is on the wrong side, or nothing is known of its error: no number of rows would do.
    """
    if distance <= 0 or clusters < 2 or error <= 0:
        return None
    needed = clusters * ((normal(1 - 2 * level) + normal(2 * POWER - 1)) * error / distance) ** 2
    return math.ceil(max(needed, 2.0) * rows / clusters)
