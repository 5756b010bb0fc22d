"""Intervals of a share."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(hits: int, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a binomial share (Wilson 1927), within [0, 1]; it holds at shares of 0 and 1 too.

    Raises ValueError where `hits` is not in 0 to `rows`, or there are no rows.
    """
    if not 0 <= hits <= rows or not rows:
        raise ValueError(f"{hits} of {rows} is no share")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, weight = hits / rows, z * z / rows
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / rows + weight / (4 * rows)) / (1 + weight)
    low = 0.0 if hits == 0 else centre - half
    high = 1.0 if hits == rows else centre + half
    return round(low, 6), round(high, 6)
