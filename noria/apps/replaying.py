"""`noria replay`: an adapter's run made again from its recorded inputs, and compared with what it made."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from noria import cycle, environment
from noria.adapters import FORGOTTEN
from noria.backends import weights
from noria.backends.folder_lake import content_digest
from noria.errors import Conflict, Invalid, NotFound
from noria.ports import Platform, Progress, Untracked
from noria.registry import candidates, versions
from noria.replays import KEY, Replay
from noria.settings import Recipe, TaskSettings
from noria.stage import Look, Stage, Work, run_key
from noria.types import Artifact, Ref, Run, digest_of


def replay(platform: Platform, text: str, progress: Progress) -> tuple[Artifact, Replay]:
    """Make the run again that made an adapter, and keep in the ledger how far the two lie apart.

    `text` names the adapter, a candidate that has it, the key of its run, or its cycle. It is made in a folder of its
    own that is removed again; nothing of what serves or was measured changes.

    Raises NotFound for what is not known, Conflict where an input is gone or was changed since, or where other settings
    or another version of noria would make something else.
    """
    made = named(platform, text)
    stage = stage_of(made)
    name = made.ref.name
    original = platform.lake.verified(made.ref)
    task, inputs = _task(platform, name, made), _inputs(platform, stage, made)
    _check_key(platform, stage, made, task, inputs)
    scratch = platform.lake.scratch(f"replay-{made.ref.digest}")
    alone = replace(platform, tracking=Untracked())
    observed = made.meta.get("observed")
    try:
        work = Work(alone, name, task, f"replay-{made.ref.digest}", inputs, observed, scratch, progress)
        stage.work(work)
        found = _compared(platform, made, original, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _keep(platform, made, found)
    versions.best_effort(platform, name, lambda line: progress.update("registry", 0, 1, line), whole=True)
    return made, found


def stage_of(made: Artifact) -> Stage:
    """The stage `adapter` as it was in the cycle that made this one: with a study where there was one."""
    stage = next(each for each in cycle.STAGES if each.name == "adapter")
    studied = any(parent.kind == "study" for parent in made.parents)
    return stage if studied else replace(stage, reads=tuple(read for read in stage.reads if read != "study"))


def named(platform: Platform, text: str) -> Artifact:
    """The adapter that a person named; raises NotFound, Invalid."""
    kind = text.partition(":")[0]
    ref = _ref(text) if kind in ("adapter", "candidate") else None
    if ref is not None and ref.kind == "candidate":
        adapter = candidates.find(platform, platform.settings.task(ref.name)[0], text).candidate.adapter
        if adapter is None:
            raise Invalid(f"'{text}' is the base: nothing was trained", "name a candidate with an adapter")
        ref = adapter
    made = platform.runs.artifact(ref) if ref is not None else platform.runs.find(text) or _of_cycle(platform, text)
    if made is None or made.ref.kind != "adapter":
        raise NotFound(f"there is no run '{text}' that made an adapter", "list candidates: noria registry list TASK")
    if "candidate" in made.meta and made.meta.get("observed") is None and not made.parents:
        raise Invalid(f"'{made.ref}' was brought in from '{made.meta.get('origin')}'", "replay it where it was made")
    return made


def _ref(text: str) -> Ref:
    try:
        return Ref.parse(text)
    except ValueError as error:
        raise Invalid(str(error), "such as adapter:helpdesk@0123456789abcdef") from error


def _of_cycle(platform: Platform, text: str) -> Artifact | None:
    for here, runs in platform.runs.cycles(None, cycle.CYCLES):
        if here.id == text:
            return next((platform.runs.artifact(run.output) for run in runs if run.stage == "adapter"), None)
    return None


def _task(platform: Platform, name: str, made: Artifact) -> TaskSettings:
    """The task with the recipe that the adapter was made by, whatever the settings say by now."""
    _, task = platform.settings.task(name)
    recorded = made.meta.get("recipe")
    if not isinstance(recorded, dict):
        return task
    return task.model_copy(update={"recipe": TypeAdapter(Recipe).validate_python(recorded)})


def _inputs(platform: Platform, stage: Stage, made: Artifact) -> dict[str, Artifact]:
    inputs: dict[str, Artifact] = {}
    for read in stage.reads:
        ref = next((parent for parent in made.parents if parent.kind == read), None)
        found = platform.runs.artifact(ref) if ref is not None else None
        if ref is None or found is None or not platform.lake.has(ref):
            raise Conflict(f"the {read} that '{made.ref}' was made from are gone", "nothing can be made again of them")
        if (platform.lake.path(ref) / FORGOTTEN).exists():
            raise Conflict(f"rows were taken out of '{ref}' since", "it cannot be made again as it was")
        inputs[read] = found
    return inputs


def _check_key(
    platform: Platform, stage: Stage, made: Artifact, task: TaskSettings, inputs: dict[str, Artifact]
) -> None:
    params = stage.params(Look(platform, made.ref.name, task, inputs))
    if run_key(stage, params, inputs, made.meta.get("observed")) != made.run_key:
        raise Conflict(
            f"'{made.ref}' was made by another version of noria, for another base or with another recipe",
            "replay it with what made it; its card tells",
        )


def _compared(platform: Platform, made: Artifact, original: Path, again: Path) -> Replay:
    recorded = made.meta.get("environment")
    told: dict[str, Any] = {
        "at": platform.clock.now(), "machine": environment.machine(),
        "made_on": str(recorded.get("machine", "")) if isinstance(recorded, dict) else "",
    }  # fmt: skip
    if content_digest(again) == made.ref.digest:
        return Replay(same=True, **told)
    return Replay(same=False, files=_differing(original, again), **told, **weights.spread(original, again))


def _differing(one: Path, other: Path) -> tuple[str, ...]:
    def files(folder: Path) -> dict[str, bytes]:
        found = (path for path in folder.rglob("*") if path.is_file() and path.name != FORGOTTEN)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}

    mine, theirs = files(one), files(other)
    return tuple(sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)))


def _keep(platform: Platform, made: Artifact, found: Replay) -> None:
    """In the adapter's own record, where the gate, the report and its card look."""
    run = Run(
        key=digest_of({"replay": str(made.ref)}), stage="replay", task=made.ref.name, cycle="", output=made.ref,
        seconds=0.0, peak_mb=0.0, at=found.at,
    )  # fmt: skip
    kept = made.model_copy(update={"meta": {**made.meta, KEY: found.model_dump(mode="json")}})
    platform.runs.record(run, kept)
