"""Candidates and records of a trial, and a project whose engines answer from tables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from noria import prompts
from noria.apps import start
from noria.backends.fake import ADAPTER_FILE, FakeClock, FakeEngines
from noria.deployment.slices import Trial
from noria.ports import Platform
from noria.traffic.segments import SegmentWriter
from noria.types import Candidate, Decision, Deployment, Feedback, Interaction, Ref, new_id
from noria.wiring import open_project

START = datetime(2025, 1, 1, tzinfo=UTC)
QUESTION = "How long does delivery take?"
OLD, NEW = "About a week.", "Three working days."


def candidate(letter: str) -> Candidate:
    """One by its adapter; nothing of it exists anywhere."""
    return Candidate(
        task="helpdesk", base=Ref(kind="base", name="tiny", digest="0" * 16),
        adapter=Ref(kind="adapter", name="helpdesk", digest=letter * 16), engine="local", quantization="F32",
        prompt="1" * 16,
    )  # fmt: skip


def decision(because: str = "better") -> Decision:
    return Decision(verdict="promote", because=because, evidence={"margin": 0.02})


TRIAL = Trial("trial", START, True, candidate("b"), candidate("a"))


def answered(number: int, new: bool, trial: Trial = TRIAL, **more: object) -> Interaction:
    """An answer in either slice, `number` seconds after the start."""
    at = START + timedelta(seconds=number)
    found = Interaction(
        id=new_id(at), at=at, task="helpdesk", arm="challenger" if new else "control",
        served_by=str((trial.challenger if new else trial.control).ref), user=f"user-{number}-{new}",
        conversation=f"{number}-{new}", messages=({"role": "user", "content": QUESTION},), context=None,
        answer=NEW if new else OLD, finish_reason="stop", status=200, error=None, stream=False, prompt_tokens=1,
        completion_tokens=1, first_token_seconds=None, seconds=0.1, trainable=True,
    )  # fmt: skip
    return found.model_copy(update=more)


def said(
    of: Interaction, value: float | None, after: float = 1.0, metric: str = "thumbs", correction: str | None = None
) -> Feedback:
    at = of.at + timedelta(seconds=of.seconds + after)
    return Feedback(
        id=new_id(at), at=at, interaction=of.id, metric=metric, value=value, correction=correction, user=of.user
    )


def log(platform: Platform, records: Iterable[Interaction | Feedback]) -> None:
    with SegmentWriter(platform.settings.state / "segments") as writer:
        for each in records:
            writer.append(each.model_dump_json().encode())


def make(folder: Path, release: str) -> Path:
    """The project of `noria init` with an engine of tables, on free ports, with this table [tasks.helpdesk.release]."""
    start.make(folder)
    file = folder / "noria.toml"
    text = file.read_text().replace('kind = "llamacpp"', 'kind = "fake"').replace("context = { source", "# { source")
    text = text.replace('spark = "embedded"', 'spark = "embedded"\nlisten = "127.0.0.1:0"\ncontrol = "127.0.0.1:0"')
    file.write_text(f"{text}\n[tasks.helpdesk.release]\n{release}\n")
    return folder


def opened(folder: Path) -> tuple[Platform, FakeClock]:
    """Its platform without the engine's entry point, and with a clock that stands still."""
    file = folder / "noria.toml"
    file.write_text(file.read_text().replace('kind = "fake"', 'kind = "llamacpp"'))
    clock = FakeClock(START)
    return replace(open_project(folder), clock=clock, engines={"llamacpp": FakeEngines()}), clock


def learned(platform: Platform, answer: str) -> Candidate:
    """A candidate whose adapter gives this answer, as a cycle would leave it in the lake."""
    folder = platform.lake.scratch("learned")
    (folder / ADAPTER_FILE).write_text(json.dumps({QUESTION: answer}))
    task = platform.settings.tasks["helpdesk"]
    engine = platform.settings.engines[task.engine]
    base, quantization = platform.engines[engine.kind].base(engine)
    return Candidate(
        task="helpdesk", base=base, adapter=platform.lake.commit(folder, "adapter", "helpdesk"), engine=task.engine,
        quantization=quantization, prompt=prompts.definition(task.system),
    )  # fmt: skip


def serving(platform: Platform, champion: Candidate) -> Deployment:
    """Make a candidate the champion without asking anybody."""
    new = Deployment(
        task="helpdesk", version=1, champion=champion, previous=champion.model_copy(update={"adapter": None}),
        decision=decision("the first"), cycle="one", actor="cycle", at=platform.clock.now(),
    )  # fmt: skip
    platform.deployments.swap(new)
    return new
