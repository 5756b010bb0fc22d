"""What answers took: time, money, memory and energy. What was not measured is None and is never made up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from noria.names import Record
from noria.ports import Platform
from noria.types import Interaction

LEAST = 5
"""Fewer answers than this have no median worth telling."""


class Measured(Record):
    """What the answers of one candidate took.

    `how` says how it was measured; times are milliseconds, cost is that of 1,000 answers in the prices' currency,
    energy watt-hours per 1,000 answers, memory that of the engine's processes in GiB.
    """

    how: str
    answers: int
    p50_ms: float | None = None
    p95_ms: float | None = None
    first_token_ms: float | None = None
    tokens: float | None = None
    cost_per_1000: float | None = None
    memory_gib: float | None = None
    wh_per_1000: float | None = None


def served(platform: Platform, task: str, refs: Sequence[str]) -> dict[str, Measured]:
    """What the production answers of these candidates took, by ref; those that answered too little are left out."""
    interactions, _ = platform.traffic.read(platform.traffic.mark())
    found: dict[str, list[Interaction]] = {}
    for each in interactions:
        if each.task == task and each.served_by in refs and each.status == 200:
            found.setdefault(each.served_by, []).append(each)
    return {ref: _of(those) for ref, those in found.items() if len(those) >= LEAST}


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which this share lies, None for fewer than `LEAST` values."""
    return round(float(np.quantile(np.asarray(values), share)), 3) if len(values) >= LEAST else None


def mean_cost(costs: Sequence[float | None]) -> float | None:
    """Cost of 1,000 answers; None where any is unknown, or where all are 0: then no price was set."""
    known = [cost for cost in costs if cost is not None]
    if not known or len(known) < len(costs) or not any(known):
        return None
    return round(1000 * sum(known) / len(known), 6)


def _of(those: Sequence[Interaction]) -> Measured:
    first = [1000 * each.first_token_seconds for each in those if each.first_token_seconds is not None]
    tokens = [each.completion_tokens for each in those if each.completion_tokens is not None]
    times = [1000 * each.seconds for each in those]
    return Measured(
        how="as served, whatever else ran",
        answers=len(those),
        p50_ms=percentile(times, 0.5),
        p95_ms=percentile(times, 0.95),
        first_token_ms=percentile(first, 0.5),
        tokens=round(sum(tokens) / len(tokens), 2) if tokens else None,
        cost_per_1000=mean_cost([each.cost for each in those]),
    )
