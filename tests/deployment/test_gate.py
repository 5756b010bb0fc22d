"""The gate: each rule alone decides, and every verdict carries its evidence."""

from __future__ import annotations

import pytest

from noria.deployment.gate import decide
from noria.settings import GateSettings
from noria.types import Candidate, Interval, Ref, Report, RowScore

GATE = GateSettings(metric="token_f1", margin=0.05, min_rows=10)


def candidate(adapter: str | None) -> Candidate:
    return Candidate(
        task="helpdesk",
        base=Ref(kind="base", name="tiny", digest="0" * 16),
        adapter=Ref(kind="adapter", name="helpdesk", digest=adapter * 16) if adapter else None,
        engine="local",
        quantization="Q4_1",
        prompt="1" * 16,
    )


def interval(gain: float, low: float, high: float, rows: int = 50) -> Interval:
    return Interval(name="token_f1", before=0.4, after=0.4 + gain, gain=gain, low=low, high=high, rows=rows)


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
    decision = decide(given, GATE)
    assert decision.verdict == verdict
    assert because in decision.because
    assert decision.evidence["margin"] == 0.05
