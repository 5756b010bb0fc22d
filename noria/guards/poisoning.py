"""Statistics that find planted training rows: labels that do not fit, phrases that buy an answer, texts in floods.

All are heuristics: an attack that is small, varied and plausible is not told from honest rows by any of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row, by its number, with a score in [0, 1]."""

    row: int
    score: float


@dataclass(frozen=True, slots=True)
class Trigger:
    """A phrase in questions that comes with one behaviour in answers against what was expected.

    `rows` hold both; `share` of the rows with the phrase do; `p` is the chance of that by itself, for all phrases.
    """

    phrase: int
    behaviour: int
    rows: tuple[int, ...]
    share: float
    p: float


def label_issues(probabilities: Reals, labels: Numbers, margin: float = 0.0) -> list[Suspect]:
    """Rows whose label is probably wrong, by confident learning (Northcutt, Jiang and Chuang, "Confident learning:
    estimating uncertainty in dataset labels", JAIR 2021).

    `probabilities`, shape (rows, classes), must be out of sample; `labels`, shape (rows,), are numbers of classes. A
    row counts for the likeliest class of those whose probability reaches the mean probability of that class among its
    own rows; it is an issue when that is not its label and at least `margin` likelier. The score is that probability.
    """
    rows, classes = probabilities.shape
    thresholds = np.array(
        [probabilities[labels == each, each].mean() if (labels == each).any() else np.inf for each in range(classes)]
    )
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    best = confident.argmax(axis=1)
    every = np.arange(rows)
    sure = confident[every, best]
    wrong = (sure >= 0) & (best != labels) & (sure - probabilities[every, labels] >= margin)
    return [Suspect(int(row), float(sure[row])) for row in np.flatnonzero(wrong)]


def triggers(
    phrases: Sequence[Numbers],
    behaviours: Sequence[Numbers],
    unexpected: NDArray[np.bool_],
    *,
    least: int,
    share: float = 0.8,
    level: float = 0.01,
) -> list[Trigger]:
    """Phrases that come with a behaviour in rows that a trusted model does not expect.

    `phrases` and `behaviours` are sets of numbers by row; `unexpected` says by row whether the model disagrees with its
    answer. A phrase is a trigger of a behaviour when at least `least` unexpected rows have both, these are at least
    `share` of all rows with the phrase, and so many would come together by chance with probability `level` at most
    (binomial tail, Bonferroni over all pairs of what `least` rows have). What the model expects is not counted, so that
    words which rightly decide an answer are none.
    """
    with_phrase = Counter(int(each) for row in phrases for each in row)
    rows_of: dict[int, list[int]] = {}
    with_behaviour: Counter[int] = Counter()
    for row in np.flatnonzero(unexpected).tolist():
        with_behaviour.update(behaviours[row].tolist())
        for phrase in phrases[row].tolist():
            rows_of.setdefault(phrase, []).append(row)
    # Every pair that could have been found counts as tested, whatever is looked at first.
    tested = sum(n >= least for n in with_phrase.values()) * sum(n >= least for n in with_behaviour.values())
    found: list[Trigger] = []
    for phrase, rows in rows_of.items():
        if len(rows) < least or len(rows) < share * with_phrase[phrase]:
            continue
        together = Counter(each for row in rows for each in behaviours[row].tolist() if with_behaviour[each] >= least)
        for behaviour, count in together.items():
            if count >= least and count >= share * with_phrase[phrase]:
                p = _tail(count, with_phrase[phrase], with_behaviour[behaviour] / len(phrases))
                holding = tuple(row for row in rows if behaviour in behaviours[row])
                found.append(Trigger(phrase, behaviour, holding, count / with_phrase[phrase], p))
    return [each for each in found if each.p * tested <= level]


def _tail(count: int, of: int, rate: float) -> float:
    """Chance of at least `count` of `of` at this rate."""
    if rate >= 1.0:
        return 1.0
    terms = (
        math.exp(
            math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1)
            + k * math.log(rate) + (of - k) * math.log1p(-rate)
        )
        for k in range(count, of + 1)
    )  # fmt: skip
    return min(1.0, sum(terms))


def floods(groups: Sequence[str], share: float, least: int = 20) -> list[Suspect]:
    """Rows beyond what one group may have: `share` of the rows of all other groups, `least` being free.

    `groups` names the group of each row, in the order in which rows count; rows of no group have an empty name. The
    score is the group's share of all rows.
    """
    counts = Counter(groups)
    other = {name: len(groups) - count for name, count in counts.items()}
    most = {name: max(least, int(share / max(1e-9, 1 - share) * other[name])) for name in counts}
    seen: Counter[str] = Counter()
    found = []
    for row, name in enumerate(groups):
        seen[name] += 1
        if name and seen[name] > most[name]:
            found.append(Suspect(row, round(counts[name] / len(groups), 6)))
    return found
