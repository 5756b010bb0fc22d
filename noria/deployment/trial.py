"""The online gate: a challenger against a fresh slice of the champion on real traffic, looked at after every answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from noria.settings import ReleaseSettings
from noria.stats import anytime
from noria.types import Decision, Verdict

FAULTS = 5
"""Faults of the challenger below which its share of them is not looked at."""
SLOW_AFTER = 50
"""Answers of the challenger below which its 95th percentile is not looked at."""

Pairs = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Observed:
    """What the two arms of a trial did, in order of time.

    `pairs` are scores by metric, (challenger's, control's), in [0, 1] and more is better; `requests` and `errors` are
    counts of the challenger and the control, an error being an answer that the engine failed to give; `p95_ms` are
    the 95th percentiles of their latency.
    """

    pairs: Mapping[str, Pairs]
    requests: tuple[int, int]
    errors: tuple[int, int]
    p95_ms: tuple[float | None, float | None]


def look(seen: Observed, release: ReleaseSettings, level: float, stop: float) -> Decision | None:
    """Whether the trial of a challenger has ended: None to go on.

    Promoted when the primary metric certifies the goal and every guarded one that it has not lost more than its margin,
    all at `level`; refused at once for a hard fault, and as soon as any of them certifies a loss at `stop`. Without
    either it is inconclusive when the challenger has given `budget` answers. May be called after every answer: nothing
    of what is promised depends on when or how often.
    """
    if fault := _hard_fault(seen, release):
        return _decision("refuse", fault, seen, release, level)
    goals = _goals(release)
    # To be stopped one lost metric is enough, so that they share the risk; to be promoted all must have won.
    states = {name: _state(seen, name, null, level, stop / len(goals)) for name, null in goals.items()}
    worse = [name for name, state in states.items() if state.lost]
    if worse:
        return _decision("refuse", f"worse than the champion on '{worse[0]}'", seen, release, level)
    if all(state.won for state in states.values()):
        goal = "better" if release.goal == "better" else f"not worse by more than {release.margin:g}"
        return _decision("promote", f"{goal} on '{release.primary}' in real traffic", seen, release, level)
    if seen.requests[0] >= release.budget:
        open_ = ", ".join(f"'{name}'" for name, state in states.items() if not state.won)
        because = f"{seen.requests[0]} answers of the challenger have not decided {open_}"
        return _decision("inconclusive", because, seen, release, level)
    return None


def watch(seen: Observed, release: ReleaseSettings, stop: float) -> Decision | None:
    """Whether a champion must go back: None to go on. `seen` is against the control slice since its promotion.

    Refused for a hard fault, and when any metric certifies at `stop` that it has been worse since some time on (by more
    than its margin, if it is a guarded one).
    """
    if fault := _hard_fault(seen, release):
        return _decision("refuse", fault, seen, release, stop)
    margins = {release.primary: 0.0, **release.guards}
    for name, margin in margins.items():
        gains = _gains(seen.pairs.get(name, ()))
        if gains.size and anytime.first(anytime.since_any(-gains, margin), stop / len(margins)) > 0:
            return _decision("refuse", f"has become worse than the control on '{name}'", seen, release, stop)
    return None


@dataclass(frozen=True, slots=True)
class _State:
    """What a metric certifies by now: that the goal is reached, or that it is lost."""

    won: bool
    lost: bool


def _goals(release: ReleaseSettings) -> dict[str, float]:
    """By metric, the largest gain that would refute what has to be shown."""
    primary = 0.0 if release.goal == "better" else -release.margin
    return {release.primary: primary, **{name: -margin for name, margin in release.guards.items()}}


def _state(seen: Observed, name: str, null: float, level: float, stop: float) -> _State:
    gains = _gains(seen.pairs.get(name, ()))
    if not gains.size:
        return _State(won=False, lost=False)
    # Of the primary metric any certain loss ends the trial, of a guarded one a loss beyond its margin.
    lost = anytime.log_capital(-gains, max(0.0, -null))
    won = anytime.log_capital(gains, null)
    return _State(bool(anytime.first(won, level)), bool(anytime.first(lost, stop)))


def _gains(pairs: Pairs) -> anytime.Floats:
    return np.array([challenger - control for challenger, control in pairs], float)


def _hard_fault(seen: Observed, release: ReleaseSettings) -> str | None:
    """What nobody needs statistics for."""
    errors, asked = seen.errors[0], max(1, seen.requests[0])
    usual = seen.errors[1] / max(1, seen.requests[1])
    if errors >= FAULTS and errors / asked > max(release.max_errors, 2 * usual):
        return f"{errors} of {asked} requests failed; the most is {release.max_errors:.0%}"
    p95 = seen.p95_ms[0]
    if p95 is not None and asked >= SLOW_AFTER and p95 > release.max_p95_ms:
        return f"95 of 100 answers took up to {p95:.0f} ms; the most is {release.max_p95_ms:g} ms"
    return None


def _decision(verdict: Verdict, because: str, seen: Observed, release: ReleaseSettings, level: float) -> Decision:
    metrics: dict[str, JsonValue] = {}
    for name, pairs in seen.pairs.items():
        gains = _gains(pairs)
        low, high = anytime.interval(gains, 2 * level)
        mean = round(float(gains.mean()), 6) if gains.size else 0.0
        metrics[name] = {"pairs": len(pairs), "gain": mean, "low": round(low, 6), "high": round(high, 6)}
    return Decision(
        verdict=verdict,
        because=because,
        evidence={
            "goal": release.goal,
            "primary": release.primary,
            "margin": release.margin,
            "guards": {**release.guards},
            "level": level,
            "metrics": metrics,
            "requests": list(seen.requests),
            "errors": list(seen.errors),
            "p95_ms": list(seen.p95_ms),
        },
    )
