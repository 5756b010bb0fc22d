"""A project whose stage `study` runs on real studies, lake and settings; its trainer computes a loss in no time.

As a script, `python study_bench.py FOLDER LEDGER PAUSE MODE`, it is a process of its own: PAUSE is the seconds between
two measurements of a trial, MODE `work` runs the stage and `help` carries out trials until none is left.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from noria.backends import study_plots
from noria.backends.fake import FakeEngines
from noria.backends.folder_lake import FolderLake
from noria.backends.optuna_search import OptunaStudies
from noria.errors import Invalid
from noria.ports import Platform, Progress
from noria.settings import LowRankRecipe, Settings, WeightRecipe, load
from noria.stage import Look, Work
from noria.training import adapter, study
from noria.training.study import Means
from noria.types import Artifact, Ref, TrainingJob

SPACE = "space = { learning_rate = { low = 1e-5, high = 1e-2, log = true }, rank = [4, 8, 16] }"
TOML = """
[project]
name = "shop"
[engines.local]
kind = "fake"
model = "fake"
[[sources]]
name = "faq"
kind = "csv"
path = "faq.csv"
[tasks.help]
sources = ["faq"]
base = "fake"
engine = "local"
recipe = {recipe}
[tasks.help.tune]
{tune}
"""
RECIPE = '{ kind = "lora", learning_rate = 1e-4, rank = 4 }'
MEASURED = 10


class Quiet:
    """Port `Progress` that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, float, str]] = []

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        self.told.append((label, done, total, note))


@dataclass
class QuickTrainer:
    """Port `Trainer` whose loss falls towards a value that rate and rank decide."""

    pause: float = 0.0
    jobs: list[TrainingJob] = field(default_factory=list)
    fails: str = ""
    interrupted: bool = False

    def tokenizer(self, model: Path) -> Path:
        return model

    def check(self, model: Path, recipe: WeightRecipe) -> None:
        pass

    def train(self, job: TrainingJob, progress: Progress) -> dict[str, JsonValue]:
        self.jobs.append(job)
        if self.interrupted:
            raise KeyboardInterrupt
        if self.fails:
            raise Invalid(self.fails)
        assert isinstance(job.recipe, LowRankRecipe)
        least = 1 + abs(math.log10(job.recipe.learning_rate / 1e-3)) + 0.1 * (job.recipe.rank != 8)
        curve: list[float] = []
        for tenth in range(1, MEASURED + 1):
            time.sleep(self.pause)
            curve.append(least + 1 / tenth)
            step = -(-tenth * len(job.plan) // MEASURED)
            if job.validation and job.stop is not None and job.stop(step, curve[-1]):
                break
        (job.out / "adapter.gguf").write_text(f"{least}")
        found: dict[str, JsonValue] = {"joules": 36.0, "losses": [2.0, 1.0]}
        if job.validation:
            found |= {"validation": [[n, loss] for n, loss in enumerate(curve, 1)], "validation_loss": min(curve)}
        return found


@dataclass
class Shown:
    """Port `Tracking` that remembers."""

    runs: list[tuple[str, Mapping[str, JsonValue], str | None, list[str]]] = field(default_factory=list)

    def log(
        self, experiment: str, name: str, run: Mapping[str, JsonValue], curves: Mapping[str, Sequence[float]],
        files: Sequence[Path], parent: str | None = None,
    ) -> str:  # fmt: skip
        self.runs.append((name, run, parent, [file.name for file in files]))
        return f"run {len(self.runs)}"


@dataclass
class Bench:
    """The project; `work` is the stage's, as often as wanted."""

    root: Path
    ledger: str = "sqlite:///noria.db"
    tune: str = f"trials = 6\n{SPACE}"
    recipe: str = RECIPE
    rows: int = 24
    pause: float = 0.0
    heartbeat: tuple[int, int] = (1, 3)
    score: float = 0.5

    def __post_init__(self) -> None:
        self.trainer = QuickTrainer(self.pause)
        self.tracking = Shown()
        self.progress = Quiet()
        self.scored: list[Sequence[str]] = []
        file = self.root / "noria.toml"
        if not file.exists():
            file.write_text(TOML.replace("{recipe}", self.recipe).replace("{tune}", self.tune))
        self.settings: Settings = load(file)
        self.lake = FolderLake(self.root / "lake")
        beat, grace = self.heartbeat
        self.studies = OptunaStudies(self.ledger, self.root, heartbeat=beat, grace=grace)
        self.inputs = {"dataset": self._dataset(), "features": self._features()}

    @property
    def platform(self) -> Platform:
        used = {
            "settings": self.settings, "lake": self.lake, "trainer": self.trainer, "tracking": self.tracking,
            "studies": self.studies, "engines": {"fake": FakeEngines()}, "model": Path,
        }  # fmt: skip
        parts: dict[str, Any] = {part.name: used.get(part.name) for part in fields(Platform)}
        return Platform(**parts)

    @property
    def means(self) -> Means:
        def score(work: Work, ref: Ref, ids: Sequence[str], metric: str) -> float:
            self.scored.append(ids)
            assert (work.platform.lake.path(ref) / "adapter.gguf").is_file()
            return self.score

        return Means(adapter.afresh, score, lambda metric: True, study_plots.draw, lambda: True)

    def look(self) -> Look:
        return Look(self.platform, "help", self.settings.tasks["help"], self.inputs)

    def prepared(self) -> Work:
        """The stage's work, in a scratch folder of its own."""
        look = self.look()
        out = self.lake.scratch(f"study-{time.monotonic_ns()}")
        return Work(look.platform, "help", look.task, "cycle-1", self.inputs, study.observes(look), out, self.progress)

    def run(self) -> tuple[Mapping[str, Any], Ref]:
        """The stage once: what it measured and what it made."""
        work = self.prepared()
        meta = study.work(work, self.means)
        return meta, self.lake.commit(work.out, "study", "help")

    def made(self, ref: Ref, file: str) -> Any:
        return json.loads((self.lake.path(ref) / file).read_text())

    def _dataset(self) -> Artifact:
        rows = [{"id": f"{n:016x}", "conversation": f"talk {n // 2}"} for n in range(self.rows)]
        return self._kept("dataset", "train.parquet", pa.Table.from_pylist(rows))

    def _features(self) -> Artifact:
        rows = [{"id": f"{n:016x}", "tokens": 20, "origin": "source:faq"} for n in range(self.rows)]
        return self._kept("features", "features.parquet", pa.Table.from_pylist(rows))

    def _kept(self, kind: str, file: str, table: pa.Table) -> Artifact:
        folder = self.lake.scratch(f"{kind}-{time.monotonic_ns()}")
        pq.write_table(table, folder / file)
        ref = self.lake.commit(folder, kind, "help")
        parents = () if kind == "dataset" else (self.lake_ref("dataset"),)
        return Artifact(ref=ref, parents=parents, run_key="0" * 16)

    def lake_ref(self, kind: str) -> Ref:
        [folder] = (self.root / "lake" / kind / "help").iterdir()
        return Ref(kind=kind, name="help", digest=folder.name)


def main(folder: str, ledger: str, pause: str, mode: str) -> None:
    bench = Bench(Path(folder), ledger, pause=float(pause))
    work = bench.prepared()
    if mode == "work":
        sys.stdout.write(json.dumps(dict(study.work(work, bench.means))) + "\n")
    else:
        made = study.carry_out(work, bench.studies.open(study.name_of(work)), bench.means)
        sys.stdout.write(json.dumps({"made": made}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
