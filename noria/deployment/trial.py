"""Trials: a pure function from what two slices of the traffic did to promote, refuse, inconclusive or to go on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from noria.settings import ReleaseSettings
from noria.types import Decision, Verdict


@dataclass(frozen=True, slots=True)
class Observed:
    """What the two arms of a trial did, in order of time.

    A pair is (challenger's, control's); scores are in [0, 1], better is more. Metrics are `feedback`, `judge:NAME`,
    `light`, `error` (1 is fine) and `latency` (1 is fast). The other fields are (challenger's, control's) too: all
    requests, those that failed, and the 95th percentile of the milliseconds of the latest ones.
    """

    pairs: Mapping[str, Sequence[tuple[float, float]]]
    requests: tuple[int, int]
    errors: tuple[int, int]
    p95_ms: tuple[float | None, float | None]


def look(seen: Observed, release: ReleaseSettings, level: float) -> Decision | None:
    """How a canary ends; None as long as it goes on. It may be asked after every answer.

    `level` is the chance of a false promotion that this trial may spend.
    """
    if fault := _fault(seen, release):
        return _decision("refuse", fault)
    pairs = seen.pairs.get(release.primary, ())
    if len(pairs) >= release.min_answers:
        mean, radius = bounds(pairs, level)
        told = f"{release.primary} {mean:+.3f} [{mean - radius:+.3f}, {mean + radius:+.3f}], {len(pairs)} pairs"
        if mean - radius > 0:
            return _decision("promote", f"better: {told}")
        if mean + radius < 0:
            return _decision("refuse", f"worse: {told}")
    if sum(seen.requests) >= release.budget:
        return _decision("inconclusive", f"undecided after {sum(seen.requests)} answers")
    return None


def watch(seen: Observed, release: ReleaseSettings, level: float) -> Decision | None:
    """Whether a promotion must be undone; None as long as nothing speaks for it."""
    if fault := _fault(seen, release):
        return _decision("refuse", fault)
    pairs = seen.pairs.get(release.primary, ())
    if len(pairs) >= release.min_answers:
        mean, radius = bounds(pairs, level)
        if mean + radius < 0:
            return _decision("refuse", f"worse than before: {release.primary} {mean:+.3f}, {len(pairs)} pairs")
    return None


def bounds(pairs: Sequence[tuple[float, float]], level: float) -> tuple[float, float]:
    """Mean difference of the pairs and the radius of an interval that holds at every length at once.

    Hoeffding's inequality at level/(n (n + 1)) for n pairs, which sums to `level` over all n.
    """
    count = len(pairs)
    mean = sum(one - other for one, other in pairs) / count
    return mean, math.sqrt(2 * math.log(2 * count * (count + 1) / level) / count)


def _fault(seen: Observed, release: ReleaseSettings) -> str:
    requests, errors = seen.requests[0], seen.errors[0]
    if requests >= release.min_answers and errors / requests > release.max_errors:
        return f"{errors} of {requests} answers failed; max_errors is {release.max_errors:g}"
    p95, other = seen.p95_ms
    if requests >= release.min_answers and p95 is not None and p95 > release.max_p95_ms and p95 > (other or 0.0):
        return f"95 % of answers within {p95:.0f} ms; max_p95_ms is {release.max_p95_ms:g}"
    return ""


def _decision(verdict: Verdict, because: str) -> Decision:
    return Decision(verdict=verdict, because=because, evidence={})
