"""Few human labels and many judgements of a model: estimates that are right whatever the judge is like.

Prediction-powered inference (Angelopoulos, Bates, Fannjiang, Jordan and Zrnic, "Prediction-Powered Inference", Science
2023; Angelopoulos, Duchi and Zrnic, "PPI++: Efficient Prediction-Powered Inference", 2023): the mean of the judge's
scores on many rows, less what the judge is off by on the rows that people labelled too. A tuning weight between 0 and 1
says how much the judge is used: with 0 the estimate is that of the labels alone.

**What is promised.** Let the labelled rows be drawn as the others were (or weighted so that they stand for them), in
clusters that are independent of each other. Then the interval covers the mean that people would give to all rows, at
about the stated confidence, however biased the judge is. `benchmarks/coverage_judges.py` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noria.stats.intervals import normal, student, wilson

Numbers = npt.NDArray[np.float64]

PSEUDO = 1
"""Labels on which the judge is taken to be a step off beside those that were seen: what few labels cannot show."""


@dataclass(frozen=True, slots=True)
class Corrected:
    """An estimate of what people would say, with its interval; `weight` is how much the judge was used."""

    value: float
    low: float
    high: float
    confidence: float
    labelled: int
    judged: int
    weight: float


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows that people and the judge have scored, and the conversation of each.

    `weights` are inverse shares of being chosen for a label, in any unit; all alike without them.
    """

    human: Sequence[float]
    judged: Sequence[float]
    clusters: Sequence[str]
    weights: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows that the judge has scored, and the conversation of each; labelled rows may be among them."""

    scores: Sequence[float]
    clusters: Sequence[str]


def mean(
    labelled: Labelled,
    others: Judged,
    bounds: tuple[float, float],
    step: float = 1.0,
    confidence: float = 0.95,
    weight: float | None = None,
) -> Corrected:
    """The mean score that people would give, by PPI++.

    The tuning weight is the one of least variance, clipped to [0, 1]. The variance is linearised over whole clusters,
    those of both kinds of rows together, so that a conversation may have rows of both kinds, and is never less than
    that of independent rows. Few labels on which the judge agrees with people are no proof that it always does:
    `PSEUDO` labels that are a `step` off are added to it (in the spirit of Agresti and Coull, "Approximate is better
    than 'exact'", 1998). The interval is Wilson's for the effective number of rows, so that it stays inside `bounds`
    and holds near them.

    Args:
        labelled: rows with a human label; at least two clusters.
        others: rows with the judge's score that stand for all; may be none. Where labels were not drawn evenly, the
            labelled rows must be among them.
        bounds: least and greatest score that is possible.
        step: least distance between two different scores.
        confidence: of the two-sided interval, in (0, 1).
        weight: use the judge this much instead; 0 is an estimate from the labels alone.

    Raises:
        ValueError: for columns of unequal length, scores outside `bounds`, or fewer than two labelled clusters.
    """
    human, judged = np.asarray(labelled.human, float), np.asarray(labelled.judged, float)
    only = np.asarray(others.scores, float)
    _check(labelled, others, bounds)
    names = {name: number for number, name in enumerate(dict.fromkeys([*labelled.clusters, *others.clusters]))}
    here = np.array([names[name] for name in labelled.clusters])
    there = np.array([names[name] for name in others.clusters], int)
    mass = np.ones(len(human)) if labelled.weights is None else np.asarray(labelled.weights, float)
    mass = mass / mass.sum()
    clusters = len(set(labelled.clusters))
    said = _influence(human, mass, here, len(names))
    off = _influence(judged, mass, here, len(names))
    wide = _influence(only, np.full(len(only), 1 / max(1, len(only))), there, len(names))
    lift = wide - off
    # Kish's effective number of labels, fewer where weights are uneven.
    count = 1 / float((mass**2).sum())
    doubt = PSEUDO * step**2 / (count + PSEUDO) ** 2
    if weight is None:
        ground = float((lift**2).sum()) + doubt
        weight = min(1.0, max(0.0, -float((said * lift).sum()) / ground)) if len(only) and ground > 0 else 0.0
    value = float((mass * human).sum())
    if weight:
        value += weight * (float(only.mean()) - float((mass * judged).sum()))
    together = float(((said + weight * lift) ** 2).sum()) * clusters / (clusters - 1)
    variance = max(together, _apart(human - weight * judged, mass, weight * only)) + weight**2 * doubt
    low, high = _within(value, variance, bounds, student(confidence, clusters - 1), clusters)
    value = min(bounds[1], max(bounds[0], value))
    return Corrected(value, low, high, confidence, len(human), len(only), weight)


def rogan_gladen(
    judged_good: int, judged: int, hits: int, positives: int, rejections: int, negatives: int, confidence: float = 0.95
) -> Corrected | None:
    """The share that people would call good, from the share that the judge does.

    The estimate is that of Rogan and Gladen ("Estimating prevalence from the results of a screening test", 1978):
    (observed + specificity - 1) / (sensitivity + specificity - 1). The interval is that of Lang and Reiczigel
    ("Confidence limits for prevalence of disease adjusted for estimated sensitivity and specificity", 2014), which
    counts in that all three are estimated; its rows are taken to be independent.

    Args:
        judged_good: rows that the judge calls good, of `judged` rows without a label.
        judged: rows without a label.
        hits: rows that the judge calls good, of those that people call good.
        positives: rows that people call good.
        rejections: rows that the judge calls bad, of those that people call bad.
        negatives: rows that people call bad.
        confidence: of the two-sided interval, in (0, 1).

    Returns:
        None where the labels do not show that the judge tells good from bad: then nothing corrects it.
    """
    if not (judged and positives and negatives):
        return None
    z = normal(confidence)
    rows = judged + z * z
    seen = (judged_good + z * z / 2) / rows
    sensitive, specific = (hits + 1) / (positives + 2), (rejections + 1) / (negatives + 2)
    noise_good = sensitive * (1 - sensitive) / (positives + 2)
    noise_bad = specific * (1 - specific) / (negatives + 2)
    power = sensitive + specific - 1
    if power <= z * math.sqrt(noise_good + noise_bad):
        return None
    rate = (seen + specific - 1) / power
    shift = 2 * z * z * (rate * noise_good - (1 - rate) * noise_bad)
    variance = seen * (1 - seen) / rows + rate**2 * noise_good + (1 - rate) ** 2 * noise_bad
    reach = z * math.sqrt(variance) / power
    low, high = (min(1.0, max(0.0, rate + shift + way * reach)) for way in (-1, 1))
    plain_power = hits / positives + rejections / negatives - 1
    value = (judged_good / judged + rejections / negatives - 1) / plain_power if plain_power > 0 else rate
    value = min(1.0, max(0.0, value))
    return Corrected(value, min(low, value), max(high, value), confidence, positives + negatives, judged, 1.0)


def _influence(values: Numbers, mass: Numbers, member: npt.NDArray[np.int_], count: int) -> Numbers:
    """What each cluster adds to the error of the weighted mean."""
    if not len(values):
        return np.zeros(count)
    mean = float((mass * values).sum())
    return np.bincount(member, weights=mass * (values - mean), minlength=count).astype(np.float64)


def _apart(rest: Numbers, mass: Numbers, only: Numbers) -> float:
    """The variance if every row stood for itself.

    Conversations that are balanced within, such as one answer of each grade to every question, look as if they knew the
    mean without any error; they are not believed.
    """
    first = float((mass**2 * (rest - float((mass * rest).sum())) ** 2).sum())
    return first + (float(only.var()) / len(only) if len(only) else 0.0)


def _within(
    value: float, variance: float, bounds: tuple[float, float], reach: float, clusters: int
) -> tuple[float, float]:
    """Wilson's interval (1927) for a mean in `bounds` with this variance, with `reach` in place of z.

    Without any variance there are as many independent rows as clusters.
    """
    low, high = bounds
    room = high - low
    share = min(1.0, max(0.0, (value - low) / room))
    spread = share * (1 - share)
    rows = spread * room**2 / variance if variance > 0 and spread > 0 else float(clusters)
    least, most = wilson(share, rows, reach)
    return low + room * least, low + room * most


def _check(labelled: Labelled, others: Judged, bounds: tuple[float, float]) -> None:
    sizes = {len(labelled.human), len(labelled.judged), len(labelled.clusters)}
    if labelled.weights is not None:
        sizes.add(len(labelled.weights))
    if len(sizes) != 1 or len(others.scores) != len(others.clusters):
        raise ValueError("labels, scores, clusters and weights differ in number")
    if len(set(labelled.clusters)) < 2:
        raise ValueError("labels of at least two clusters are needed")
    for scores in (labelled.human, labelled.judged, others.scores):
        if any(not bounds[0] <= each <= bounds[1] for each in scores):
            raise ValueError(f"a score lies outside {bounds}")
