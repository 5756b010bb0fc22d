"""How far a model that was made smaller lies from the one it was made of: distributions, choices, likelihoods.

All logits are arrays of float32 of the shape positions x vocabulary, of both models after the same tokens (teacher
forcing): greedy texts diverge after the first difference, and then tell nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.names import Record

Logits = NDArray[np.float32]
_AT_ONCE = 64
"""Positions that are computed at once, so that arrays on disk need little memory."""


class Fidelity(Record):
    """What is left of a model.

    `agreement` is the share of `positions` in [0, 1] at which both take the same likeliest token; `kl` the mean
    Kullback-Leibler divergence of the smaller model's next-token distribution from the source's in nats, from 0 up,
    and `kl_high` its 99th percentile: a mean hides the few positions that turn an answer.
    """

    agreement: float
    kl: float
    kl_high: float
    positions: int


def fidelity(source: Logits, other: Logits) -> Fidelity:
    """Compare two models; raises ValueError where their arrays differ in shape or are empty."""
    if source.shape != other.shape or not source.size:
        raise ValueError(f"logits of shape {source.shape} and {other.shape} cannot be compared")
    far = divergence(source, other)
    return Fidelity(
        agreement=float(agreeing(source, other).mean()), kl=float(far.mean()), kl_high=float(np.quantile(far, 0.99)),
        positions=len(far),
    )  # fmt: skip


def agreeing(source: Logits, other: Logits) -> NDArray[np.bool_]:
    """Whether both take the same likeliest token, by position."""
    return np.concatenate([a.argmax(1) == b.argmax(1) for a, b in _parts(source, other)])


def divergence(source: Logits, other: Logits) -> NDArray[np.float64]:
    """KL(source || other) in nats by position, over the whole vocabulary."""
    found = []
    for a, b in _parts(source, other):
        p, q = log_softmax(a), log_softmax(b)
        # Rounding may leave a trace below zero.
        found.append(np.maximum(0.0, (np.exp(p) * (p - q)).sum(1)))
    return np.concatenate(found)


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Log-probabilities in nats; the last axis is the vocabulary."""
    high = logits.astype(np.float64)
    high -= high.max(-1, keepdims=True)
    found: NDArray[np.float64] = high - np.log(np.exp(high).sum(-1, keepdims=True))
    return found


def perplexity(losses: NDArray[Any]) -> float:
    """Exp of the mean negative log-likelihood (nats a token), from 1 up; nan without tokens."""
    return float(np.exp(losses.astype(np.float64).mean())) if losses.size else math.nan


def _parts(source: Logits, other: Logits) -> Iterator[tuple[Logits, Logits]]:
    for start in range(0, len(source), _AT_ONCE):
        yield source[start : start + _AT_ONCE], other[start : start + _AT_ONCE]
