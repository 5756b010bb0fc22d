"""What the decisions of a task have spent, and what is left."""

from __future__ import annotations

import pytest

from noria.deployment import risk
from noria.stats import budget
from noria.types import Decision, Verdict

RISK = 0.05


def decision(level: float, on: str, verdict: Verdict = "inconclusive") -> Decision:
    spending = risk.spending(level, verdict == "promote", on)
    return Decision(verdict=verdict, because="", evidence={"spent": spending})


def test_the_first_decision_has_the_largest_new_share() -> None:
    assert risk.level(RISK, {}, "report:a@1") == pytest.approx(RISK * budget.share(1))


def test_deciding_on_the_same_again_spends_nothing() -> None:
    first = risk.level(RISK, {}, "report:a@1")
    before = risk.spent([decision(first, "report:a@1"), decision(first, "report:a@1")])
    assert len(before) == 1
    assert risk.level(RISK, before, "report:a@1") == first
    assert risk.level(RISK, before, "report:a@2") < first


def test_what_was_promoted_hands_its_level_on() -> None:
    first = risk.level(RISK, {}, "report:a@1")
    refused, promoted = decision(first, "report:a@1"), decision(first, "report:a@1", "promote")
    after_refusal = risk.level(RISK, risk.spent([refused]), "report:a@2")
    assert risk.level(RISK, risk.spent([promoted]), "report:a@2") == pytest.approx(after_refusal + first)
    assert risk.left(RISK, risk.spent([promoted])) == pytest.approx(RISK)


def test_what_a_person_decides_spends_nothing() -> None:
    by_hand = Decision(verdict="promote", because="promoted by a person", evidence={"report": "candidate:a@1"})
    assert risk.spent([by_hand]) == {}
