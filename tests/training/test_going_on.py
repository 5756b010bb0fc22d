"""What an adapter goes on from, and what it counts as learned, when rows and preference pairs take turns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from study_bench import Bench

from noria.backends.fake import FakeClock
from noria.backends.ledger import SqlDeployments, SqlRuns, open_engine
from noria.settings import DpoRecipe, LoraRecipe, QloraRecipe, Recipe
from noria.stage import Look, Work
from noria.training import adapter, weights
from noria.training.base import base_of
from noria.types import Artifact, Candidate, Decision, Deployment, Ref, Run


@dataclass
class Turns:
    """A task that learned its rows, and whose champion is what a turn made."""

    bench: Bench
    runs: SqlRuns
    deployments: SqlDeployments

    def look(self, recipe: Recipe) -> Look:
        bench = self.bench
        task = bench.settings.tasks["help"].model_copy(update={"recipe": recipe, "tune": None})
        platform = replace(bench.platform, runs=self.runs, deployments=self.deployments)
        return Look(platform, "help", task, bench.inputs)

    def made(self, recipe: Recipe, start: Ref | None = None) -> Ref:
        """An adapter that this recipe made of the features; it is the champion from now on."""
        out = self.bench.lake.scratch(f"adapter-{recipe.kind}")
        (out / "adapter.gguf").write_text(f"{recipe.kind} {start}")
        ref = self.bench.lake.commit(out, "adapter", "help")
        meta = {"recipe": recipe.model_dump(mode="json"), "start": str(start) if start else None}
        parents = (self.bench.inputs["features"].ref, *([start] if start else []))
        key, at = ref.digest, FakeClock().now()
        run = Run(key=key, stage="adapter", task="help", cycle="one", output=ref, seconds=0.0, peak_mb=0.0, at=at)
        self.runs.record(run, Artifact(ref=ref, parents=parents, run_key=key, meta=meta))
        base = base_of(self.look(recipe))[0]
        champion = Candidate(task="help", base=base, adapter=ref, engine="local", quantization="q", prompt="0" * 16)
        live = self.deployments.current("help")
        self.deployments.swap(
            Deployment(
                task="help", version=live.version + 1 if live else 1, champion=champion, previous=None,
                decision=Decision(verdict="promote", because="first", evidence={}), cycle="one", actor="test", at=at,
            )
        )  # fmt: skip
        return ref

    def pairs(self, texts: Sequence[str]) -> None:
        """Another data set with the same features."""
        out = self.bench.lake.scratch("pairs")
        pq.write_table(pa.table({"chosen": list(texts)}), out / "pairs.parquet")
        ref = self.bench.lake.commit(out, "dataset", "help")
        features = self.bench.inputs["features"]
        self.bench.inputs["features"] = features.model_copy(update={"parents": (ref,)})


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[Turns]:
    engine = open_engine("sqlite:///ledger.db", tmp_path)
    yield Turns(Bench(tmp_path), SqlRuns(engine), SqlDeployments(engine))
    engine.dispose()


def test_pairs_are_learned_on_top_of_the_rows_champion(turns: Turns) -> None:
    rows = turns.made(LoraRecipe())
    assert adapter.observes(turns.look(LoraRecipe())) is None, "the same again"
    assert adapter.observes(turns.look(QloraRecipe())) is None
    assert adapter.observes(turns.look(DpoRecipe())) == str(rows)
    pairs = turns.made(DpoRecipe(), rows)
    assert adapter.observes(turns.look(DpoRecipe())) == str(rows), "the same again"
    assert adapter.observes(turns.look(LoraRecipe())) == str(pairs)


def test_another_pair_asks_for_another_adapter(turns: Turns) -> None:
    def keys(*texts: str) -> list[str]:
        turns.pairs(texts)
        return [json.dumps(adapter.params(turns.look(recipe))) for recipe in (DpoRecipe(), LoraRecipe())]

    one, two, again = keys("yes"), keys("yes", "no"), keys("yes")
    assert one == again
    assert (one[0] != two[0], one[1] == two[1]) == (True, True)


def test_who_learned_pairs_has_not_learned_the_rows(turns: Turns, tmp_path: Path) -> None:
    def seen(ref: Ref) -> int:
        look = turns.look(LoraRecipe())
        work = Work(look.platform, "help", look.task, "two", look.inputs, None, tmp_path, turns.bench.progress)
        return len(weights._seen(work, ref))

    assert seen(turns.made(DpoRecipe())) == 0
    rows = turns.made(LoraRecipe())
    assert seen(turns.made(DpoRecipe(), rows)) == seen(rows) == 24
