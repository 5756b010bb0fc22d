"""Runs made again, with a trainer of a few lines: the same, and not the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_candidates import Turns, project
from pydantic import JsonValue
from safetensors.numpy import save_file

from noria import cycle, environment, replays
from noria.apps import replaying
from noria.backends import weights
from noria.backends.fake_registry import FakeRegistry
from noria.errors import Conflict, Invalid, NotFound
from noria.ports import Platform, Untracked
from noria.registry import candidates, versions
from noria.stage import Stage, Work, run_stage, stages_of
from noria.types import Artifact, Cycle, Ref, new_id


class Quiet:
    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        pass


@dataclass
class Kitchen:
    """A stage `adapter` whose product is `flour` and what it observed."""

    platform: Platform
    registry: FakeRegistry
    turns: Turns
    flour: float = 1.0
    seen: str = "champion"
    worked: int = 0
    # Of the real stage.
    reads: tuple[str, ...] = next(stage.reads for stage in cycle.STAGES if stage.name == "adapter")

    def work(self, work: Work) -> Mapping[str, JsonValue]:
        self.worked += 1
        assert (work.folder("features") / "features.parquet").is_file()
        save_file({"a": np.full(4, self.flour, np.float32), "b": np.ones(2, np.float32)}, work.out / "w.safetensors")
        (work.out / "loss.json").write_text(json.dumps({"steps": [1], "loss": [2 * self.flour]}))
        probes = [{"prefix": [1], "token": 5, "logprob": -1.0}, {"prefix": [2], "token": 6, "logprob": -self.flour}]
        probes[1]["token"] = 6 if self.flour < 2 else 7
        (work.out / "probes.json").write_text(json.dumps(probes))
        (work.out / "observed").write_text(str(work.observed))
        return {"recipe": work.task.recipe.model_dump(mode="json"), "environment": environment.recorded()}

    @property
    def stage(self) -> Stage:
        params = lambda look: look.task.recipe.model_dump(mode="json")  # noqa: E731
        return Stage("adapter", self.work, reads=self.reads, params=params, observes=lambda look: self.seen)

    def bake(self) -> Artifact:
        now = self.platform.clock.now()
        here = Cycle(id=new_id(now), task="helpdesk", began=now, ended=now)
        self.platform.runs.save(here)
        table = pa.table({"id": ["e"], "tokens": [3]})
        ref = self.turns.put(here, "features", {"features.parquet": table}, ())
        made = self.platform.runs.artifact(ref)
        assert made is not None
        task = self.platform.settings.tasks["helpdesk"]
        plain = replace(self.platform, tracking=Untracked())
        done = {"features": made}
        stage = next(each for each in stages_of(cycle.STAGES, task) if each.name == "adapter")
        return run_stage(stage, plain, "helpdesk", task, here.id, done, Quiet()).artifact


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kitchen:
    platform, registry = project(tmp_path / "shop")
    found = Kitchen(platform, registry, Turns(platform))
    others = tuple(stage for stage in cycle.STAGES if stage.name != "adapter")
    monkeypatch.setattr(cycle, "STAGES", (*others, found.stage))
    return found


def test_the_same_run_is_the_same(kitchen: Kitchen) -> None:
    made = kitchen.bake()
    kitchen.seen = "something else by now"
    told, found = replaying.replay(kitchen.platform, str(made.ref), Quiet())
    assert (told.ref, found.same, found.same_machine, found.files) == (made.ref, True, True, ())
    assert kitchen.worked == 2
    assert replays.told(kitchen.platform, made.ref) == "made again, the same digest"
    assert not (kitchen.platform.settings.root / "lake" / ".scratch" / f"replay-{made.ref.digest}").exists()
    kept = kitchen.platform.runs.find(made.run_key)
    assert kept is not None
    assert kept.ref == made.ref
    assert replaying.named(kitchen.platform, made.run_key).ref == made.ref


def test_how_far_two_runs_lie_apart_is_kept_and_told(kitchen: Kitchen) -> None:
    made = kitchen.bake()
    kitchen.flour = 2.5
    _, found = replaying.replay(kitchen.platform, str(made.ref), Quiet())
    assert not found.same
    assert found.files == ("loss.json", "probes.json", "w.safetensors")
    assert found.weights == pytest.approx(1.5)
    assert found.relative == pytest.approx(np.sqrt(4 * 1.5**2 / 6))
    assert (found.loss, found.agreement, found.logprob) == (3.0, 0.5, 1.5)
    assert replays.of(kitchen.platform, made.ref) == found
    assert "next tokens agree on 50.0%" in found.words()
    kitchen.flour = 1.0
    replaying.replay(kitchen.platform, str(made.ref), Quiet())
    assert "the same digest" in replays.told(kitchen.platform, made.ref)


def test_card_and_tags_tell_a_replay(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = kitchen.turns.turn()
    versions.sync(kitchen.platform, "helpdesk")
    assert candidate.adapter is not None
    made = kitchen.platform.runs.artifact(candidate.adapter)
    assert made is not None
    told = replays.Replay(same=False, at=kitchen.platform.clock.now(), machine="here", made_on="there", weights=0.25)
    replaying._keep(kitchen.platform, made, told)
    assert versions.sync(kitchen.platform, "helpdesk").changed == [str(candidate.ref)]
    version = kitchen.registry.versions("helpdesk")[0]
    assert version.tags["replay"] == "made again, weights differ by up to 0.25"
    card = candidates.carded(kitchen.platform, str(candidate.ref))
    assert card is not None
    text = (kitchen.platform.lake.path(card.ref) / "README.md").read_text()
    assert "It cannot be made again as it is: made again, weights differ by up to 0.25." in text


def test_what_cannot_be_made_again_says_why(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    made = kitchen.bake()
    features = next(ref for ref in made.parents if ref.kind == "features")
    monkeypatch.setattr("noria.stage.__version__", "99")
    with pytest.raises(Conflict, match="another version of noria"):
        replaying.replay(kitchen.platform, str(made.ref), Quiet())
    monkeypatch.undo()
    kitchen_stages = (*(stage for stage in cycle.STAGES if stage.name != "adapter"), kitchen.stage)
    monkeypatch.setattr(cycle, "STAGES", kitchen_stages)
    (kitchen.platform.lake.path(features) / "forgotten.json").write_text("[]")
    with pytest.raises(Conflict, match="rows were taken out of"):
        replaying.replay(kitchen.platform, str(made.ref), Quiet())
    file = kitchen.platform.lake.path(made.ref) / "observed"
    file.write_text("tampered")
    with pytest.raises(Invalid, match="'observed' was changed"):
        replaying.replay(kitchen.platform, str(made.ref), Quiet())
    with pytest.raises(NotFound):
        replaying.replay(kitchen.platform, "0123456789abcdef", Quiet())
    with pytest.raises(Invalid, match="is not a ref"):
        replaying.replay(kitchen.platform, "adapter:x", Quiet())


def test_folders_without_anything_in_common(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    nothing: dict[str, Any] = dict.fromkeys(("weights", "relative", "loss", "agreement", "logprob"))
    assert weights.spread(tmp_path / "a", tmp_path / "b") == nothing
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "a" / "w.safetensors")
    assert weights.spread(tmp_path / "a", tmp_path / "b")["weights"] == np.inf
    save_file({"a": np.ones((2, 1), np.float32)}, tmp_path / "b" / "w.safetensors")
    apart = weights.spread(tmp_path / "a", tmp_path / "b")["weights"]
    assert apart == np.inf
    kept = replays.Replay(same=False, at="2026-01-01T00:00:00Z", machine="x", weights=apart)
    assert replays.read(json.loads(json.dumps(kept.model_dump(mode="json")))) == kept


@pytest.mark.parametrize("kinds", [("features",), ("features", "study"), ("features", "adapter")])
def test_an_adapter_is_made_again_with_its_study_and_without_one(kinds: tuple[str, ...]) -> None:
    parents = tuple(Ref(kind=kind, name="help", digest="0" * 16) for kind in kinds)
    made = Artifact(ref=Ref(kind="adapter", name="help", digest="1" * 16), parents=parents, run_key="2" * 16)
    assert replaying.stage_of(made).reads == tuple(kind for kind in kinds if kind != "adapter")
