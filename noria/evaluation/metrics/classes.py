"""Answers that name a class, or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from noria.errors import Invalid
from noria.evaluation.metrics.metric import Answered, Metric, Sums, by_row, mean_of
from noria.evaluation.metrics.text import label, labels, normal
from noria.stats.statistic import FloatArray, OfSums, ratio

MOST_CLASSES = 200
"""More classes than this are no classification."""


def accuracy(answer: str, target: str, choices: tuple[str, ...] = ()) -> float:
    """1 where the answer names the class of the target, else 0.

    Where the choices are known, an answer names the one that it is or the only one that stands in it.
    """
    return float(label(answer, choices) == label(target, choices))


def f1_of(sums: FloatArray) -> FloatArray:
    """Micro F1 from sums of true positives, false positives and false negatives; shape (..., 3)."""
    right, wrong = sums[..., 0], sums[..., 1] + sums[..., 2]
    return ratio(np.stack([2 * right, 2 * right + wrong], axis=-1))


def macro_f1_of(sums: FloatArray) -> FloatArray:
    """Macro F1 from the sums of `f1_of`, class after class, over those that occur; shape (..., 3 * classes)."""
    parts = sums.reshape(*sums.shape[:-1], -1, 3)
    there = parts.sum(axis=-1) > 0
    return np.asarray(np.where(there, f1_of(parts), 0.0).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1))


def hits(answer: str, target: str, k: int) -> float:
    """Share of the first k labels that the answer lists which are among the target's; missing ones count as wrong."""
    wanted = set(labels(target))
    return sum(each in wanted for each in labels(answer)[:k]) / k


def _classes(answers: Sequence[Answered]) -> list[str]:
    known = {normal(choice) for each in answers for choice in each.choices}
    return sorted(known | {label(each.target or "", each.choices) or "" for each in answers})


def _micro_rows(answers: Sequence[Answered]) -> list[Sums]:
    classes = set(_classes(answers))

    def one(answered: Answered) -> Sums:
        given, wanted = label(answered.answer, answered.choices), label(answered.target or "", answered.choices)
        right = given == wanted
        return float(right), float(not right and given in classes), float(not right)

    return [one(answered) for answered in answers]


def _macro_rows(answers: Sequence[Answered]) -> list[Sums]:
    place = {name: number for number, name in enumerate(_classes(answers))}
    if len(place) > MOST_CLASSES:
        raise Invalid(
            f"the targets name {len(place)} classes; 'f1_macro' is for {MOST_CLASSES} at most",
            "for free texts: token_f1",
        )
    found = np.zeros((len(answers), len(place), 3))
    for row, answered in zip(found, answers, strict=True):
        given, wanted = label(answered.answer, answered.choices), label(answered.target or "", answered.choices)
        if given == wanted:
            row[place[wanted or ""], 0] = 1
            continue
        row[place[wanted or ""], 2] = 1
        if given in place:
            row[place[given], 1] = 1
    return [tuple(row.ravel()) for row in found]


def _hamming_rows(answers: Sequence[Answered]) -> list[Sums]:
    known = {normal(choice) for each in answers for choice in each.choices}
    count = len(known.union(*(labels(each.target or "") for each in answers)))

    def one(answered: Answered) -> Sums:
        wrong = set(labels(answered.answer)) ^ set(labels(answered.target or ""))
        return float(min(len(wrong), count)), float(count)

    return [one(answered) for answered in answers]


def _precision_at(k: int) -> Metric:
    def sums(answered: Answered) -> Sums:
        return hits(answered.answer, answered.target or "", k), 1.0

    return Metric(
        name=f"precision_at_{k}",
        definition=f"Share of the first {k} labels of an answer, listed best first between commas, semicolons or line "
        "ends, that are among the target's; labels that are missing count as wrong.",
        source="Manning, Raghavan and Schütze, 2008, section 8.4",
        reads=("answer", "target"),
        unit="share",
        higher_is_better=True,
        statistic=OfSums(ratio, 0, 1),
        rows=by_row(sums),
    )


def _f1(
    name: str, how: str, of: Callable[[FloatArray], FloatArray], rows: Callable[[Sequence[Answered]], list[Sums]]
) -> Metric:
    return Metric(
        name=name,
        definition=f"Harmonic mean of precision and recall {how}. Classes are the choices, or else what the targets "
        "name; an answer that names none is a miss of its target's class and of no other.",
        source="van Rijsbergen, 1979; as in library scikit-learn with labels= these classes",
        reads=("answer", "target"),
        unit="share",
        higher_is_better=True,
        statistic=OfSums(of, 0, 1),
        rows=rows,
    )


ACCURACY = mean_of(accuracy, low=0, high=1, unit="share", source="as in library scikit-learn")
F1_MICRO = _f1("f1_micro", "over the decisions of all classes together", f1_of, _micro_rows)
F1_MACRO = _f1("f1_macro", "of each class, averaged over the classes that occur", macro_f1_of, _macro_rows)
HAMMING_LOSS = Metric(
    name="hamming_loss",
    definition="Share of wrong decisions, one for each label and answer, where an answer lists several labels between "
    "commas, semicolons or line ends. Labels are the choices and what the targets list; others in an answer count as "
    "wrong too.",
    source="Schapire and Singer, 1999; as in library scikit-learn",
    reads=("answer", "target"),
    unit="share",
    higher_is_better=False,
    statistic=OfSums(ratio, 0, 1),
    rows=_hamming_rows,
)
PRECISION_AT_1 = _precision_at(1)
PRECISION_AT_3 = _precision_at(3)
PRECISION_AT_5 = _precision_at(5)
