"""How far an answer and its target are the same text."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from noria.errors import Unavailable
from noria.evaluation.metrics.metric import Answered, Metric, Sums, mean_of
from noria.evaluation.metrics.text import words
from noria.stats.statistic import FloatArray, OfSums

ORDERS = 4
"""Longest n-gram of words that BLEU counts."""
CHARACTERS = 6
"""Longest n-gram of characters that chrF counts."""
BETA = 2
"""How many times chrF weighs recall as much as precision."""


def exact_match(answer: str, target: str) -> float:
    """1 where both have the same words in the same order, else 0; case, punctuation and English articles aside."""
    return float(words(answer) == words(target))


def token_f1(answer: str, target: str) -> float:
    """Harmonic mean of precision and recall over the bag of words; case, punctuation and English articles aside."""
    given, wanted = words(answer), words(target)
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))


def rouge_1(answer: str, target: str) -> float:
    """F-measure of the words that both have, without stemming, words being those of token_f1 (in any script)."""
    return float(_rouge().score(target, answer)["rouge1"].fmeasure)


def rouge_2(answer: str, target: str) -> float:
    """F-measure of the pairs of neighbouring words that both have, without stemming; words as in token_f1."""
    return float(_rouge().score(target, answer)["rouge2"].fmeasure)


def rouge_l(answer: str, target: str) -> float:
    """F-measure of the longest common subsequence of words, without stemming; words as in token_f1."""
    return float(_rouge().score(target, answer)["rougeL"].fmeasure)


def bleu_of(sums: FloatArray) -> FloatArray:
    """BLEU from sums of matches and n-grams by order, and of the lengths of answers and targets; shape (..., 10)."""
    matches, totals = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    given, wanted = sums[..., 2 * ORDERS], sums[..., 2 * ORDERS + 1]
    # An order without a match counts as 1/2 of a match, the next such order as 1/4, and so on.
    halved = np.where(matches > 0, matches, 0.5 ** np.cumsum(matches == 0, axis=-1))
    there = np.asarray((totals > 0).all(axis=-1) & (matches > 0).any(axis=-1))
    shares = np.divide(halved, totals, out=np.ones_like(totals), where=there[..., None])
    longer = np.divide(wanted, given, out=np.ones_like(given), where=given > 0)
    return np.asarray(np.where(there, 100 * np.exp(np.minimum(0.0, 1 - longer) + np.log(shares).mean(axis=-1)), 0.0))


def chrf_of(sums: FloatArray) -> FloatArray:
    """The chrF from sums of the answer's, the target's and shared n-grams of characters, order by order; (..., 18)."""
    given, wanted, shared = (sums[..., part::3] for part in range(3))
    there = (given > 0) & (wanted > 0)
    orders = np.maximum(there.sum(axis=-1), 1)
    precision = np.divide(shared, given, out=np.zeros_like(given), where=there).sum(axis=-1) / orders
    recall = np.divide(shared, wanted, out=np.zeros_like(given), where=there).sum(axis=-1) / orders
    below = BETA**2 * precision + recall
    return np.asarray(100 * (1 + BETA**2) * precision * recall / np.where(below > 0, below, 1.0))


def _bleu_rows(answers: Sequence[Answered]) -> list[Sums]:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ModuleNotFoundError as error:
        raise _missing("sacrebleu") from error
    bleu = BLEU()
    found = (bleu.corpus_score([each.answer], [[each.target or ""]]) for each in answers)
    return [(*each.counts, *each.totals, each.sys_len, each.ref_len) for each in found]


def _chrf_rows(answers: Sequence[Answered]) -> list[Sums]:
    try:
        from sacrebleu.metrics.helpers import extract_all_char_ngrams
    except ModuleNotFoundError as error:
        raise _missing("sacrebleu") from error

    def one(answered: Answered) -> Sums:
        given = extract_all_char_ngrams(answered.answer, CHARACTERS, False)
        wanted = extract_all_char_ngrams(answered.target or "", CHARACTERS, False)
        found: list[float] = []
        for mine, theirs in zip(given, wanted, strict=True):
            found += (sum(mine.values()), sum(theirs.values()), sum((mine & theirs).values()))
        return tuple(found)

    return [one(answered) for answered in answers]


@functools.cache
def _rouge() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError as error:
        raise _missing("rouge-score") from error
    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())


class _Words:
    """The library's own tokenizer knows ASCII only; a Russian answer would be empty."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _missing(package: str) -> Unavailable:
    return Unavailable(f"'{package}' is not installed", "pip install 'noria[evaluate]'")


_SQUAD = "SQuAD: Rajpurkar, Zhang, Lopyrev and Liang, 2016"
_ROUGE = "ROUGE: Lin, 2004; library rouge-score"
EXACT_MATCH = mean_of(exact_match, low=0, high=1, unit="share", source=_SQUAD)
TOKEN_F1 = mean_of(token_f1, low=0, high=1, unit="share", source=_SQUAD)
ROUGE_1 = mean_of(rouge_1, low=0, high=1, unit="share", source=_ROUGE)
ROUGE_2 = mean_of(rouge_2, low=0, high=1, unit="share", source=_ROUGE)
ROUGE_L = mean_of(rouge_l, low=0, high=1, unit="share", source=_ROUGE)
BLEU = Metric(
    name="bleu",
    definition="Geometric mean of the shares of n-grams of 1 to 4 words that the targets have too, times a penalty for "
    "answers that are too short; counted over all answers together, tokenizer 13a, exponential smoothing.",
    source="Papineni, Roukos, Ward and Zhu, 2002; Post, 2018; library sacrebleu",
    reads=("answer", "target"),
    unit="points",
    higher_is_better=True,
    statistic=OfSums(bleu_of, 0, 100),
    rows=_bleu_rows,
)
CHRF = Metric(
    name="chrf",
    definition="F-measure, recall weighing twice, of the n-grams of 1 to 6 characters that answers and targets share, "
    "white space aside; counted over all answers together. Fit for any language.",
    source="Popović, 2015; library sacrebleu",
    reads=("answer", "target"),
    unit="points",
    higher_is_better=True,
    statistic=OfSums(chrf_of, 0, 100),
    rows=_chrf_rows,
)
