"""What the decisions of a task have spent, and what is left, as the ledger tells it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from trial_fakes import START, candidate, decision, make, opened, serving

from noria.backends.fake import FakeClock
from noria.deployment import canary, risk
from noria.deployment.slices import trial_of
from noria.ports import Platform
from noria.stats import budget
from noria.types import Artifact, Cycle, Decision, Ref, Run, Verdict, digest_of

RISK = 0.05
NAME = "helpdesk"


@pytest.fixture
def project(tmp_path: Path) -> tuple[Platform, FakeClock]:
    return opened(make(tmp_path / "shop", "canary = 0.1\ncontrol = 0.05"))


def gated(platform: Platform, number: int, on: str, acted: bool) -> float:
    """Record a cycle whose gate has decided on a report; returns the level that it had."""
    at = START + timedelta(days=number)
    level = risk.of_report(platform, NAME, on)
    ref = Ref(kind="release", name=NAME, digest=digest_of(f"{number}"))
    spent = {"level": level, "acted": acted, "on": on}
    cycle = Cycle(id=f"cycle-{number}", task=NAME, began=at, ended=at, verdict="promote" if acted else "refuse")
    platform.runs.save(cycle)
    run = Run(
        key=digest_of(f"k{number}"),
        stage="release",
        task=NAME,
        cycle=cycle.id,
        output=ref,
        seconds=0.0,
        peak_mb=0.0,
        at=at,
    )
    made = Artifact(ref=ref, parents=(), run_key=run.key, meta={"evidence": {"spent": spent}})
    platform.runs.record(run, made)
    return level


def test_each_report_has_a_level_and_keeps_it(project: tuple[Platform, FakeClock]) -> None:
    platform, _ = project
    first = gated(platform, 1, "report:a@1", acted=False)
    assert first == pytest.approx(RISK * budget.share(1))
    assert gated(platform, 2, "report:a@1", acted=False) == first
    second = gated(platform, 3, "report:a@2", acted=False)
    assert second == pytest.approx(RISK * budget.share(2))
    assert risk.left(RISK, risk.promotions(platform, NAME)) == pytest.approx(RISK - first - second)


def test_a_promotion_hands_its_level_on(project: tuple[Platform, FakeClock]) -> None:
    platform, _ = project
    first = gated(platform, 1, "report:a@1", acted=True)
    assert risk.of_report(platform, NAME, "report:a@2") == pytest.approx(RISK * budget.share(2) + first)
    assert risk.left(RISK, risk.promotions(platform, NAME)) == pytest.approx(RISK)


def begun(platform: Platform, clock: FakeClock, letter: str) -> tuple[float, float]:
    """Begin the canary of a candidate; returns its levels."""
    clock.advance(60)
    live = platform.deployments.current(NAME)
    new = canary.begin(live, NAME, candidate(letter), decision(), "cycle", "cycle", clock.now())
    platform.deployments.swap(new)
    trial = trial_of(new)
    assert trial is not None
    return risk.of_trial(platform, NAME, trial)


def ended(platform: Platform, clock: FakeClock, verdict: Verdict) -> None:
    clock.advance(60)
    live = platform.deployments.current(NAME)
    trial = trial_of(live)
    assert live is not None
    assert trial is not None
    evidence = {"trial": trial.id, "phase": "canary" if trial.canary else "watch"}
    canary.conclude(platform, live, Decision(verdict=verdict, because="", evidence=evidence))


def test_a_trial_keeps_its_levels_while_it_runs_and_spends_them(project: tuple[Platform, FakeClock]) -> None:
    platform, clock = project
    serving(platform, candidate("a"))
    levels = begun(platform, clock, "b")
    assert levels == pytest.approx((RISK * budget.share(1), RISK * budget.share(1)))
    assert len(risk.promotions(platform, NAME)) == 1
    ended(platform, clock, "inconclusive")
    assert begun(platform, clock, "c") == pytest.approx((RISK * budget.share(2), RISK * budget.share(2)))


def test_what_acted_hands_on_to_its_own_kind_only(project: tuple[Platform, FakeClock]) -> None:
    platform, clock = project
    serving(platform, candidate("a"))
    promote, stop = begun(platform, clock, "b")
    ended(platform, clock, "refuse")
    after = begun(platform, clock, "c")
    assert after == pytest.approx((RISK * budget.share(2), RISK * budget.share(2) + stop))
    ended(platform, clock, "promote")
    watch = trial_of(platform.deployments.current(NAME))
    assert watch is not None
    assert not watch.canary
    assert risk.of_trial(platform, NAME, watch)[1] == pytest.approx(RISK * budget.share(3))
    ended(platform, clock, "refuse")
    assert begun(platform, clock, "d")[0] == pytest.approx(RISK * budget.share(3) + after[0])
    assert promote > 0


def test_a_person_s_stop_spends_what_the_trial_had(project: tuple[Platform, FakeClock]) -> None:
    platform, clock = project
    serving(platform, candidate("a"))
    begun(platform, clock, "b")
    clock.advance(60)
    canary.promote(platform, NAME, "a person")
    assert begun(platform, clock, "c")[0] == pytest.approx(RISK * budget.share(2))
