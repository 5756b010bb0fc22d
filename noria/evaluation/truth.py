"""Whether a prediction says what the truth says: word by word, tolerantly, or by a judge."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from noria.errors import Invalid
from noria.evaluation.metrics import exact_match
from noria.evaluation.metrics.text import words
from noria.evaluation.values import Day, Quantity, atoms
from noria.settings import ComparisonSettings

Judge = Callable[[str, str], float]
"""Given a prediction and the truth, how surely they say the same, in [0, 1]."""

Form = tuple[str | Quantity | Day, ...]
_ITEMS = re.compile(r"\n|;|,\s|\s(?:and|und|et|y|e|en|и)\s|[、，]")
_BULLET = re.compile(r"^\s*(?:[-*•–]|\d{1,2}[.)])\s+")


def same(prediction: str, truth: str, rule: ComparisonSettings, judge: Judge | None = None) -> bool:
    """Whether both say the same, by the task's rule.

    `exact`: the same words in the same order (`metrics.exact_match`). `tolerant`: also where numbers are near enough,
    in whatever unit; where dates are written in another way; where the items of a list come in another order; and
    where words are synonyms. `judge`: where the judge is surer than not.

    Raises:
        Invalid: where the rule wants a judge and there is none.
    """
    if rule.kind == "judge":
        if judge is None:
            raise Invalid("the comparison wants a judge, and there is none here", 'set comparison kind to "tolerant"')
        return judge(prediction, truth) > 0.5
    return _tolerant(prediction, truth, rule) if rule.kind == "tolerant" else bool(exact_match(prediction, truth))


def _tolerant(prediction: str, truth: str, rule: ComparisonSettings) -> bool:
    if _alike(_form(prediction, rule), _form(truth, rule), rule):
        return True
    given, wanted = _items(prediction, rule), _items(truth, rule)
    return len(given) == len(wanted) > 1 and _paired(given, wanted, rule)


def _form(text: str, rule: ComparisonSettings) -> Form:
    """A text as a row of words and values."""
    found: list[str | Quantity | Day] = []
    for atom in atoms(text, rule.decimal, rule.dates == "month-first"):
        if isinstance(atom, str):
            found += words(atom)
        else:
            found.append(atom)
    return _canonical(tuple(found), rule.synonyms)


def _canonical(form: Form, synonyms: Sequence[Sequence[str]]) -> Form:
    """Every phrase of a group replaced by the first one, the longest ones first."""
    phrases = [(tuple(words(each)), tuple(words(group[0]))) for group in synonyms for each in group]
    phrases = sorted((pair for pair in phrases if pair[0]), key=lambda pair: -len(pair[0]))
    found: list[str | Quantity | Day] = []
    at = 0
    while at < len(form):
        for phrase, instead in phrases:
            if form[at : at + len(phrase)] == phrase:
                found += instead
                at += len(phrase)
                break
        else:
            found.append(form[at])
            at += 1
    return tuple(found)


def _items(text: str, rule: ComparisonSettings) -> list[Form]:
    parts = (_BULLET.sub("", part) for part in _ITEMS.split(text))
    return [form for form in (_form(part, rule) for part in parts) if form]


def _alike(given: Form, wanted: Form, rule: ComparisonSettings) -> bool:
    return len(given) == len(wanted) and all(_near(one, other, rule) for one, other in zip(given, wanted, strict=True))


def _near(given: str | Quantity | Day, wanted: str | Quantity | Day, rule: ComparisonSettings) -> bool:
    if not isinstance(given, Quantity) or not isinstance(wanted, Quantity):
        return given == wanted
    if given.unit != wanted.unit:
        return False
    number = given.number * given.size / wanted.size
    return math.isclose(
        number, wanted.number, rel_tol=0.0, abs_tol=max(rule.absolute, rule.relative * abs(wanted.number))
    )


def _paired(given: Sequence[Form], wanted: Sequence[Form], rule: ComparisonSettings) -> bool:
    """Whether each item has one of the other side for itself (Kuhn 1955); nearness does not carry over: greed errs."""
    taken: dict[int, int] = {}

    def place(item: int, tried: set[int]) -> bool:
        for other, form in enumerate(wanted):
            if other not in tried and _alike(given[item], form, rule):
                tried.add(other)
                if other not in taken or place(taken[other], tried):
                    taken[other] = item
                    return True
        return False

    return all(place(item, set()) for item in range(len(given)))
