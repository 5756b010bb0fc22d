"""One turn of the wheel. Read this first: it is the story.

Sources are collected, cleaned into documents, made into a dataset of examples, tokenised into features, learned into
an adapter, measured in a report against what serves now, and released if the report says that it is better. What
the released model answers, and what people say of it, is a source of the next turn.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from noria.datasets import clean, examples
from noria.deployment import release
from noria.errors import Conflict, Invalid, NotFound
from noria.evaluation import harness, queue, report
from noria.features import tokenise
from noria.lake import collect
from noria.ports import Platform, Progress
from noria.settings import known
from noria.stage import Look, Stage, Step, check_order, run_stage
from noria.training import adapter
from noria.types import Artifact, Cycle, Decision, new_id

STAGES = (
    Stage("sources", collect.work, params=collect.params, observes=collect.observes),
    Stage("documents", clean.work, reads=("sources",), params=clean.params),
    Stage(
        "dataset",
        examples.work,
        reads=("sources", "documents"),
        params=examples.params,
        observes=examples.observes,
        version="2",
    ),
    Stage("features", tokenise.work, reads=("dataset",), params=tokenise.params),
    Stage("adapter", adapter.work, reads=("features",), params=adapter.params, observes=adapter.observes),
    Stage(
        "report", report.work, reads=("dataset", "adapter"), params=report.params, observes=report.observes, version="2"
    ),
    Stage(
        "release",
        partial(release.work, measured=harness.latest),
        reads=("report",),
        params=release.params,
        observes=release.observes,
        effect=True,
    ),
)
check_order(STAGES)


@dataclass(frozen=True, slots=True)
class Turn:
    """How a cycle went: its steps in order and, when it came to the end, the decision."""

    cycle: Cycle
    steps: tuple[Step, ...]
    decision: Decision | None

    def artifact(self, stage: str) -> Artifact:
        """What the named stage made in this turn; raises NotFound."""
        for step in self.steps:
            if step.stage == stage:
                return step.artifact
        raise NotFound(f"the turn did not reach stage '{stage}'", "run it to the end: noria run")


def turn(
    platform: Platform,
    name: str | None,
    progress: Progress,
    *,
    until: str | None = None,
    started: Callable[[str, int, int], None] = lambda stage, number, total: None,
    finished: Callable[[Step], None] = lambda step: None,
) -> Turn:
    """Run a cycle of the task, going on with one that was killed; stop after stage `until` if it is given.

    Args:
        platform: the opened back-ends.
        name: the task; None for the only one.
        progress: where long stages say how far they are.
        until: last stage to run; the whole cycle otherwise.
        started: called before each stage with its name, its number from 1 and how many there are.
        finished: called with each finished step.

    Raises:
        NotFound: there is no such task.
        Invalid: there is no such stage, or the sources or the recipe are wrong.
        Conflict: a cycle of this task runs already.
    """
    name, task = platform.settings.task(name)
    stages = _stages(until)
    look = Look(platform, name, task, {})
    report.check(look)
    adapter.base_of(look)
    with _alone(platform.settings.state / "locks", name):
        cycle, before = _open_cycle(platform, name)
        if task.labels is not None:
            queue.choose(platform, name)
        done: dict[str, Artifact] = {}
        steps = []
        for number, stage in enumerate(stages, 1):
            started(stage.name, number, len(stages))
            step = run_stage(stage, platform, name, task, cycle.id, done, progress, before.get(stage.name))
            done[stage.name] = step.artifact
            steps.append(step)
            finished(step)
        decision = Decision.model_validate(_decided(done)) if "release" in done else None
        if decision is not None:
            cycle = cycle.model_copy(update={"ended": platform.clock.now(), "verdict": decision.verdict})
            platform.runs.save(cycle)
        return Turn(cycle, tuple(steps), decision)


def _decided(done: dict[str, Artifact]) -> dict[str, object]:
    return {key: value for key, value in done["release"].meta.items() if key in Decision.model_fields}


def _stages(until: str | None) -> tuple[Stage, ...]:
    names = [stage.name for stage in STAGES]
    if until is None:
        return STAGES
    if until not in names:
        raise Invalid(f"there is no stage '{until}'", known(until, names))
    return STAGES[: names.index(until) + 1]


def _open_cycle(platform: Platform, name: str) -> tuple[Cycle, dict[str, Artifact]]:
    """The cycle that was killed, with what it had made, or a new one."""
    latest = platform.runs.cycles(name, 1)
    if latest and latest[0][0].ended is None:
        cycle, runs = latest[0]
        made = ((run, platform.runs.artifact(run.output)) for run in runs)
        return cycle, {run.stage: each.model_copy(update={"run_key": run.key}) for run, each in made if each}
    now = platform.clock.now()
    cycle = Cycle(id=new_id(now), task=name, began=now)
    platform.runs.save(cycle)
    return cycle, {}


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"cycle-{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"a cycle of '{name}' runs already", "wait for it, or look: noria status") from None
        yield
