"""The online gate: what ends a trial, and what does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from noria.deployment.trial import Observed, look, watch
from noria.settings import ReleaseSettings
from noria.stats import anytime

RULE = ReleaseSettings(canary=0.1, budget=3000)
LEVEL = 0.02
FINE: list[tuple[float, float]] = [(1.0, 1.0)] * 3000


def votes(gain: float, count: int = 2000, seed: int = 0) -> list[tuple[float, float]]:
    random = np.random.default_rng(seed)
    challenger, control = random.random(count) < 0.6 + gain, random.random(count) < 0.6
    return [(float(one), float(other)) for one, other in zip(challenger, control, strict=True)]


def seen(
    feedback: Sequence[tuple[float, float]],
    requests: int = 2000,
    errors: int = 0,
    p95: float | None = 400.0,
    error: Sequence[tuple[float, float]] = FINE,
    latency: Sequence[tuple[float, float]] = FINE,
) -> Observed:
    pairs = {"feedback": feedback, "error": error, "latency": latency}
    return Observed(pairs=pairs, requests=(requests, requests), errors=(errors, 0), p95_ms=(p95, 400.0))


CASES = {
    "better": (seen(votes(0.15)), "promote", "better on 'feedback'"),
    "worse": (seen(votes(-0.15)), "refuse", "worse than the champion on 'feedback'"),
    "no difference": (seen(votes(0.0)), None, ""),
    "no difference, budget used up": (seen(votes(0.0), requests=3000), "inconclusive", "'feedback'"),
    "nothing said yet": (seen([]), None, ""),
    "nobody ever says anything": (seen([], requests=3000), "inconclusive", "'feedback'"),
    "better, but slower": (seen(votes(0.15), latency=[(0.5, 0.9)] * 500), "refuse", "'latency'"),
    "better, errors not known yet": (seen(votes(0.15), error=FINE[:3]), None, ""),
    "fails at once": (seen([], requests=8, errors=6), "refuse", "6 of 8 requests failed"),
    "two failures are no proof": (seen([], requests=3, errors=2), None, ""),
    "too slow": (seen([], requests=60, p95=1500.0), "refuse", "1500 ms"),
    "too slow so far": (seen([], requests=20, p95=1500.0), None, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_how_a_trial_ends(case: str) -> None:
    given, verdict, because = CASES[case]
    decision = look(given, RULE, LEVEL, LEVEL)
    assert (decision.verdict if decision else None) == verdict
    if decision is not None:
        assert because in decision.because
        assert decision.evidence["level"] == LEVEL


def test_not_worse_is_shown_where_better_is_not() -> None:
    rule = RULE.model_copy(update={"goal": "not-worse", "margin": 0.1})
    given = seen(votes(0.0, 2500))
    assert look(given, RULE, LEVEL, LEVEL) is None
    decision = look(given, rule, LEVEL, LEVEL)
    assert decision is not None
    assert decision.verdict == "promote"


def test_failures_that_the_control_has_too_are_the_engine_s() -> None:
    both = Observed(pairs={}, requests=(20, 20), errors=(10, 9), p95_ms=(None, None))
    assert look(both, RULE, LEVEL, LEVEL) is None


def test_a_champion_that_declines_goes_back() -> None:
    good, bad = votes(0.1, 2000, 1), votes(-0.15, 2000, 2)
    assert watch(seen(good), RULE, LEVEL) is None
    decision = watch(seen([*good, *bad], requests=4000), RULE, LEVEL)
    assert decision is not None
    assert decision.verdict == "refuse"
    assert "has become worse" in decision.because


def test_a_slightly_slower_champion_stays() -> None:
    assert watch(seen(votes(0.1), latency=[(0.88, 0.9)] * 2000), RULE, LEVEL) is None
    assert watch(seen(votes(0.1), latency=[(0.7, 0.9)] * 2000), RULE, LEVEL) is not None


@pytest.mark.parametrize("seed", range(3))
def test_the_rule_is_the_one_that_the_benchmark_simulates(seed: int) -> None:
    """`benchmarks/gate.py` asks `anytime` alone: with one metric that is all that a trial does."""
    rule = RULE.model_copy(update={"guards": {}})
    pairs = votes(0.15, seed=seed)
    gains = np.array([challenger - control for challenger, control in pairs])
    decided = int(anytime.first(anytime.log_capital(gains, 0.0), LEVEL))
    assert decided > 1
    assert look(seen(pairs[: decided - 1], requests=decided), rule, LEVEL, LEVEL) is None
    decision = look(seen(pairs[:decided], requests=decided), rule, LEVEL, LEVEL)
    assert decision is not None
    assert decision.verdict == "promote"


def test_a_guard_that_sees_no_fault_holds_a_promotion_for_hundreds_of_pairs() -> None:
    def ended(fine: int) -> str | None:
        decision = look(seen(votes(0.15), error=FINE[:fine], latency=FINE[:fine]), RULE, LEVEL, LEVEL)
        return decision.verdict if decision else None

    assert ended(300) is None
    assert ended(400) == "promote"
