"""What probabilities are worth: those that a model gives to targets, and those that it gives to its own answers."""

from __future__ import annotations

import math

import numpy as np

from noria.evaluation.metrics.classes import accuracy
from noria.evaluation.metrics.metric import Answered, Metric, Sums, by_row, mean_of
from noria.stats.statistic import FloatArray, OfSums, ratio

BINS = 10
LARGEST = 700.0
"""Nats a token beyond which a perplexity would be no number any more."""


def log_likelihood(target: str, logprob: float) -> float:
    """Natural logarithm of the probability that the model gives to the target after the question."""
    return logprob


def perplexity_of(sums: FloatArray) -> FloatArray:
    """Perplexity from sums of log-probabilities and of tokens; shape (..., 2). 1 where there are no tokens."""
    return np.exp(np.clip(-ratio(sums), 0.0, LARGEST))


def brier(answer: str, target: str, choices: tuple[str, ...], confidence: float) -> float:
    """Squared distance between the confidence in an answer and whether it is right (1) or wrong (0), as in accuracy."""
    return (confidence - accuracy(answer, target, choices)) ** 2


def ece_of(sums: FloatArray) -> FloatArray:
    """Expected calibration error from sums of confidence minus rightness by bin, and rows; shape (..., BINS + 1)."""
    return ratio(np.stack([np.abs(sums[..., :BINS]).sum(axis=-1), sums[..., BINS]], axis=-1))


def _ece_sums(answered: Answered) -> Sums:
    sure = answered.confidence or 0.0
    found = [0.0] * BINS
    # Bins are (0, 0.1], (0.1, 0.2], ...; 0 itself belongs to the first.
    found[min(BINS - 1, max(0, math.ceil(sure * BINS) - 1))] = sure - accuracy(
        answered.answer, answered.target or "", answered.choices
    )
    return (*found, 1.0)


LOG_LIKELIHOOD = mean_of(log_likelihood, high=0, unit="nats per answer", source="by definition")
PERPLEXITY = Metric(
    name="perplexity",
    definition="Exponential of minus the mean log-probability of the targets' tokens, each target after its question; "
    "over all tokens together. Comparable between models with the same tokenizer only.",
    source="Jelinek, Mercer, Bahl and Baker, 1977",
    reads=("target", "logprob", "target_tokens"),
    unit="1",
    higher_is_better=False,
    statistic=OfSums(perplexity_of, low=1),
    rows=by_row(lambda answered: (answered.logprob or 0.0, float(answered.target_tokens or 0))),
)
BRIER = mean_of(
    brier, low=0, high=1, higher_is_better=False, unit="1", source="Brier, 1950; as in library scikit-learn"
)
ECE = Metric(
    name="ece",
    definition=f"Mean distance between confidence and share of right answers over {BINS} bins of equal width, each "
    "weighing as many answers as it holds. It is above 0 by chance alone, the more so with few answers.",
    source="Naeini, Cooper and Hauskrecht, 2015; Guo, Pleiss, Sun and Weinberger, 2017",
    reads=("answer", "target", "confidence"),
    unit="share",
    higher_is_better=False,
    statistic=OfSums(ece_of, 0, 1),
    rows=by_row(_ece_sums),
)
