"""Thresholds on a score such that answers above (or below) them are wrong at most (or at least) a stated share.

The method is Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then Test: Calibrating Predictive
Algorithms to Achieve Risk Control", 2021), with fixed-sequence testing and exact binomial p-values; inverted, these are
the bounds of Clopper and Pearson ("The Use of Confidence or Fiducial Limits", 1934). Selective answering in this sense
is that of Geifman and El-Yaniv ("Selective Classification for Deep Neural Networks", 2017).

**What is promised.** Let the labelled rows be independent draws from one distribution, and let `grid` be chosen without
looking at them. Then, with probability at least 1 - delta over the draw of the labelled rows, the threshold t that
`below` returns satisfies P(wrong | score >= t) <= alpha for further draws from that distribution, for any distribution
and any number of rows; and where nothing can be shown it returns None. `above` promises P(wrong | score < t) >= alpha
in the same way. One call promises for itself alone: who calibrates again and again until a threshold comes out has no
such promise. Nothing is promised for answers of another model, or where those that people label are unlike the others.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

STEPS = 64
"""Most thresholds that are tried."""
ROOM = 1.75
"""The first threshold tried has so many times the rows that are needed where all of them speak for it: room for one
that does not."""


@dataclass(frozen=True, slots=True)
class Certified:
    """A threshold, what the labelled rows on its side were like, and the bound on the share of wrong ones there."""

    threshold: float
    rows: int
    wrong: int
    bound: float


def grid_of(reference: Sequence[float]) -> list[float]:
    """Thresholds to try, rising: quantiles of scores that are not those of the labelled rows."""
    ranked = sorted(reference)
    count = min(STEPS, len(ranked))
    return sorted({ranked[len(ranked) * step // count] for step in range(count)})


def needed(alpha: float, delta: float) -> int:
    """Rows without a wrong one that show a share of at most `alpha` at risk `delta`: fewer can never do."""
    return math.ceil(math.log(delta) / math.log1p(-alpha))


def below(
    scores: Sequence[float], wrong: Sequence[bool], grid: Sequence[float], alpha: float, delta: float
) -> Certified | None:
    """The lowest threshold at and above which at most a share `alpha` is wrong, as far as that can be shown.

    Thresholds are tried from a high one downwards, each at level `delta`, until one fails: in a sequence that is fixed
    beforehand the first false one is taken for true with a chance of `delta` at most. Where it starts depends on the
    grid and on the number of rows only.

    Args:
        scores: of the labelled rows, higher is more trustworthy.
        wrong: whether the answer of each row was wrong.
        grid: thresholds to try, rising, chosen without these rows (`grid_of`).
        alpha: share in (0, 1).
        delta: risk that the promise of the module fails, in (0, 1).

    Raises:
        ValueError: where scores and labels differ in number, or a share is out of range.
    """
    ranked, marks = _ranked(scores, wrong, alpha, delta)
    least = min(math.ceil(ROOM * needed(alpha, delta)), len(ranked))
    best: tuple[float, int, int] | None = None
    for step in range(len(grid) - 1, -1, -1):
        # The share of the grid above a threshold foretells how many rows will be there.
        if (len(grid) - step) / len(grid) * len(ranked) < least:
            continue
        first = bisect_left(ranked, grid[step])
        rows, bad = len(ranked) - first, marks[-1] - marks[first]
        if tail(bad, rows, alpha) > delta:
            break
        best = grid[step], rows, bad
    return None if best is None else Certified(*best, upper(best[2], best[1], delta))


def above(
    scores: Sequence[float],
    wrong: Sequence[bool],
    grid: Sequence[float],
    alpha: float,
    delta: float,
    most: float = math.inf,
) -> Certified | None:
    """The highest threshold below which at least a share `alpha` is wrong; arguments and errors as of `below`.

    None beyond `most` is tried. `bound` of what is returned is the least share of wrong ones.
    """
    ranked, marks = _ranked(scores, wrong, alpha, delta)
    least = min(math.ceil(ROOM * needed(1 - alpha, delta)), len(ranked))
    best: tuple[float, int, int] | None = None
    for step in range(1, len(grid)):
        if grid[step] > most:
            break
        if step / len(grid) * len(ranked) < least:
            continue
        rows = bisect_left(ranked, grid[step])
        bad = marks[rows]
        # So many wrong ones are so many right ones less.
        if tail(rows - bad, rows, 1 - alpha) > delta:
            break
        best = grid[step], rows, bad
    return None if best is None else Certified(*best, 1 - upper(best[1] - best[2], best[1], delta))


def tail(count: int, rows: int, share: float) -> float:
    """P(Binomial(rows, share) <= count), exactly up to rounding."""
    if count >= rows:
        return 1.0
    if count > rows * share:
        # From the far side, where terms only shrink: near the mean they could all be too small to be told from 0.
        return 1.0 - _mass(rows - count - 1, rows, 1 - share)
    return _mass(count, rows, share)


def upper(count: int, rows: int, delta: float) -> float:
    """The one-sided upper bound of Clopper and Pearson: the largest share that `count` of `rows` does not refute."""
    if count >= rows:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if tail(count, rows, middle) > delta:
            low = middle
        else:
            high = middle
    return high


def _mass(count: int, rows: int, share: float) -> float:
    """P(Binomial(rows, share) <= count) for a count below the mean, added up from the largest term."""
    term = whole = math.exp(
        math.lgamma(rows + 1) - math.lgamma(count + 1) - math.lgamma(rows - count + 1)
        + count * math.log(share) + (rows - count) * math.log1p(-share)
    )  # fmt: skip
    odds = (1 - share) / share
    for number in range(count, 0, -1):
        term *= number / (rows - number + 1) * odds
        whole += term
        if term < whole * 1e-17:
            break
    return min(1.0, whole)


def _ranked(
    scores: Sequence[float], wrong: Sequence[bool], alpha: float, delta: float
) -> tuple[list[float], list[int]]:
    """Scores in rising order, and how many wrong ones there are before each place."""
    if len(scores) != len(wrong):
        raise ValueError(f"{len(scores)} scores and {len(wrong)} labels cannot be paired")
    if not (0 < alpha < 1 and 0 < delta < 1):
        raise ValueError(f"alpha {alpha} and delta {delta} must lie between 0 and 1")
    marks = [0]
    pairs = sorted(zip(scores, wrong, strict=True))
    for _, bad in pairs:
        marks.append(marks[-1] + bad)
    return [score for score, _ in pairs], marks
