"""The gate: each rule alone decides, and every verdict carries its evidence."""

from __future__ import annotations

from typing import Any

import pytest

from noria.deployment.gate import decide
from noria.settings import GateSettings
from noria.types import Candidate, Interval, Ref, Report, RowScore, Scored

GATE = GateSettings(metric="token_f1", margin=0.05, min_rows=10)
LEVEL = 0.025


def candidate(adapter: str | None) -> Candidate:
    return Candidate(
        task="helpdesk",
        base=Ref(kind="base", name="tiny", digest="0" * 16),
        adapter=Ref(kind="adapter", name="helpdesk", digest=adapter * 16) if adapter else None,
        engine="local",
        quantization="Q4_1",
        prompt="1" * 16,
    )


def interval(gain: float, low: float, high: float, rows: int = 50, **more: Any) -> Interval:
    return Interval(name="token_f1", before=0.4, after=0.4 + gain, gain=gain, low=low, high=high, rows=rows, **more)


def measured(gain: float, error: float, clusters: int = 50, **more: Any) -> Interval:
    """With a standard error, from which the gate makes a bound at its own level."""
    return interval(gain, gain - 2 * error, gain + 2 * error, error=error, clusters=clusters, **more)


def report(checks: dict[str, float] | None = None, same: bool = False, **slices: Interval) -> Report:
    row = RowScore(
        id="2" * 16, slice="task", conversation="c", question="q", target="t",
        champion="old", candidate="old" if same else "new", before={"token_f1": 0.0}, after={"token_f1": 1.0},
    )  # fmt: skip
    return Report(
        candidate=candidate("a"),
        champion=candidate(None),
        intervals={name: {"token_f1": each} for name, each in slices.items()},
        rows=(row,),
        checks={"parity": 0.98, "changed": 1.0} if checks is None else checks,
    )


BETTER, EQUAL = interval(0.2, 0.1, 0.3), interval(0.0, -0.01, 0.01)

CASES = {
    "better and nothing lost": (report(all=BETTER, task=EQUAL), "promote", "better"),
    "worse": (report(all=interval(-0.2, -0.3, -0.1), task=EQUAL), "refuse", "worse"),
    "no certain gain": (report(all=interval(0.1, -0.02, 0.2), task=EQUAL), "inconclusive", "no certain gain"),
    "a guarded slice lost": (
        report(all=BETTER, task=EQUAL, general=interval(-0.1, -0.2, 0.0)), "refuse", "'general'",
    ),
    "a slice too small to certify": (
        report(all=BETTER, general=interval(0.0, -0.2, 0.2)), "inconclusive", "cannot be certified",
    ),
    "a slice too small to judge": (report(all=BETTER, general=interval(-0.3, -0.5, 0.0, 3)), "promote", "better"),
    "too few rows": (report(all=interval(0.5, 0.4, 0.6, 9)), "inconclusive", "min_rows"),
    "no rows of the task": (report(general=BETTER), "inconclusive", "0 sealed rows"),
    "not the trained model": (report({"parity": 0.7, "changed": 1.0}, all=BETTER), "refuse", "70.0%"),
    "an adapter without effect": (report({"parity": 1.0, "changed": 0.0}, all=BETTER), "refuse", "changes nothing"),
    "the same answers": (report(same=True, all=BETTER), "refuse", "same answer"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_verdict(case: str) -> None:
    given, verdict, because = CASES[case]
    decision = decide(given, GATE, LEVEL)
    assert decision.verdict == verdict
    assert because in decision.because
    assert decision.evidence["margin"] == 0.05


def test_the_less_risk_is_left_the_more_must_be_shown() -> None:
    given = report(all=measured(0.1, 0.04))
    assert decide(given, GATE, 0.025).verdict == "promote"
    late = decide(given, GATE, 0.0001)
    assert late.verdict == "inconclusive"
    assert "rows would decide" in late.because
    claim = late.evidence["claims"]
    assert isinstance(claim, dict)
    told = claim["token_f1"]
    assert isinstance(told, dict)
    assert told["rows_to_decide"] is not None
    assert told["floor"] is not None


def test_one_conversation_shows_nothing() -> None:
    assert decide(report(all=measured(0.5, 0.01, 1)), GATE, LEVEL).verdict == "inconclusive"


def test_no_number_of_rows_shows_a_gain_that_is_not_there() -> None:
    decision = decide(report(all=measured(-0.01, 0.04)), GATE, LEVEL)
    assert decision.verdict == "inconclusive"
    assert "would decide" not in decision.because


def with_latency(gain: float, latency: Interval) -> Report:
    plain = report(all=measured(gain, 0.01))
    return plain.model_copy(update={"intervals": {"all": {**plain.intervals["all"], "latency": latency}}})


SLOWER = measured(0.3, 0.02, higher_is_better=False)
FASTER = measured(-0.3, 0.02, higher_is_better=False)


def test_another_metric_is_guarded_in_its_own_direction() -> None:
    rule = GATE.model_copy(update={"guards": {"latency": 0.1}})
    assert decide(with_latency(0.1, FASTER), rule, LEVEL).verdict == "promote"
    slower = decide(with_latency(0.1, SLOWER), rule, LEVEL)
    assert slower.verdict == "refuse"
    assert "'latency'" in slower.because


def test_cheaper_is_enough_where_that_is_the_goal() -> None:
    rule = GATE.model_copy(update={"goal": "cheaper"})
    assert decide(with_latency(0.0, FASTER), rule, LEVEL).verdict == "promote"
    assert decide(with_latency(0.0, SLOWER), rule, LEVEL).verdict == "inconclusive"
    assert decide(with_latency(-0.1, FASTER), rule, LEVEL).verdict == "refuse"


def test_not_worse_is_enough_where_that_is_the_goal() -> None:
    rule = GATE.model_copy(update={"goal": "not-worse"})
    assert decide(report(all=measured(0.0, 0.01)), rule, LEVEL).verdict == "promote"
    assert decide(report(all=measured(0.0, 0.04)), rule, LEVEL).verdict == "inconclusive"


HARNESS = {
    "reached": (Scored(value=0.8, low=0.7, high=0.9, rows=100), "promote", "better"),
    "missed": (Scored(value=0.3, low=0.2, high=0.4, rows=100), "refuse", "0.5 is required"),
    "open": (Scored(value=0.55, low=0.4, high=0.7, rows=20), "inconclusive", "0.5 is required"),
    "nobody has measured it": (None, "inconclusive", "noria evaluate harness lm-eval"),
}


@pytest.mark.parametrize("case", HARNESS)
def test_what_an_outside_harness_must_have_shown(case: str) -> None:
    found, verdict, because = HARNESS[case]
    rule = GATE.model_copy(update={"requires": {"lm-eval.facts.exact_match": 0.5}})
    required = {} if found is None else {"lm-eval.facts.exact_match": found}
    decision = decide(report(all=BETTER), rule, LEVEL, required)
    assert decision.verdict == verdict
    assert because in decision.because


@pytest.mark.parametrize("case", ["too few rows", "not the trained model", "the same answers"])
def test_what_was_not_tested_claims_nothing(case: str) -> None:
    # By this it is known that such a decision has spent nothing.
    assert decide(CASES[case][0], GATE, LEVEL).evidence["claims"] == {}
