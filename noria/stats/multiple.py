"""Tests on many groups at once, without false alarms piling up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_PART = 500
"""Sign patterns that are held in memory together."""


def loss_p(gains: Sequence[float], clusters: Sequence[str], *, flips: int = 9999, seed: int = 0) -> float:
    """One-sided p-value of a paired sign-flip test that the mean gain is not below 0.

    Where both systems are equally good, the gain of a conversation is as likely as its negative. Whole conversations
    are flipped, since their rows are not independent. The share of patterns whose sum is as low as the observed one,
    that one counted, is a valid p-value for any number of patterns (Phipson and Smyth 2010).

    Args:
        gains: one a row; below 0 the candidate is worse.
        clusters: the conversation of each row.
        flips: sign patterns drawn; the smallest possible p-value is 1 / (flips + 1).
        seed: of the generator; the same arguments give the same value.

    Raises:
        ValueError: where the two sequences differ in length or are empty.
    """
    if len(gains) != len(clusters) or not gains:
        raise ValueError(f"{len(gains)} gains and {len(clusters)} clusters cannot be tested")
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(member, weights=np.asarray(gains, float))
    sums = sums[sums != 0]
    generator = np.random.default_rng(seed)
    # Sums of the same numbers in another order differ in their last bits; they count as equal.
    limit = sums.sum() + 1e-9 * np.abs(sums).sum()
    as_low = 1
    for start in range(0, flips, _PART):
        signs = generator.integers(0, 2, size=(min(_PART, flips - start), len(sums)), dtype=np.int8)
        as_low += int(((2.0 * signs - 1.0) @ sums <= limit).sum())
    return as_low / (flips + 1)


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm's method (1979), in the order of `values`, each in [0, 1].

    Those at or below a level together hold a false one with at most that probability, however the tests depend on
    each other. An unadjusted value may be given for each of any number of tests.
    """
    order = sorted(range(len(values)), key=lambda number: values[number])
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, number in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[number]))
        adjusted[number] = highest
    return adjusted
