"""Words are served without an engine that knows of them, by the fleet and the gateway; forgotten rows leave them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trial_fakes import NEW, QUESTION, decision, learned, make, opened, serving

from noria import adapters, prompts
from noria.backends.fake import FakeEngine, FakeEngines
from noria.deployment import canary
from noria.deployment.fleet import Fleet
from noria.deployment.gate import decide
from noria.evaluation.sides import barred
from noria.gateway.snapshot import SnapshotFile
from noria.ports import Platform
from noria.registry import forgetting
from noria.registry.lineage import _shown
from noria.settings import EngineSettings
from noria.stage import Look
from noria.training.recipes import lora
from noria.types import (
    Arm,
    Artifact,
    Candidate,
    Interval,
    Message,
    Ref,
    Report,
    RowScore,
    Shot,
    Snapshot,
    Wording,
    digest_of,
)

SHOTS = tuple(
    Shot(id=digest_of(number), messages=(Message(role="user", content=f"Q{number}?"),), context=None, target="A.")
    for number in range(2)
)


class Watched(FakeEngines):
    """Notes which adapters its engines are given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[set[str]] = []

    def start(self, settings: EngineSettings, adapters: Mapping[Ref, Path], log: Path) -> FakeEngine:
        self.given.append({str(ref) for ref in adapters})
        return super().start(settings, adapters, log)


@pytest.fixture
def engines() -> Watched:
    return Watched()


@pytest.fixture
def platform(tmp_path: Path, engines: Watched) -> Platform:
    found = opened(make(tmp_path / "shop", "canary = 0.1\ncontrol = 0.05\nbudget = 600\ndays = 7"))[0]
    return replace(found, engines={"llamacpp": engines})


def worded(platform: Platform, wording: Wording) -> Candidate:
    """A candidate of words, as a cycle would leave it in the lake."""
    folder = platform.lake.scratch("worded")
    adapters.write_wording(folder, wording)
    ref = platform.lake.commit(folder, "adapter", "helpdesk")
    system = platform.settings.tasks["helpdesk"].system
    return learned(platform, NEW).model_copy(update={"adapter": ref, "prompt": prompts.definition(system, wording)})


@pytest.fixture
def published() -> list[Snapshot]:
    return []


@pytest.fixture
def fleet(platform: Platform, published: list[Snapshot]) -> Iterator[Fleet]:
    found = Fleet(platform, published.append, lambda version, url: True, lambda line: None, lambda: 0.0)
    yield found
    found.close()


def arms(fleet: Fleet, published: list[Snapshot]) -> dict[str, Arm]:
    fleet.poll()
    return {arm.name: arm for arm in published[-1].routes["helpdesk"].arms}


def test_champion_and_challenger_differ_in_words_alone(
    platform: Platform, fleet: Fleet, published: list[Snapshot], engines: Watched, tmp_path: Path
) -> None:
    trained, shown = learned(platform, NEW), worded(platform, Wording(shots=SHOTS))
    live = serving(platform, trained)
    platform.deployments.swap(canary.begin(live, "helpdesk", shown, decision(), "two", "cycle", platform.clock.now()))
    found = arms(fleet, published)
    assert found["champion"].wording is None
    assert found["challenger"].wording == Wording(shots=SHOTS)
    assert found["challenger"].served_by == str(shown.ref)
    assert found["challenger"].extra == {"adapter": ""}
    assert found["control"].extra == {"adapter": str(trained.adapter)}
    assert engines.given == [{str(trained.adapter)}]
    assert not any(str(shown.adapter) in name for name in published[-1].routes)
    # The gateway makes them ready once, and asks with the very words that were measured.
    file = tmp_path / "snapshot.json"
    file.write_text(published[-1].model_dump_json())
    view = SnapshotFile(file, platform.indexes.open).current
    [challenger] = [each for each in view.live["helpdesk"].arms if each.arm.name == "challenger"]
    asked = [{"role": "user", "content": QUESTION}]
    task = view.live["helpdesk"].task
    assert task is not None
    told = prompts.dress(task.system, asked, None, challenger.wording)
    measured = prompts.render(
        task.system, [Message(role="user", content=QUESTION)], None, prompts.worded(Wording(shots=SHOTS))
    )
    assert told == [each.model_dump() for each in measured]


def test_words_for_another_prompt_do_not_serve(platform: Platform, fleet: Fleet, published: list[Snapshot]) -> None:
    shown = worded(platform, Wording(system="Be brief.", shots=SHOTS))
    serving(platform, shown)
    found = arms(fleet, published)["champion"]
    assert (found.served_by, found.wording) == (str(shown.ref), Wording(system="Be brief.", shots=SHOTS))
    task = platform.settings.tasks["helpdesk"]
    assert barred(platform, task, shown) is None
    changed = task.model_copy(update={"system": "Another."})
    # Its own system prompt stands in the place of the task's; without one, another system prompt is another candidate.
    assert barred(platform, changed, shown) is None
    assert barred(platform, changed, worded(platform, Wording(shots=SHOTS))) == "the task's prompt is another now"


def test_a_forgotten_row_leaves_the_prompt_at_once(platform: Platform, fleet: Fleet, published: list[Snapshot]) -> None:
    shown = worded(platform, Wording(shots=SHOTS))
    assert shown.adapter is not None
    serving(platform, shown)
    assert "Q0?" in json.dumps(arms(fleet, published)["champion"].model_dump(mode="json"))
    traces = forgetting.Traces(examples={SHOTS[0].id}, adapters=[shown.adapter])
    whose = forgetting.Whose(lambda record: False, ())
    forgetting.remove(platform, traces, whose, platform.clock.now())
    assert adapters.wording_of(platform.lake, shown.adapter) == Wording(shots=SHOTS[1:])
    left = arms(fleet, published)["champion"]
    assert left.wording is None
    assert "Q0?" not in published[-1].model_dump_json()
    assert left.served_by != str(shown.ref)


def test_no_training_goes_on_from_words(platform: Platform) -> None:
    serving(platform, worded(platform, Wording(shots=SHOTS)))
    name, task = platform.settings.task("helpdesk")
    features = Artifact(ref=Ref(kind="features", name="helpdesk", digest="9" * 16), parents=(), run_key="9" * 16)
    assert lora.observes(Look(platform, name, task, {"features": features})) is None


def test_the_gate_asks_for_parity_of_what_was_trained_only(platform: Platform) -> None:
    old = learned(platform, NEW).model_copy(update={"adapter": None})
    gain = Interval(
        name="token_f1", before=0.2, after=0.6, gain=0.4, low=0.3, high=0.5, rows=40, error=0.05, clusters=40
    )
    rows = tuple(
        RowScore(
            id=digest_of(number), slice="task", conversation=str(number), question="?", target="!", champion="a",
            candidate="b", before={}, after={},
        )
        for number in range(40)
    )  # fmt: skip

    def judged(candidate: Candidate, checks: dict[str, float]) -> tuple[str, str]:
        report = Report(
            candidate=candidate, champion=old, intervals={"all": {"token_f1": gain}}, rows=rows, checks=checks
        )
        made = decide(report, platform.settings.tasks["helpdesk"].gate, 0.05)
        assert made.evidence["checks"] == checks
        return made.verdict, made.because

    assert judged(worded(platform, Wording(shots=SHOTS)), {"trained": 0.0})[0] == "promote"
    assert judged(learned(platform, NEW), {}) == (
        "refuse", "nobody has checked that the engine serves what the trainer made",
    )  # fmt: skip
    assert judged(learned(platform, NEW), {"parity": 1.0, "changed": 1.0})[0] == "promote"


def test_a_broken_wording_is_told_and_the_base_serves(platform: Platform, published: list[Snapshot]) -> None:
    shown = worded(platform, Wording(shots=SHOTS))
    assert shown.adapter is not None
    serving(platform, shown)
    (platform.lake.path(shown.adapter) / "wording.json").write_text("{")
    lines: list[str] = []
    fleet = Fleet(platform, published.append, lambda version, url: True, lines.append, lambda: 0.0)
    try:
        assert arms(fleet, published)["champion"].wording is None
    finally:
        fleet.close()
    assert any("no readable wording.json" in line for line in lines)


def test_pairs_of_ids_and_texts_are_what_why_tells(platform: Platform) -> None:
    rows = {
        "id": [shot.id for shot in SHOTS], "origin": ["source:faq", "traffic:correction"], "conversation": ["a", "b"],
        "target": ["A.", "A."], "document": ["", ""], "messages": ["[]", "[]"],
    }  # fmt: skip
    folder = platform.lake.scratch("rows")
    pq.write_table(pa.table(rows), folder / "train.parquet")
    dataset = platform.lake.commit(folder, "dataset", "helpdesk")
    chain = {"dataset": Artifact(ref=dataset, parents=(), run_key="0" * 16)}
    found = _shown(platform, chain, Wording(shots=SHOTS[::-1]))
    assert [(row["id"], row["text"]) for row in found] == [(SHOTS[1].id, "Q1? -> A."), (SHOTS[0].id, "Q0? -> A.")]


def test_a_changed_adapter_keeps_no_poll_from_ending(
    platform: Platform, fleet: Fleet, published: list[Snapshot], engines: Watched
) -> None:
    trained = learned(platform, NEW)
    serving(platform, trained)
    arms(fleet, published)
    assert trained.adapter is not None
    (platform.lake.path(trained.adapter) / "more.json").write_text("{}")
    assert arms(fleet, published)["champion"].served_by == str(trained.ref)
    (platform.lake.path(trained.adapter) / "adapter.json").write_text("{")
    assert arms(fleet, published)["champion"].served_by != str(trained.ref)
    assert engines.given == [{str(trained.adapter)}, set()]
