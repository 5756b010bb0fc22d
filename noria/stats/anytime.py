"""Evidence that may be looked at after every answer: e-processes by betting, and confidence sequences.

A bettor starts with a capital of 1 and bets on each next score against the hypothesis that its mean is at most `null`.
Where the hypothesis holds, no strategy is expected to gain, so that the capital exceeds 1 / level at any time, ever,
with a probability of at most `level` (Ville's inequality); where it does not hold, the capital grows exponentially.
Whoever stops at the first crossing has made no error by looking. This holds for scores in known bounds whatever their
distribution, for any number of them, and for means that move, as long as each stays on the hypothesis' side.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2023); Ville, "Étude
critique de la notion de collectif" (1939); for changes, Shin, Ramdas and Rinaldo, "E-detectors" (2023).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BETS: Floats = np.geomspace(0.01, 0.9, 8)
"""Shares of the largest bet that cannot ruin. The capital is spread evenly over them: the best one is not known before,
and having spread costs log(8) at the most."""
EVERY = 50
"""Scores between two beginnings of `since_any`."""


def log_capital(scores: Floats, null: float, low: float = -1.0, high: float = 1.0) -> Floats:
    """Natural logarithm of the capital after each score, against the hypothesis that the mean is at most `null`.

    Args:
        scores: in [low, high], in order of time along the last axis; any leading axes are separate processes.
        null: the largest mean of the hypothesis, in (low, high).
        low: least possible score.
        high: largest possible score.

    Returns:
        Of the shape of `scores`. The hypothesis is refuted at `level` where it reaches log(1 / level).

    Raises:
        ValueError: where a score or `null` is out of bounds.
    """
    return np.asarray(np.logaddexp.reduce(_by_bet(scores, null, low, high), axis=-1) - np.log(len(BETS)))


def since_any(scores: Floats, null: float, low: float = -1.0, high: float = 1.0, every: int = EVERY) -> Floats:
    """As `log_capital`, for a mean that may have been right for long and falls into the alternative later.

    A share 1 / (j (j + 1)) of the capital is kept back for a bettor who begins at the j-th block of `every` scores, so
    that a long good past cannot hide a decline. Arguments, result and errors are those of `log_capital`; the hypothesis
    is that the mean was at most `null` all the time.
    """
    gains = _by_bet(scores, null, low, high)
    at = np.arange(gains.shape[-2])
    block = at // every + 1
    kept_back = np.where(at % every == 0, -np.log(block * (block + 1.0)), -np.inf)
    before = np.concatenate([np.zeros_like(gains[..., :1, :]), gains[..., :-1, :]], axis=-2)
    begun = gains + np.logaddexp.accumulate(kept_back[:, None] - before, axis=-2)
    own = np.logaddexp.reduce(begun, axis=-1) - np.log(len(BETS))
    return np.asarray(np.logaddexp(own, -np.log(block + 1.0)))


def interval(scores: Floats, level: float, low: float = -1.0, high: float = 1.0) -> tuple[float, float]:
    """Means that the scores so far do not refute, each side at level / 2: a confidence sequence at its present end.

    It holds at all times at once, so it may be looked at, printed, and acted upon whenever one likes.
    """
    if scores.size == 0:
        return low, high
    limit = np.log(2 / level)
    return _least(scores, limit, low, high), -_least(-scores, limit, -high, -low)


def first(capital: Floats, level: float | Floats) -> NDArray[np.int64]:
    """How many scores had been seen, along the last axis, when the hypothesis was first refuted at `level`; 0 if never.

    `level` is one number or one for each process.
    """
    over = capital >= np.log(1 / np.asarray(level))[..., None]
    return np.where(over.any(axis=-1), over.argmax(axis=-1) + 1, 0)


def _by_bet(scores: Floats, null: float, low: float, high: float) -> Floats:
    """Log capital by score and bet."""
    if not low < null < high:
        raise ValueError(f"{null} is not between the bounds {low} and {high}")
    if scores.size and not (scores.min() >= low and scores.max() <= high):
        raise ValueError(f"a score lies outside of [{low}, {high}]")
    bets = BETS / (null - low)
    return np.cumsum(np.log1p((scores[..., None] - null) * bets), axis=-2)


def _least(scores: Floats, limit: float, low: float, high: float) -> float:
    """The least mean that is not refuted from below, by bisection."""
    left, right = low, float(min(max(scores.mean(), low), high))
    for _ in range(40):
        middle = (left + right) / 2
        if not low < middle < high:
            break
        if float(log_capital(scores, middle, low, high)[-1]) >= limit:
            left = middle
        else:
            right = middle
    return left
