"""A candidate whose data set leaks is refused by the cycle and by hand, with the evidence."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_canary import Silent, report
from trial_fakes import NEW, OLD, learned, make, opened, serving

from noria.deployment import release
from noria.errors import Conflict
from noria.ports import Platform
from noria.stage import Work
from noria.types import Artifact, Candidate, Cycle, Decision, Ref, Run, new_id

DATASET = Ref(kind="dataset", name="helpdesk", digest="d" * 16)


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return opened(make(tmp_path / "shop", "canary = 0.1\ncontrol = 0.05\nbudget = 600\ndays = 7"))[0]


def decided(platform: Platform, candidate: Candidate, champion: Candidate, leaks: dict[str, int]) -> Decision:
    name, task = platform.settings.task("helpdesk")
    now = platform.clock.now()
    cycle = Cycle(id=new_id(now), task=name, began=now)
    platform.runs.save(cycle)
    made = platform.lake.scratch("report")
    found = report(candidate, champion)
    row = found.rows[0].model_copy(update={"question": "Is it a@b.example?", "candidate": "a@b.example, c@d.example"})
    (made / "report.json").write_text(found.model_copy(update={"rows": (row,)}).model_dump_json())
    ref = platform.lake.commit(made, "report", name)
    dataset = Artifact(ref=DATASET, parents=(), run_key="1" * 16, meta={"leaks": {**leaks}})
    artifact = Artifact(ref=ref, parents=(DATASET,), run_key="3" * 16)
    for stage, each in (("dataset", dataset), ("report", artifact)):
        run = Run(
            key=each.run_key, stage=stage, task=name, cycle=cycle.id, output=each.ref, seconds=0.0, peak_mb=0.0, at=now
        )
        platform.runs.record(run, each)
    out = platform.lake.scratch("release")
    return Decision.model_validate(
        release.work(Work(platform, name, task, cycle.id, {"report": artifact}, None, out, Silent()))
    )


def test_a_leaking_data_set_is_not_released(platform: Platform) -> None:
    champion, candidate = learned(platform, OLD), learned(platform, NEW)
    serving(platform, champion)
    decision = decided(platform, candidate, champion, {"email": 2, "card": 1})
    assert decision.verdict == "refuse"
    assert decision.because == f"its data set holds personal data (email 2, card 1): look: noria scan {DATASET}"
    assert decision.evidence == {"dataset": str(DATASET), "leaks": {"email": 2, "card": 1}, "answers": {"email": 1}}
    for by_hand in (release.promote, release.start):
        with pytest.raises(Conflict, match="holds personal data"):
            by_hand(platform, "helpdesk", candidate.ref, "anna")


def test_a_clean_one_is(platform: Platform) -> None:
    champion, candidate = learned(platform, OLD), learned(platform, NEW)
    serving(platform, champion)
    assert decided(platform, candidate, champion, {}).verdict == "promote"
