"""Scores of one answer against its target. Every metric lies in [0, 1] and more is better."""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from noria.errors import Invalid, Unavailable
from noria.settings import known
from noria.types import Metrics

_PUNCTUATION = set(string.punctuation) | set("…–—„“”‘’«»¿¡、。·")


def words(text: str) -> list[str]:
    """Words as the metrics compare them: NFKC, lower case, no punctuation, no English articles."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(" " if letter in _PUNCTUATION else letter for letter in folded)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def exact_match(answer: str, target: str) -> float:
    """1 where both have the same words in the same order (SQuAD, Rajpurkar et al. 2016), else 0."""
    return float(words(answer) == words(target))


def token_f1(answer: str, target: str) -> float:
    """Harmonic mean of precision and recall over the bag of words (SQuAD, Rajpurkar et al. 2016)."""
    given, wanted = words(answer), words(target)
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))


def rouge_l(answer: str, target: str) -> float:
    """F-measure of the longest common subsequence of words (ROUGE, Lin 2004; library rouge-score)."""
    return float(_rouge().score(target, answer)["rougeL"].fmeasure)


@functools.cache
def _rouge() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError as error:
        raise Unavailable("'rouge-score' is not installed", "pip install 'noria[evaluate]'") from error
    return RougeScorer(["rougeL"], tokenizer=_Words())


class _Words:
    """The library's own tokenizer knows ASCII only; a Russian answer would be empty."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


METRICS: dict[str, Callable[[str, str], float]] = {
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "exact_match": exact_match,
}


def check(names: Sequence[str], where: str) -> None:
    """Raise Invalid for a metric that does not exist."""
    for name in names:
        if name not in METRICS:
            raise Invalid(f"there is no metric '{name}'", known(name, METRICS), where=where)


def score(answer: str, target: str, names: Sequence[str]) -> Metrics:
    """The named metrics of one answer."""
    return {name: round(METRICS[name](answer, target), 6) for name in names}
