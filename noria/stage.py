"""Stage and its runner: keyed by content, recorded in the ledger, resumable after a kill at any point."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from noria import __version__
from noria.errors import Unavailable
from noria.ports import Platform, Progress
from noria.settings import TaskSettings
from noria.types import Artifact, Ref, Run, digest_of


@dataclass(frozen=True, slots=True)
class Look:
    """What a stage may look at before it runs: the platform, the task, and what its inputs are."""

    platform: Platform
    name: str
    task: TaskSettings
    inputs: Mapping[str, Artifact]


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage's work is given. It writes its product into `out` and returns what it measured on the way."""

    platform: Platform
    name: str
    """Name of the task."""
    task: TaskSettings
    cycle: str
    inputs: Mapping[str, Artifact]
    observed: JsonValue
    """The mutable state that `Stage.observes` read, once, before the run key was made."""
    out: Path
    progress: Progress

    def folder(self, stage: str) -> Path:
        """Folder of what the named input stage made."""
        return self.platform.lake.path(self.inputs[stage].ref)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a cycle, named after its product; `reads` names the stages whose products it takes.

    `params` picks the settings that change the product, `observes` the mutable state that does; both are part of
    the run key. A stage with an `effect` is run every time. `version` changes when the work's meaning does. One that
    stands only in some tasks' cycles says so by `when`; `stages_of` leaves it, and the reading of it, out of others.
    """

    name: str
    work: Callable[[Work], Mapping[str, JsonValue]]
    reads: tuple[str, ...] = ()
    params: Callable[[Look], JsonValue] = field(default=lambda look: None)
    observes: Callable[[Look], JsonValue] = field(default=lambda look: None)
    version: str = "1"
    effect: bool = False
    when: Callable[[TaskSettings], bool] = field(default=lambda task: True)


@dataclass(frozen=True, slots=True)
class Step:
    """What happened to one stage in one cycle."""

    stage: str
    artifact: Artifact
    seconds: float
    skipped: bool


ATTEMPTS = 3
"""A stage whose helper process was killed is started again, this often in all."""


def check_order(stages: Sequence[Stage]) -> None:
    """Raise ValueError when a stage reads one that does not stand before it."""
    seen: set[str] = set()
    for stage in stages:
        if missing := set(stage.reads) - seen:
            raise ValueError(f"stage '{stage.name}' reads {sorted(missing)}, which do not stand before it")
        seen.add(stage.name)


def stages_of(stages: Sequence[Stage], task: TaskSettings) -> tuple[Stage, ...]:
    """The stages of a task's cycle, each reading what there is."""
    names = {stage.name for stage in stages if stage.when(task)}
    return tuple(
        replace(stage, reads=tuple(read for read in stage.reads if read in names))
        for stage in stages
        if stage.name in names
    )


def run_key(stage: Stage, params: JsonValue, inputs: Mapping[str, Artifact], observed: JsonValue) -> str:
    """Digest of all that a stage's product depends on; two runs with the same key make the same product."""
    return digest_of(
        {
            "stage": stage.name,
            "version": stage.version,
            "code": __version__,
            "params": params,
            "inputs": {name: str(inputs[name].ref) for name in stage.reads},
            "observed": observed,
        }
    )


def run_stage(
    stage: Stage,
    platform: Platform,
    name: str,
    task: TaskSettings,
    cycle: str,
    done: Mapping[str, Artifact],
    progress: Progress,
    before: Artifact | None = None,
) -> Step:
    """Run one stage, or take the product of the finished run with the same key.

    `before` is what this very cycle made of the stage before it was killed: what was observed then is taken again,
    or a cycle on a busy system would begin anew with every restart.
    """
    inputs = {read: done[read] for read in stage.reads}
    look = Look(platform, name, task, inputs)
    params = stage.params(look)
    if before is not None and not stage.effect:
        observed = before.meta.get("observed")
        if run_key(stage, params, inputs, observed) == before.run_key and platform.lake.has(before.ref):
            return Step(stage.name, before, 0.0, skipped=True)
    observed = stage.observes(look)
    key = run_key(stage, params, inputs, observed)
    found = None if stage.effect else platform.runs.find(key)
    if found is not None and platform.lake.has(found.ref):
        _record(stage, platform, name, cycle, found, 0.0)
        return Step(stage.name, found, 0.0, skipped=True)
    began = time.monotonic()
    scratch = platform.lake.scratch(f"{cycle}-{key}")
    work = Work(platform, name, task, cycle, inputs, observed, scratch, progress)
    try:
        meta = {**_attempt(stage, work), "observed": observed}
        ref = platform.lake.commit(scratch, stage.name, name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    artifact = Artifact(ref=ref, parents=_parents(stage, inputs, meta), run_key=key, meta=meta)
    seconds = time.monotonic() - began
    _record(stage, platform, name, cycle, artifact, seconds)
    return Step(stage.name, artifact, seconds, skipped=False)


def _record(stage: Stage, platform: Platform, name: str, cycle: str, artifact: Artifact, seconds: float) -> None:
    run = Run(
        key=artifact.run_key,
        stage=stage.name,
        task=name,
        cycle=cycle,
        output=artifact.ref,
        seconds=round(seconds, 3),
        peak_mb=_peak_mb(),
        at=platform.clock.now(),
    )
    platform.runs.record(run, artifact)


def _attempt(stage: Stage, work: Work) -> Mapping[str, JsonValue]:
    for attempt in range(1, ATTEMPTS):
        try:
            return stage.work(work)
        except Unavailable as error:
            work.progress.update(stage.name, 0, 1, f"{error.fact}; trying again ({attempt})")
            # The folder itself stays: it is claimed for this process.
            for left in work.out.iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            time.sleep(0.5 * attempt)
    return stage.work(work)


def _parents(stage: Stage, inputs: Mapping[str, Artifact], meta: Mapping[str, JsonValue]) -> tuple[Ref, ...]:
    refs = [inputs[read].ref for read in stage.reads]
    more = meta.get("parents", [])
    if isinstance(more, list):
        refs += [Ref.parse(str(text)) for text in more]
    return tuple(refs)


def _peak_mb() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(max(own, children) / 1024, 1)
