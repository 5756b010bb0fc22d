"""Model versions follow the ledger, whoever changed it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from made_candidates import Turns, project

from noria import prompts
from noria.backends.fake_registry import FakeRegistry
from noria.errors import Conflict, Unavailable
from noria.ports import Platform
from noria.registry import candidates, cards, facts, versions
from noria.types import ModelVersion, Ref


@pytest.fixture
def made(tmp_path: Path) -> tuple[Platform, FakeRegistry, Turns]:
    platform, registry = project(tmp_path / "shop")
    return platform, registry, Turns(platform)


Made = tuple[Platform, FakeRegistry, Turns]


def aliases(registry: FakeRegistry) -> dict[str, str]:
    return {alias: each.candidate for each in registry.versions("helpdesk") for alias in each.aliases}


def by(registry: FakeRegistry, candidate: str) -> ModelVersion:
    return next(each for each in registry.versions("helpdesk") if each.candidate == candidate)


def test_every_candidate_with_a_report_is_a_version_with_its_ancestry(made: Made) -> None:
    platform, registry, turns = made
    first, second = turns.turn("refuse"), turns.turn()
    done = versions.sync(platform, "helpdesk")
    assert done.added == [str(first.ref), str(second.ref)]
    found = by(registry, str(second.ref))
    assert found.version == "2"
    told = {name: found.tags[name] for name in ("recipe", "verdict", "base", "adapter", "quantization", "prompt")}
    assert told == {
        "recipe": "lora", "verdict": "promote", "base": str(second.base), "adapter": str(second.adapter),
        "quantization": "F32", "prompt": second.prompt,
    }  # fmt: skip
    for name in ("dataset", "features", "report", "card"):
        ref = Ref.parse(found.tags[name])
        assert ref.kind == name
        assert platform.lake.has(ref)
    assert len(found.tags["environment"]) == 16
    assert found.tags["code"]
    assert by(registry, str(first.ref)).tags["verdict"] == "refuse"
    assert registry.folders[str(second.ref)][:3] == ["card/README.md", "card/bom.cdx.json", "card/card.json"]
    assert "model/adapter_model.safetensors" in registry.folders[str(second.ref)]


def test_aliases_follow_every_release(made: Made) -> None:
    platform, registry, turns = made
    first, second = turns.turn(), turns.turn()
    versions.sync(platform, "helpdesk")
    assert aliases(registry) == {}
    turns.serve(first, second)
    assert versions.due(platform, "helpdesk")
    assert versions.sync(platform, "helpdesk", whole=False).aliases == {"champion": "1", "challenger": "2"}
    assert aliases(registry) == {"champion": str(first.ref), "challenger": str(second.ref)}
    assert not versions.due(platform, "helpdesk")
    turns.serve(second)
    versions.sync(platform, "helpdesk", whole=False)
    assert aliases(registry) == {"champion": str(second.ref)}
    turns.serve(first, held=(str(second.ref),))
    versions.sync(platform, "helpdesk", whole=False)
    assert aliases(registry) == {"champion": str(first.ref)}
    assert by(registry, str(second.ref)).tags["held"] == "yes"
    turns.serve(first.model_copy(update={"adapter": None}))
    versions.sync(platform, "helpdesk", whole=False)
    assert aliases(registry) == {}
    assert "held" not in by(registry, str(second.ref)).tags


def test_a_sync_mends_what_others_changed_and_then_changes_nothing(made: Made) -> None:
    platform, registry, turns = made
    first, second = turns.turn(), turns.turn()
    turns.serve(first)
    versions.sync(platform, "helpdesk")
    registry.alias("helpdesk", {"champion": "2", "challenger": "1"})
    registry.tag("helpdesk", "1", {"base": "base:other@0000000000000000", "mine": "kept"})
    assert versions.sync(platform, "helpdesk", whole=False).told()["changed"] == []
    done = versions.sync(platform, "helpdesk")
    assert (done.added, done.changed) == ([], [str(first.ref)])
    assert aliases(registry) == {"champion": str(first.ref)}
    assert by(registry, str(first.ref)).tags["mine"] == "kept"
    again = versions.sync(platform, "helpdesk")
    assert (again.added, again.changed, again.aliases) == ([], [], {})
    registry.remove("helpdesk", "2")
    assert versions.sync(platform, "helpdesk").added == [str(second.ref)]


def test_a_registry_that_is_away_is_told_and_mended_later(made: Made) -> None:
    platform, registry, turns = made
    first = turns.turn()
    turns.serve(first)
    registry.away = Unavailable("MLflow does not answer")
    told: list[str] = []
    versions.best_effort(platform, "helpdesk", told.append)
    assert told == [
        "the registry was not brought up to date: MLflow does not answer; later: noria registry sync helpdesk"
    ]
    assert versions.due(platform, "helpdesk")
    registry.away = None
    versions.best_effort(platform, "helpdesk", told.append)
    assert len(told) == 1
    assert aliases(registry) == {"champion": str(first.ref)}


def test_nothing_is_asked_where_nothing_was_measured(made: Made) -> None:
    platform, registry, turns = made
    registry.away = Unavailable("must not be asked")
    turns.serve(None)
    assert versions.sync(platform, "helpdesk").added == []
    assert not versions.due(platform, "helpdesk")


def test_two_syncs_at_the_same_time_make_one_version(made: Made) -> None:
    platform, registry, turns = made
    for _ in range(3):
        turns.turn()
    threads = [threading.Thread(target=versions.sync, args=(platform, "helpdesk")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.version for each in registry.versions("helpdesk")] == ["3", "2", "1"]


def test_what_was_removed_stays_away_and_what_serves_cannot_go(made: Made) -> None:
    platform, registry, turns = made
    first, second = turns.turn(), turns.turn()
    turns.serve(second)
    versions.sync(platform, "helpdesk")
    with pytest.raises(Conflict, match="is the champion"):
        versions.remove(platform, candidates.find(platform, "helpdesk", "champion"))
    assert versions.remove(platform, candidates.find(platform, "helpdesk", "1")) == "1"
    versions.sync(platform, "helpdesk")
    assert [each.candidate for each in registry.versions("helpdesk")] == [str(second.ref)]
    assert candidates.version_of(candidates.carded(platform, str(first.ref))) is None


def test_a_card_that_changes_is_sent_again(made: Made) -> None:
    platform, registry, turns = made
    first = turns.turn()
    versions.sync(platform, "helpdesk")
    before = by(registry, str(first.ref)).tags["card"]
    assert first.adapter is not None
    (platform.lake.path(first.adapter) / "forgotten.json").write_text('[{"at": "2026-02-03T00:00:00", "rows": 0}]')
    assert versions.sync(platform, "helpdesk").changed == [str(first.ref)]
    found = by(registry, str(first.ref))
    assert found.tags["forgotten"] == "2026-02-03T00:00:00"
    assert found.tags["card"] != before
    card = platform.lake.path(Ref.parse(found.tags["card"]))
    assert "were forgotten on 2026-02-03" in (card / cards.CARD).read_text()
    assert json.loads((card / cards.CARD_JSON).read_text())["adapter"]["forgotten"]


def test_a_changed_adapter_is_told_and_the_others_go_on(made: Made) -> None:
    platform, registry, turns = made
    first, second = turns.turn(), turns.turn()
    assert first.adapter is not None
    (platform.lake.path(first.adapter) / "loss.json").write_text("{}")
    told: list[str] = []
    versions.best_effort(platform, "helpdesk", told.append, whole=True)
    assert len(told) == 1
    assert "'loss.json' was changed" in told[0]
    assert [each.candidate for each in registry.versions("helpdesk")] == [str(second.ref)]


@pytest.mark.parametrize("left", ["", "{", "[]", "unfinished"])
def test_a_mark_that_cannot_be_read_makes_a_sync_due(made: Made, left: str) -> None:
    platform, _, turns = made
    turns.turn()
    versions.sync(platform, "helpdesk")
    assert not versions.due(platform, "helpdesk")
    (platform.settings.state / "registry" / "helpdesk.json").write_text(left)
    assert versions.due(platform, "helpdesk")


def test_training_rows_stay_in_the_lake(made: Made) -> None:
    platform, registry, turns = made
    first = turns.turn()
    versions.sync(platform, "helpdesk")
    assert "model/loss.json" in registry.folders[str(first.ref)]
    assert "model/probes.json" not in registry.folders[str(first.ref)]


def test_facts_are_gathered_once_and_a_later_prompt_is_not_the_candidates(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, _, turns = made
    turns.turn()
    known = candidates.find(platform, "helpdesk", "latest")
    task = platform.settings.tasks["helpdesk"]
    assert facts.of(platform, known)["system"] == task.system
    card = cards.write(platform, known)
    monkeypatch.setitem(platform.settings.tasks, "helpdesk", task.model_copy(update={"system": "Another."}))
    assert prompts.definition("Another.") != known.candidate.prompt
    assert facts.of(platform, known)["system"] is None
    monkeypatch.setattr(facts, "of", None)
    assert cards.write(platform, known) == card
