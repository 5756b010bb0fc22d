"""Cycles by hand: an adapter with its data set, features and report, as a turn of the wheel leaves them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file
from trial_fakes import QUESTION, make, opened

from noria import environment, prompts
from noria.backends.fake import ADAPTER_FILE, FakeClock
from noria.backends.fake_registry import FakeRegistry
from noria.ports import Platform
from noria.types import (
    Artifact,
    Candidate,
    Cycle,
    Decision,
    Deployment,
    Interval,
    Ref,
    Report,
    RowScore,
    Run,
    digest_of,
    new_id,
)

RELEASE = "canary = 0.1\ncontrol = 0.05\nbudget = 600\ndays = 7"


def project(folder: Path, more: str = "") -> tuple[Platform, FakeRegistry]:
    """The project of `noria init` on tables for engines, with a registry in memory."""
    make(folder, RELEASE)
    if more:
        file = folder / "noria.toml"
        file.write_text(f"{file.read_text()}\n{more}\n")
    registry = FakeRegistry()
    return replace(opened(folder)[0], registry=registry), registry


class Turns:
    """Makes cycles of the task helpdesk; each gives another answer to the one question."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.number = 0
        task = platform.settings.tasks["helpdesk"]
        engine = platform.settings.engines[task.engine]
        self.base, self.quantization = platform.engines[engine.kind].base(engine)
        self.prompt = prompts.definition(task.system)

    def put(self, cycle: Cycle, kind: str, files: dict[str, Any], parents: tuple[Ref, ...], **meta: Any) -> Ref:
        out = self.platform.lake.scratch(kind)
        for name, content in files.items():
            if isinstance(content, pa.Table):
                pq.write_table(content, out / name)
            elif isinstance(content, dict) and name.endswith(".safetensors"):
                save_file(content, out / name)
            else:
                (out / name).write_text(content)
        ref = self.platform.lake.commit(out, kind, "helpdesk")
        self.record(cycle, kind, ref, parents, **meta)
        return ref

    def record(self, cycle: Cycle, stage: str, ref: Ref, parents: tuple[Ref, ...], **meta: Any) -> None:
        key = digest_of({"stage": stage, "ref": str(ref)})
        run = Run(key=key, stage=stage, task="helpdesk", cycle=cycle.id, output=ref, seconds=1.0, peak_mb=1.0,
                  at=self.platform.clock.now())  # fmt: skip
        self.platform.runs.record(run, Artifact(ref=ref, parents=parents, run_key=key, meta=meta))

    def turn(self, verdict: str = "promote", *, scale: float = 1.0) -> Candidate:
        """One cycle to its end; what serves is not changed."""
        self.number += 1
        clock = self.platform.clock
        assert isinstance(clock, FakeClock)
        clock.advance(3600)
        cycle = Cycle(id=new_id(clock.now()), task="helpdesk", began=clock.now())
        self.platform.runs.save(cycle)
        rows = pa.table({"id": [f"e{self.number}"], "origin": ["source:faq"], "conversation": ["c"], "target": ["x"],
                         "messages": ['[{"role": "user", "content": "q"}]'], "document": [""]})  # fmt: skip
        card = {"rows": {"train": 1, "test": 1}, "languages": {"en": 2}, "personal_data": {"email": 2},
                "sources": [{"source": "faq", "kind": "html", "licence": "cc-by-4.0"}]}  # fmt: skip
        dataset = self.put(cycle, "dataset", {"train.parquet": rows, "card.json": json.dumps(card)}, ())
        features = self.put(
            cycle, "features", {"features.parquet": pa.table({"id": [f"e{self.number}"], "tokens": [3]})}, (dataset,)
        )
        probes = [{"prefix": [1, 2], "token": 3, "logprob": -0.5}, {"prefix": [4], "token": 5, "logprob": -0.25}]
        adapter = self.put(
            cycle, "adapter",
            {
                ADAPTER_FILE: json.dumps({QUESTION: f"Answer {self.number}."}),
                "adapter_model.safetensors": {"a": np.full((2, 2), scale * self.number, np.float32)},
                "adapter_config.json": "{}", "probes.json": json.dumps(probes),
                "loss.json": json.dumps({"steps": [1, 2], "loss": [2.0, 1.0]}),
            },
            (features,), recipe={"kind": "lora", "rank": 4}, environment=environment.recorded(), seconds=12.5,
            losses=[2.0, 1.0], first_loss=2.0, last_loss=1.0, observed=None,
        )  # fmt: skip
        candidate = Candidate(
            task="helpdesk", base=self.base, adapter=adapter, engine="local", quantization=self.quantization,
            prompt=self.prompt,
        )  # fmt: skip
        report = Report(
            candidate=candidate, champion=candidate.model_copy(update={"adapter": None}),
            intervals={"all": {"token_f1": interval(0.5, 0.7)}, "general": {"token_f1": interval(0.8, 0.6)}},
            rows=(score(),), checks={"parity": 1.0},
        )  # fmt: skip
        made = self.put(cycle, "report", {"report.json": report.model_dump_json()}, (dataset, adapter),
                        candidate=str(candidate.ref))  # fmt: skip
        told = Decision(verdict=verdict, because=f"turn {self.number}", evidence={})
        self.put(cycle, "release", {"decision.json": told.model_dump_json()}, (made,), **told.model_dump(mode="json"))
        self.platform.runs.save(cycle.model_copy(update={"ended": clock.now() + timedelta(minutes=1)}))
        return candidate

    def serve(self, champion: Candidate | None, challenger: Candidate | None = None, **more: Any) -> Deployment:
        """Another release."""
        live = self.platform.deployments.current("helpdesk")
        new = Deployment(
            task="helpdesk", version=(live.version if live else 0) + 1, champion=champion,
            previous=live.champion if live else None, challenger=challenger,
            decision=Decision(verdict="promote", because="by hand", evidence={}), cycle="", actor="test",
            at=self.platform.clock.now(), **more,
        )  # fmt: skip
        self.platform.deployments.swap(new)
        return new


def interval(before: float, after: float) -> Interval:
    gain = after - before
    return Interval(name="token_f1", before=before, after=after, gain=gain, low=gain - 0.1, high=gain + 0.1, rows=40,
                    before_bounds=(before - 0.1, before + 0.1), after_bounds=(after - 0.1, after + 0.1))  # fmt: skip


def score() -> RowScore:
    return RowScore(id="0" * 16, slice="task", conversation="c", question="q", target="t", champion="a", candidate="b",
                    before={"token_f1": 0.5}, after={"token_f1": 0.7})  # fmt: skip
