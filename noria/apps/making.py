"""Candidates for a comparison that no cycle has made: another recipe on the task's latest dataset; servers outside."""

from __future__ import annotations

from dataclasses import replace

from pydantic import ValidationError

from noria.cycle import STAGES, alone
from noria.errors import Invalid, NotFound
from noria.evaluation import report
from noria.evaluation.compare import latest_dataset
from noria.ports import Platform, Progress
from noria.settings import EngineSettings, TaskSettings, environment, known
from noria.settings.recipe import TABLES
from noria.stage import Look, run_stage, stages_of
from noria.training import adapter
from noria.types import Artifact, Candidate, Cycle, new_id
from noria.wiring import engine_kinds

BASELINE = "baseline"
KEY = "OPENAI_API_KEY"


def made(platform: Platform, name: str, kind: str, progress: Progress) -> Candidate:
    """A candidate by this kind of recipe, on the task's latest dataset; found where it was made before.

    `kind` may be `KIND@ENGINE`, for another engine than the task's. The recipe's table is the task's own where the kind
    is the same, else the kind's defaults. Raises NotFound for an unknown kind, Conflict where a cycle runs, Invalid.
    """
    recipe, _, engine = kind.partition("@")
    if recipe not in TABLES:
        raise NotFound(f"there is no candidate of kind '{kind}', and no such recipe", known(recipe, TABLES))
    task = _with(platform, platform.settings.tasks[name], recipe, engine)
    ref = latest_dataset(platform, name)
    dataset = platform.runs.artifact(ref)
    if dataset is None:
        raise NotFound(f"nothing is known of '{ref}'", f"make it again: noria run dataset --task {name}")
    done: dict[str, Artifact] = {"dataset": dataset}
    adapter.check(Look(platform, name, task, done))
    stages = [stage for stage in stages_of(STAGES, task) if stage.name in ("features", "adapter")]
    now = platform.clock.now()
    with alone(platform, name):
        # It has ended before it began: no cycle goes on with it.
        cycle = Cycle(id=new_id(now), task=name, began=now, ended=now)
        platform.runs.save(cycle)
        for stage in stages:
            done[stage.name] = run_stage(stage, platform, name, task, cycle.id, done, progress).artifact
    return report.candidate(Look(platform, name, task, done), done["adapter"].ref)


def _with(platform: Platform, task: TaskSettings, recipe: str, engine: str) -> TaskSettings:
    """The task with this recipe, without a search of its values; raises as if noria.toml said so."""
    changes: dict[str, object] = {"tune": None}
    if task.recipe.kind != recipe:
        try:
            changes["recipe"] = TABLES[recipe].model_validate({"kind": recipe})
        except ValidationError as error:
            raise Invalid(
                f"recipe '{recipe}' needs settings: {error.errors()[0]['msg']}", "give the task that recipe first"
            ) from error
    if engine:
        engines = platform.settings.engines
        if engine not in engines:
            raise NotFound(f"there is no engine '{engine}'", known(engine, engines), where="noria.toml")
        changes |= {"engine": engine, "base": engines[engine].model or task.base}
    told = {field: getattr(task, field) for field in task.model_fields_set}
    try:
        return TaskSettings.model_validate({**told, **changes})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise Invalid(f"recipe '{recipe}' does not fit the task: {reason}", "compare with another recipe") from error


def with_baseline(platform: Platform, url: str, model: str | None, key: str) -> Platform:
    """The platform with one more engine, `baseline`: a server outside that speaks OpenAI's API.

    Raises Invalid where the variable `key` does not hold its key: then it is off.
    """
    if not environment(key):
        raise Invalid(
            f"the baseline is off: the variable '{key}' is not set",
            f"export {key}=…, or name another one with --baseline-key",
        )
    table = EngineSettings(kind="openai", url=url, key=key, serves=model, slots=2)
    settings = platform.settings.model_copy(update={"engines": {**platform.settings.engines, BASELINE: table}})
    return replace(platform, settings=settings, engines={**engine_kinds(settings), **platform.engines})
