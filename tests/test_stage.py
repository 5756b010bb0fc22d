"""The stage runner: what is part of the key, what is skipped, and what survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import JsonValue

from noria.backends import ledger
from noria.backends.clock import SystemClock
from noria.backends.folder_lake import FolderLake
from noria.errors import Unavailable
from noria.ports import Platform
from noria.settings import TaskSettings
from noria.stage import Look, Stage, Step, Work, check_order, run_key, run_stage
from noria.types import Artifact

TASK = TaskSettings(sources=("faq",), base="tiny", engine="local")


@dataclass
class Told:
    lines: list[str] = field(default_factory=list)

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        self.lines.append(note)


@dataclass
class Bench:
    """A ledger and a lake in a folder, and a world that stages may observe."""

    platform: Platform
    world: dict[str, JsonValue] = field(default_factory=lambda: {"day": 1})
    worked: list[str] = field(default_factory=list)
    told: Told = field(default_factory=Told)

    def stage(self, name: str, **changes: Any) -> Stage:
        def work(work: Work) -> Mapping[str, JsonValue]:
            self.worked.append(name)
            (work.out / "product").write_text(f"{name} {work.observed}")
            return {"measured": len(self.worked)}

        return replace(Stage(name, work), **changes)

    def run(self, stage: Stage, done: Mapping[str, Artifact] | None = None, before: Artifact | None = None) -> Step:
        return run_stage(stage, self.platform, "helpdesk", TASK, "cycle", done or {}, self.told, before)

    def sees_day(self, look: Look) -> JsonValue:
        return self.world["day"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    database = ledger.open_engine("sqlite:///noria.db", tmp_path)
    unused = cast(Any, None)
    return Bench(
        Platform(
            settings=unused, clock=SystemClock(), lake=FolderLake(tmp_path / "lake"), runs=ledger.SqlRuns(database),
            deployments=unused, keys=unused, engines={}, model=unused, tokenizer=unused, trainer=unused,
            heads=unused, tracking=unused, registry=unused, indexes=unused, traffic=unused, draw=unused, spark=unused,
            features=unused, studies=unused, alerts=unused,
        )
    )  # fmt: skip


def test_a_finished_stage_is_not_run_again(bench: Bench) -> None:
    first, second = bench.run(bench.stage("sources")), bench.run(bench.stage("sources"))
    assert (first.skipped, second.skipped) == (False, True)
    assert first.artifact.ref == second.artifact.ref
    assert bench.worked == ["sources"]


CHANGES: dict[str, dict[str, Any]] = {
    "version": {"version": "2"},
    "params": {"params": lambda look: {"rank": 8}},
    "observed state": {"observes": lambda look: 2},
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_part_of_the_key_counts(bench: Bench, change: str) -> None:
    bench.run(bench.stage("sources"))
    assert not bench.run(bench.stage("sources", **CHANGES[change])).skipped


def test_another_input_is_another_run(bench: Bench) -> None:
    day = bench.stage("sources", observes=bench.sees_day)
    reader = bench.stage("documents", reads=("sources",))
    bench.run(reader, {"sources": bench.run(day).artifact})
    bench.world["day"] = 2
    assert not bench.run(reader, {"sources": bench.run(day).artifact}).skipped


def test_an_effect_is_never_skipped(bench: Bench) -> None:
    release = bench.stage("release", effect=True)
    assert not bench.run(release).skipped
    assert not bench.run(release).skipped


def test_a_killed_cycle_goes_on_with_what_it_had_observed(bench: Bench) -> None:
    day = bench.stage("sources", observes=bench.sees_day)
    made = bench.run(day).artifact
    bench.world["day"] = 2
    assert bench.run(day, before=made).artifact.ref == made.ref
    assert bench.run(day).artifact.ref != made.ref


def test_a_product_that_was_removed_is_made_again(bench: Bench, tmp_path: Path) -> None:
    made = bench.run(bench.stage("sources")).artifact
    folder = bench.platform.lake.path(made.ref)
    (folder / "product").unlink()
    folder.rmdir()
    assert not bench.run(bench.stage("sources")).skipped


def test_a_failed_stage_leaves_nothing_behind(bench: Bench, tmp_path: Path) -> None:
    def fails(work: Work) -> Mapping[str, JsonValue]:
        (work.out / "half").write_text("written")
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        bench.run(bench.stage("sources", work=fails))
    assert [path for path in (tmp_path / "lake").rglob("*") if path.is_file()] == []


def test_a_helper_that_was_killed_is_started_again(bench: Bench) -> None:
    def flaky(fails: int) -> Callable[[Work], Mapping[str, JsonValue]]:
        def work(work: Work) -> Mapping[str, JsonValue]:
            bench.worked.append("try")
            assert list(work.out.iterdir()) == []
            (work.out / "product").write_text("x")
            if len(bench.worked) <= fails:
                raise Unavailable("the trainer was killed")
            return {}

        return work

    bench.run(bench.stage("adapter", work=flaky(1)))
    assert bench.worked == ["try", "try"]
    assert "the trainer was killed" in bench.told.lines[0]


def test_parents_are_inputs_and_what_the_work_names(bench: Bench) -> None:
    source = bench.run(bench.stage("sources")).artifact

    def work(work: Work) -> Mapping[str, JsonValue]:
        (work.out / "product").write_text("y")
        return {"parents": [str(source.ref)]}

    made = bench.run(bench.stage("documents", reads=("sources",), work=work), {"sources": source}).artifact
    assert made.parents == (source.ref, source.ref)
    assert bench.platform.runs.artifact(made.ref) == made


def test_the_key_does_not_depend_on_the_order_of_settings(bench: Bench) -> None:
    stage = bench.stage("sources")
    assert run_key(stage, {"a": 1, "b": 2}, {}, None) == run_key(stage, {"b": 2, "a": 1}, {}, None)


def test_a_stage_must_stand_after_what_it_reads(bench: Bench) -> None:
    with pytest.raises(ValueError, match="documents"):
        check_order([bench.stage("dataset", reads=("documents",)), bench.stage("documents")])
