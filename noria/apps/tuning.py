"""Studies as the command line and the console tell of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from noria.errors import Invalid, NotFound
from noria.ports import Platform
from noria.settings import known
from noria.settings.tune import Sampler
from noria.types import Trial


def with_budget(
    platform: Platform, name: str, trials: int | None, minutes: float | None, sampler: str | None
) -> Platform:
    """The platform with other values in the task's table `tune`; raises Invalid, also where there is no such table."""
    task = platform.settings.tasks[name]
    if task.tune is None:
        raise Invalid(
            f"task '{name}' has no table 'tune', so nothing says what to search",
            f'add [tasks.{name}.tune] with preset = "booklet", or a space of your own',
            where=platform.settings.place("tasks", name),
        )
    samplers = get_args(Sampler)
    if sampler is not None and sampler not in samplers:
        raise Invalid(f"there is no sampler '{sampler}'", known(sampler, samplers))
    given = {"trials": trials, "minutes": minutes, "sampler": sampler}
    tune = task.tune.model_copy(update={key: value for key, value in given.items() if value is not None})
    tasks = {**platform.settings.tasks, name: task.model_copy(update={"tune": tune})}
    return replace(platform, settings=platform.settings.model_copy(update={"tasks": tasks}))


def listed(platform: Platform, task: str | None) -> list[dict[str, Any]]:
    """Every study, oldest first, with how far it is; of one task where it is named."""
    names = [each for each in platform.studies.names() if task is None or task_of(each) == task]
    return [told(platform, each) for each in names]


def latest(platform: Platform, task: str) -> str:
    """The task's youngest study; raises NotFound."""
    names = [each for each in platform.studies.names() if task_of(each) == task]
    if not names:
        raise NotFound(f"task '{task}' has no study", f"begin one: noria tune {task}")
    return names[-1]


def task_of(study: str) -> str:
    """The task of TASK-DIGEST."""
    return study.rpartition("-")[0]


def told(platform: Platform, name: str) -> dict[str, Any]:
    """A study with its trials; raises NotFound."""
    study = platform.studies.open(name)
    trials = study.trials()
    done = [each for each in trials if each.value is not None]
    sign = -1.0 if study.plan.higher_is_better else 1.0
    best = min(done, key=lambda each: (sign * (each.value or 0.0), each.number), default=None)
    states = [each.state for each in trials]
    return {
        "study": name,
        "task": study.plan.task,
        "sampler": study.plan.sampler,
        "budget": study.plan.most,
        **{state: states.count(state) for state in ("complete", "pruned", "failed", "running", "lost")},
        "seconds": round(sum(each.seconds for each in trials), 1),
        "best": best.model_dump(mode="json") if best else None,
        "importance": study.importance(),
        "trials": [each.model_dump(mode="json") for each in trials],
    }


def row(trial: dict[str, Any]) -> list[str]:
    """A trial as a line of a table."""
    found = Trial.model_validate(trial)
    value = f"{found.value:.5g}" if found.value is not None else f"({found.curve[-1]:.5g})" if found.curve else ""
    drawn = ", ".join(f"{name} {each:.4g}" if isinstance(each, float) else f"{name} {each}"
                      for name, each in found.values.items())  # fmt: skip
    return [str(found.number), found.state, value, f"{found.seconds:.1f}", drawn, found.because]
