"""A canary from the gate's verdict to its end: what serves, what is held, and what a person may do meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from trial_fakes import NEW, OLD, START, answered, learned, log, make, opened, said, serving
from typer.testing import CliRunner

from noria.apps import views
from noria.apps.cli import app
from noria.backends.fake import FakeClock
from noria.deployment import canary, release
from noria.deployment.fleet import Fleet
from noria.deployment.slices import Trial, trial_of
from noria.deployment.watcher import Watcher
from noria.errors import Conflict, Invalid, NotFound, Unavailable
from noria.ports import Platform
from noria.registry import lineage
from noria.settings import load
from noria.stage import Work
from noria.types import (
    Artifact,
    Candidate,
    Cycle,
    Decision,
    Deployment,
    Feedback,
    Interaction,
    Interval,
    Report,
    RowScore,
    Run,
    Snapshot,
    new_id,
)

RELEASE = "canary = 0.1\ncontrol = 0.05\nbudget = 600\ndays = 7"
PAIRS = 400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "shop", RELEASE)


@pytest.fixture
def place(folder: Path) -> tuple[Platform, FakeClock]:
    return opened(folder)


@pytest.fixture
def platform(place: tuple[Platform, FakeClock]) -> Platform:
    return place[0]


@pytest.fixture
def clock(place: tuple[Platform, FakeClock]) -> FakeClock:
    return place[1]


@pytest.fixture
def champion(platform: Platform) -> Candidate:
    found = learned(platform, OLD)
    serving(platform, found)
    return found


@pytest.fixture
def challenger(platform: Platform) -> Candidate:
    return learned(platform, NEW)


def report(candidate: Candidate, champion: Candidate, gain: float = 0.3) -> Report:
    row = RowScore(
        id="2" * 16, slice="task", conversation="c", question="q", target="t", champion="old", candidate="new",
        before={"token_f1": 0.4}, after={"token_f1": 0.4 + gain},
    )  # fmt: skip
    better = Interval(
        name="token_f1", before=0.4, after=0.4 + gain, gain=gain, low=gain - 0.1, high=gain + 0.1, rows=100
    )
    return Report(
        candidate=candidate, champion=champion, intervals={"all": {"token_f1": better}}, rows=(row,),
        checks={"parity": 1.0, "changed": 1.0},
    )  # fmt: skip


def released(platform: Platform, candidate: Candidate, champion: Candidate, **more: float) -> Decision:
    """What the stage at the end of a cycle makes of a candidate."""
    made = platform.lake.scratch("report")
    (made / "report.json").write_text(report(candidate, champion, **more).model_dump_json())
    artifact = Artifact(ref=platform.lake.commit(made, "report", "helpdesk"), parents=(), run_key="3" * 16)
    name, task = platform.settings.task("helpdesk")
    cycle = Cycle(id=new_id(platform.clock.now()), task=name, began=platform.clock.now())
    platform.runs.save(cycle)
    run = Run(
        key=artifact.run_key, stage="report", task=name, cycle=cycle.id, output=artifact.ref, seconds=0.0, peak_mb=0.0,
        at=cycle.began,
    )  # fmt: skip
    platform.runs.record(run, artifact)
    out = platform.lake.scratch("release")
    work = Work(platform, name, task, cycle.id, {"report": artifact}, None, out, Silent())
    return Decision.model_validate(release.work(work))


class Silent:
    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        pass


def live(platform: Platform) -> Deployment:
    found = platform.deployments.current("helpdesk")
    assert found is not None
    return found


def trial(platform: Platform) -> Trial:
    found = trial_of(live(platform))
    assert found is not None
    return found


def talk(platform: Platform, new: float, old: float, count: int = PAIRS, after: float = 0) -> None:
    """Answers of both slices and the thumbs that they get."""
    running, records = trial(platform), list[Interaction | Feedback]()
    for number in range(count):
        for mine, value in ((True, new), (False, old)):
            one = answered(number, mine, running)
            one = one.model_copy(update={"at": one.at + timedelta(seconds=after), "user": f"{after}-{number}-{mine}"})
            records += [one, said(one, value)]
    log(platform, records)


def watched(platform: Platform, clock: FakeClock, seconds: float = 3600) -> list[str]:
    clock.advance(seconds)
    lines: list[str] = []
    Watcher(platform, lines.append).poll()
    return lines


def test_the_gates_promotion_begins_a_canary(platform: Platform, champion: Candidate, challenger: Candidate) -> None:
    decision = released(platform, challenger, champion)
    assert decision.verdict == "promote"
    assert "its canary has begun with 10 % of the requests" in decision.because
    now = live(platform)
    assert (now.version, now.champion, now.challenger, now.control) == (2, champion, challenger, champion)
    assert now.decision.evidence["slices"]
    again = released(platform, challenger, champion)
    assert again.verdict == "inconclusive"
    assert "its canary runs since" in again.because
    other = released(platform, learned(platform, "Ten days."), champion)
    assert other.verdict == "inconclusive"
    assert str(challenger.ref) in other.because
    assert live(platform) == now


def test_without_a_canary_the_gates_word_is_enough(tmp_path: Path) -> None:
    platform, _ = opened(make(tmp_path / "shop", "max_p95_ms = 900"))
    old, new = learned(platform, OLD), learned(platform, NEW)
    serving(platform, old)
    assert released(platform, new, old).verdict == "promote"
    now = live(platform)
    assert (now.champion, now.previous, now.challenger, now.control, now.trial) == (new, old, None, None, "")


def test_a_control_slice_stays_after_a_promotion_without_a_canary(tmp_path: Path) -> None:
    platform, _ = opened(make(tmp_path / "shop", "control = 0.1"))
    old, new = learned(platform, OLD), learned(platform, NEW)
    serving(platform, old)
    released(platform, new, old)
    found = trial(platform)
    assert (found.canary, found.challenger, found.control) == (False, new, old)


def test_the_first_candidate_ever_is_tried_beside_the_base(platform: Platform, challenger: Candidate) -> None:
    base = challenger.model_copy(update={"adapter": None})
    released(platform, challenger, base)
    assert (live(platform).champion, trial(platform).control) == (None, base)
    canary.promote(platform, "helpdesk", "ann")
    assert (live(platform).champion, live(platform).previous) == (challenger, base)


def test_a_better_challenger_is_promoted_and_then_watched(
    platform: Platform, clock: FakeClock, champion: Candidate, challenger: Candidate
) -> None:
    gate = released(platform, challenger, champion)
    began = live(platform)
    assert watched(platform, clock, 1) == []
    talk(platform, 1, 0)
    (line,) = watched(platform, clock)
    assert line.startswith(f"promote '{challenger.ref}'")
    now = live(platform)
    assert (now.champion, now.previous, now.challenger, now.control) == (challenger, champion, None, champion)
    assert (now.trial, now.cycle, now.actor) == (began.trial, began.cycle, "canary")
    assert now.decision.evidence["gate"] == gate.model_dump(mode="json")
    assert now.decision.evidence["slices"]
    assert watched(platform, clock) == []
    assert views.status(platform)["tasks"]["helpdesk"]["trial"]["phase"] == "watch"
    decision = released(platform, challenger, champion)
    assert decision.because.startswith("serves already")


def test_a_worse_challenger_is_taken_back_and_not_tried_again(
    platform: Platform, clock: FakeClock, champion: Candidate, challenger: Candidate
) -> None:
    released(platform, challenger, champion)
    talk(platform, 0, 1)
    assert watched(platform, clock)
    now = live(platform)
    assert (now.champion, now.challenger, trial_of(now), now.held) == (champion, None, None, (str(challenger.ref),))
    assert now.decision.verdict == "refuse"
    again = released(platform, challenger, champion)
    assert again.verdict == "refuse"
    assert now.decision.because in again.because
    assert live(platform) == now


def test_hard_faults_end_a_canary_at_once(
    platform: Platform, clock: FakeClock, champion: Candidate, challenger: Candidate
) -> None:
    released(platform, challenger, champion)
    running = trial(platform)
    log(platform, [answered(number, True, running, status=502) for number in range(PAIRS)])
    assert watched(platform, clock)
    assert (live(platform).decision.verdict, live(platform).challenger) == ("refuse", None)


@pytest.mark.parametrize("why", ["budget", "days"])
def test_what_stays_undecided_is_taken_back(
    platform: Platform, clock: FakeClock, champion: Candidate, challenger: Candidate, why: str
) -> None:
    released(platform, challenger, champion)
    talk(platform, 1, 1, 620 if why == "budget" else 30)
    assert bool(watched(platform, clock)) == (why == "budget")
    assert bool(watched(platform, clock, 8 * 24 * 3600)) == (why == "days")
    now = live(platform)
    assert (now.champion, now.challenger, now.decision.verdict) == (champion, None, "inconclusive")
    assert now.held == (str(challenger.ref),)


def test_a_slow_decline_after_the_promotion_rolls_back(
    platform: Platform, clock: FakeClock, champion: Candidate, challenger: Candidate
) -> None:
    released(platform, challenger, champion)
    talk(platform, 1, 0)
    watched(platform, clock)
    talk(platform, 0, 1, after=3700)
    assert watched(platform, clock)
    now = live(platform)
    assert (now.champion, now.control, now.held) == (champion, None, (str(challenger.ref),))
    assert now.decision.evidence["phase"] == "watch"
    assert released(platform, challenger, champion).verdict == "refuse"


def test_a_hold_keeps_the_challenger_from_being_promoted_but_not_from_being_taken_back(
    platform: Platform, clock: FakeClock, champion: Candidate, challenger: Candidate
) -> None:
    released(platform, challenger, champion)
    release.hold(platform, "helpdesk", "ann", paused=True)
    talk(platform, 1, 0)
    clock.advance(3600)
    lines: list[str] = []
    watcher = Watcher(platform, lines.append)
    watcher.poll()
    watcher.poll()
    (line,) = lines
    assert "on hold" in line
    assert live(platform).champion == champion
    release.hold(platform, "helpdesk", "ann", paused=False)
    (made,) = watcher.poll()
    assert made.champion == challenger


def test_a_rollback_takes_the_challenger_back_first_and_then_the_champion(
    platform: Platform, champion: Candidate, challenger: Candidate
) -> None:
    released(platform, challenger, champion)
    now = release.rollback(platform, "helpdesk", "ann", "odd")
    assert (now.champion, now.challenger, now.held) == (champion, None, (str(challenger.ref),))
    assert "ann: odd" in now.decision.because
    now = release.rollback(platform, "helpdesk", "ann", "odd too")
    assert now.champion == champion.model_copy(update={"adapter": None})


def test_a_rollback_ends_the_watch(platform: Platform, champion: Candidate, challenger: Candidate) -> None:
    released(platform, challenger, champion)
    canary.promote(platform, "helpdesk", "ann")
    now = release.rollback(platform, "helpdesk", "ann", "odd")
    assert (now.champion, trial_of(now), now.held) == (champion, None, (str(challenger.ref),))


def test_a_person_may_end_either_half(platform: Platform, champion: Candidate, challenger: Candidate) -> None:
    with pytest.raises(NotFound, match="no trial"):
        canary.stop(platform, "helpdesk", "ann", "x")
    released(platform, challenger, champion)
    now = canary.promote(platform, "helpdesk", "ann")
    assert (now.champion, now.control, now.decision.because) == (
        challenger, champion, "promoted by ann before its canary was decided",
    )  # fmt: skip
    with pytest.raises(Conflict, match="promoted its challenger already"):
        canary.promote(platform, "helpdesk", "ann")
    now = canary.stop(platform, "helpdesk", "ann", "enough")
    assert (now.champion, now.control, now.held) == (challenger, None, ())


def test_a_verdict_comes_too_late_where_somebody_was_quicker(
    platform: Platform, clock: FakeClock, champion: Candidate, challenger: Candidate
) -> None:
    released(platform, challenger, champion)
    stale = live(platform)
    canary.stop(platform, "helpdesk", "ann", "no")
    with pytest.raises(Conflict):
        canary.conclude(platform, stale, Decision(verdict="promote", because="better", evidence={}))
    assert live(platform).champion == champion


def test_approval_by_a_person_comes_before_the_canary(folder: Path) -> None:
    file = folder / "noria.toml"
    file.write_text(file.read_text().replace("risk = 0.05 }", 'risk = 0.05, approval = "human" }'))
    platform, _ = opened(folder)
    old, new = learned(platform, OLD), learned(platform, NEW)
    serving(platform, old)
    decision = released(platform, new, old)
    assert decision.verdict == "inconclusive"
    assert f"noria canary start {new.ref}" in decision.because
    assert trial_of(live(platform)) is None


def test_a_person_may_begin_a_canary_of_what_has_a_report(
    platform: Platform, champion: Candidate, challenger: Candidate
) -> None:
    with pytest.raises(NotFound, match="no report knows"):
        release.start(platform, "helpdesk", challenger.ref, "ann")
    released(platform, challenger, champion)
    with pytest.raises(Conflict, match="serves already"):
        release.start(platform, "helpdesk", challenger.ref, "ann")
    canary.stop(platform, "helpdesk", "ann", "not yet")
    now = release.start(platform, "helpdesk", challenger.ref, "bob")
    assert (now.challenger, now.held, now.decision.because) == (challenger, (), "canary begun by bob")


class Away:
    """A ledger that does not answer."""

    def current(self, task: str) -> Deployment | None:
        raise Unavailable("the ledger does not answer: gone")

    def history(self, task: str, limit: int) -> list[Deployment]:
        return []

    def swap(self, new: Deployment) -> None:
        pass


def test_a_ledger_that_is_away_is_told_once_and_trials_wait(
    platform: Platform, clock: FakeClock, champion: Candidate, challenger: Candidate
) -> None:
    released(platform, challenger, champion)
    talk(platform, 1, 0)
    clock.advance(3600)
    lines: list[str] = []
    watcher = Watcher(replace(platform, deployments=Away()), lines.append)
    assert watcher.poll() == watcher.poll() == []
    assert lines == ["the ledger does not answer: gone; trials wait"]
    watcher.take(platform)
    (made,) = watcher.poll()
    assert made.champion == challenger


def test_why_tells_what_brought_an_answer_about(
    platform: Platform, clock: FakeClock, champion: Candidate, challenger: Candidate
) -> None:
    clock.advance(-60)
    released(platform, challenger, champion)
    clock.advance(60)
    running = trial(platform)
    tried, control = answered(1, True, running), answered(2, False, running)
    clock.advance(60)
    canary.promote(platform, "helpdesk", "ann")
    after = answered(200, True, running, arm="champion")
    log(platform, [tried, control, after])
    told = [lineage.explain(platform, each.id) for each in (tried, control, after)]
    because = [each["decision"]["because"] for each in told]
    assert "its canary has begun" in because[0]
    assert because[1:] == ["the first", "promoted by ann before its canary was decided"]
    assert [each["answer"]["arm"] for each in told] == ["challenger", "control", "champion"]


@pytest.fixture
def published() -> list[Snapshot]:
    return []


@pytest.fixture
def fleet(platform: Platform, published: list[Snapshot]) -> Iterator[Fleet]:
    found = Fleet(platform, published.append, lambda version, url: True, lambda line: None, lambda: 0.0)
    yield found
    found.close()


def test_the_fleet_loads_both_and_gives_each_its_slice(
    platform: Platform, fleet: Fleet, published: list[Snapshot], champion: Candidate, challenger: Candidate
) -> None:
    def arms() -> dict[tuple[str, str], float]:
        fleet.poll()
        shares: dict[tuple[str, str], float] = {}
        for arm in published[-1].routes["helpdesk"].arms:
            key = arm.name, arm.served_by
            shares[key] = round(shares.get(key, 0) + arm.share, 9)
        return shares

    old, new = str(champion.ref), str(challenger.ref)
    assert arms() == {("champion", old): 1.0}
    released(platform, challenger, champion)
    assert arms() == {("champion", old): 0.8, ("challenger", new): 0.1, ("control", old): 0.1}
    (url,) = {each.upstreams[0].url for each in published[-1].routes["helpdesk"].arms}
    canary.promote(platform, "helpdesk", "ann")
    assert arms() == {("champion", new): 0.9, ("challenger", new): 0.05, ("control", old): 0.05}
    assert {each.upstreams[0].url for each in published[-1].routes["helpdesk"].arms} == {url}
    canary.stop(platform, "helpdesk", "ann", "enough")
    assert arms() == {("champion", new): 1.0}


def test_a_challenger_that_was_made_for_another_prompt_is_not_tried(
    platform: Platform, fleet: Fleet, published: list[Snapshot], champion: Candidate, challenger: Candidate
) -> None:
    released(platform, challenger.model_copy(update={"prompt": "4" * 16}), champion)
    fleet.poll()
    assert [arm.name for arm in published[-1].routes["helpdesk"].arms] == ["champion"]


def test_the_command_line_tells_and_ends_trials(
    folder: Path, platform: Platform, champion: Candidate, challenger: Candidate
) -> None:
    def noria(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--project", str(folder)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "there is no trial" in noria("canary", "status")
    released(platform, challenger, champion)
    talk(platform, 1, 1, 30)
    assert "canary runs" in noria("status")
    told = json.loads(noria("canary", "status", "--json"))
    assert told["trial"]["challenger"] == str(challenger.ref)
    assert told["slices"]["challenger"]["requests"] == 30
    assert told["metrics"]["feedback"] == {"pairs": 30, "challenger": 1.0, "control": 1.0}
    assert "feedback" in noria("canary", "status")
    stopped = json.loads(noria("canary", "stop", "--reason", "no", "--json"))
    assert (stopped["verdict"], stopped["held"], stopped["trial"]) == ("inconclusive", [str(challenger.ref)], None)
    assert json.loads(noria("canary", "watch", "--json")) == {"ended": []}


@pytest.mark.parametrize(
    ("table", "fact"),
    [
        ("canary = 0.6", "two slices of 0.6"),
        ("canary = 0.3\n[tasks.helpdesk.arms.big]\nengine = 'local'\nshare = 0.5", "two slices of 0.3"),
        ("canary = 0.1\n[tasks.helpdesk.arms.control]\nengine = 'local'\nshare = 0.1", "cannot be called 'control'"),
        ('canary = 0.1\nprimary = "feedbak"', "feedbak"),
        ("canry = 0.1", "did you mean 'canary'"),
    ],
)
def test_a_wrong_table_is_told(tmp_path: Path, table: str, fact: str) -> None:
    folder = make(tmp_path / "shop", table)
    with pytest.raises(Invalid) as caught:
        load(folder / "noria.toml")
    assert fact in f"{caught.value.fact} {caught.value.hint}"


def test_an_old_record_of_a_deployment_is_still_read() -> None:
    record = '{"task": "t", "version": 1, "champion": null, "previous": null, "decision": {"verdict": "promote", '
    record += f'"because": "x", "evidence": {{}}}}, "cycle": "c", "actor": "a", "at": "{START.isoformat()}"}}'
    assert trial_of(Deployment.model_validate_json(record)) is None
