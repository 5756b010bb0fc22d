"""One turn of the wheel. Read this first: it is the story.

Sources are collected, cleaned into documents, made into a dataset of examples, tokenised into features, learned into
an adapter (with the values that a study found best, where the task asks for a study), measured in a report against what
serves now, and released if the report says that it is better. What the released model answers, and what people say of
it, is a source of the next turn.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from noria.backends import energy, presidio, study_plots
from noria.datasets import card, clean, examples
from noria.deployment import release
from noria.errors import Conflict, Invalid, NotFound
from noria.evaluation import harness, queue, report, trials, trying
from noria.features import kinds as features
from noria.lake import collect
from noria.ports import Platform, Progress
from noria.registry import versions
from noria.settings import TaskSettings, known
from noria.stage import Look, Stage, Step, Work, check_order, run_stage, stages_of
from noria.training import adapter, study
from noria.types import Artifact, Cycle, Decision, Run, digest_of, new_id

MEANS = study.Means(
    make=partial(adapter.afresh, opened=trying.bench),
    score=trials.score,
    rises=trials.rises,
    draw=study_plots.draw,
    energy=energy.counted,
)
STAGES = (
    Stage("sources", collect.work, params=collect.params, observes=collect.observes, version="2"),
    Stage("documents", clean.work, reads=("sources",), params=clean.params, version="2"),
    Stage(
        "dataset",
        partial(card.work, recogniser=presidio.open_recogniser),
        reads=("sources", "documents"),
        params=card.params,
        observes=examples.observes,
        version="2",
    ),
    Stage("features", features.work, reads=("dataset",), params=features.params, version="2"),
    Stage(
        "study",
        partial(study.work, means=MEANS),
        reads=("dataset", "features"),
        params=study.params,
        observes=study.observes,
        when=lambda task: task.tune is not None,
    ),
    Stage(
        "adapter",
        partial(adapter.work, opened=trying.bench),
        reads=("features", "study"),
        params=adapter.params,
        observes=adapter.observes,
        version="2",
    ),
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


CYCLES = 1000
"""Cycles of a task among which one is looked up."""
NAMED = 16
"""Letters of the id of a cycle that a scheduler has named; it is the scheduler's to go on with."""


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
    cycle: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    started: Callable[[str, int, int], None] = lambda stage, number, total: None,
    finished: Callable[[Step], None] = lambda step: None,
) -> Turn:
    """Run a cycle of the task, going on with one that was killed; stop after stage `until` if it is given.

    Args:
        platform: the opened back-ends.
        name: the task; None for the only one.
        progress: where long stages say how far they are.
        until: last stage to run; the whole cycle otherwise.
        cycle: id of a cycle, or any text that names one, such as a scheduler's name of its run; that one goes on, or
            begins. With `until` that one stage alone is run, on what the cycle made before. One that has ended is
            told as it was.
        stop: asked before each stage; the cycle is left where it is once it says yes, and the next turn goes on.
        started: called before each stage with its name, its number from 1 and how many there are.
        finished: called with each finished step.

    Raises:
        NotFound: there is no such task, or the cycle has not come as far as the stage needs.
        Invalid: there is no such stage, or the sources or the recipe are wrong.
        Conflict: a cycle of this task runs already.
    """
    name, task = platform.settings.task(name)
    stages = _stages(until, task)
    due = stages[-1:] if cycle and until else stages
    _check(Look(platform, name, task, {}), due)
    with alone(platform, name):
        here, before = _named_cycle(platform, name, cycle) if cycle else _open_cycle(platform, name)
        if here.ended is not None:
            return _told(here, before, due)
        done = _made_before(stages[-1], before, cycle) if cycle and until else {}
        _begin(platform, here, task, done)
        steps: list[Step] = []
        try:
            for number, stage in enumerate(due, 1):
                if stop():
                    break
                started(stage.name, number, len(due))
                steps.append(run_stage(stage, platform, name, task, here.id, done, progress, before.get(stage.name)))
                done[stage.name] = steps[-1].artifact
                finished(steps[-1])
        except Invalid:
            if not cycle:  # A cycle that went on would not look again at what is put right.
                _end(platform, here, None)
            raise
        decision = Decision.model_validate(_decided(done)) if "release" in done else None
        # Who asked for a part has it: the next turn looks at sources and traffic anew. A named cycle has more to come.
        if decision is not None or (until and not cycle and len(steps) == len(due)):
            here = _end(platform, here, decision, progress)
        return Turn(here, tuple(steps), decision)


def latest(platform: Platform, name: str, stage: str) -> Artifact:
    """What the named stage of a task made last, of what the lake still has; raises NotFound."""
    for _, runs in platform.runs.cycles(name, CYCLES):
        for run in reversed(runs):
            made = platform.runs.artifact(run.output) if run.stage == stage else None
            if made is not None and platform.lake.has(made.ref):
                return made
    raise NotFound(f"'{name}' has no {stage} yet", f"make one: noria run {stage} --task {name}")


def measure(platform: Platform, name: str, made: Artifact, progress: Progress) -> Step:
    """A report on an adapter that no cycle has made, on the latest data set, as a cycle of its own; nothing serves it.

    Raises NotFound where the task has no data set yet, Conflict where a cycle of it runs.
    """
    _, task = platform.settings.task(name)
    stage = next(each for each in STAGES if each.name == "report")
    done = {"dataset": latest(platform, name, "dataset"), "adapter": made}
    report.check(Look(platform, name, task, done))
    with alone(platform, name):
        now = platform.clock.now()
        here = Cycle(id=new_id(now), task=name, began=now, ended=now)
        platform.runs.save(here)
        step = run_stage(stage, platform, name, task, here.id, done, progress)
        _end(platform, here, None)
    return step


def _begin(platform: Platform, cycle: Cycle, task: TaskSettings, done: dict[str, Artifact]) -> None:
    platform.runs.save(cycle)
    if task.labels is not None and not done:
        queue.choose(platform, cycle.task)


def _end(platform: Platform, cycle: Cycle, decision: Decision | None, progress: Progress | None = None) -> Cycle:
    """Store the end of a cycle; the registry follows what was decided, and one that is away is told to `progress`."""
    verdict = decision.verdict if decision else None
    ended = cycle.model_copy(update={"ended": platform.clock.now(), "verdict": verdict})
    platform.runs.save(ended)
    if decision is not None and progress is not None:
        versions.best_effort(platform, cycle.task, lambda line: progress.update("registry", 0, 1, line))
    return ended


def _told(cycle: Cycle, made: dict[str, Artifact], due: tuple[Stage, ...]) -> Turn:
    """A cycle that has ended, as it was; one stage of it, or all."""
    steps = tuple(Step(stage.name, made[stage.name], 0.0, skipped=True) for stage in due if stage.name in made)
    if len(steps) < len(due):
        raise Conflict(f"cycle '{cycle.id}' has ended without a {due[-1].name}", "begin another: noria run")
    return Turn(cycle, steps, Decision.model_validate(_decided(made)) if "release" in made else None)


def _decided(done: dict[str, Artifact]) -> dict[str, object]:
    return {key: value for key, value in done["release"].meta.items() if key in Decision.model_fields}


def _stages(until: str | None, task: TaskSettings) -> tuple[Stage, ...]:
    stages = stages_of(STAGES, task)
    names = [stage.name for stage in stages]
    if until is None:
        return stages
    if until not in names:
        fact, hint = f"there is no stage '{until}'", known(until, names)
        if until == "study":
            fact, hint = "the task has no table 'tune', so its cycle has no study", 'tune = { preset = "booklet" }'
        raise Invalid(fact, hint)
    return stages[: names.index(until) + 1]


def _check(look: Look, stages: tuple[Stage, ...]) -> None:
    """Refuse what late stages could not do before early ones take their time; data needs neither metric nor model."""
    names = {stage.name for stage in stages}
    if "report" in names:
        report.check(look)
    if not names.isdisjoint(("study", "adapter")):
        adapter.check(look)
    if "study" in names:
        study.check(look, MEANS)


def _open_cycle(platform: Platform, name: str) -> tuple[Cycle, dict[str, Artifact]]:
    """The cycle that was killed, with what it had made, or a new one."""
    mine = ((cycle, runs) for cycle, runs in platform.runs.cycles(name, CYCLES) if len(cycle.id) != NAMED)
    for cycle, runs in mine:
        if cycle.ended is None:
            return cycle, _made(platform, runs)
        break
    now = platform.clock.now()
    return Cycle(id=new_id(now), task=name, began=now), {}


def _named_cycle(platform: Platform, name: str, text: str) -> tuple[Cycle, dict[str, Artifact]]:
    """The cycle of this name, ended or not, with what it has made; a new one where there is none."""
    # Schedulers give the runs of several tasks the same name, and names that cannot be those of folders.
    identity = digest_of(["cycle", name, text])
    for cycle, runs in platform.runs.cycles(name, CYCLES):
        if cycle.id in (text, identity):
            return cycle, _made(platform, runs)
    return Cycle(id=identity, task=name, began=platform.clock.now()), {}


def _made(platform: Platform, runs: list[Run]) -> dict[str, Artifact]:
    made = ((run, platform.runs.artifact(run.output)) for run in runs)
    return {run.stage: each.model_copy(update={"run_key": run.key}) for run, each in made if each}


def _made_before(stage: Stage, before: dict[str, Artifact], cycle: str) -> dict[str, Artifact]:
    """What the stage reads, as this cycle has made it."""
    for read in stage.reads:
        if read not in before:
            raise NotFound(
                f"cycle '{cycle}' has no {read} yet, which stage '{stage.name}' reads",
                f"noria run {read} --cycle '{cycle}'",
            )
    return {read: before[read] for read in stage.reads}


def join(platform: Platform, name: str | None, progress: Progress) -> tuple[str, int]:
    """Help a study that another process has begun, until its budget is spent: its name, and how many trials were made.

    The machines share ledger and lake. Raises NotFound where no cycle of the task has a study under way.
    """
    name, task = platform.settings.task(name)
    hint = f"begin one: noria tune {name}"
    if task.tune is None:
        raise NotFound(f"task '{name}' has no table 'tune', so it has no study", hint)
    for cycle, runs in platform.runs.cycles(name, 1):
        made = _made(platform, runs)
        if cycle.ended is None and {"dataset", "features"} <= made.keys():
            place = platform.lake.scratch(f"join-{new_id(platform.clock.now())}")
            try:
                work = Work(platform, name, task, cycle.id, made, None, place, progress)
                shared = platform.studies.open(study.name_of(work))
                return shared.name, study.carry_out(work, shared, MEANS)
            finally:
                shutil.rmtree(place, ignore_errors=True)
    raise NotFound(f"no study of '{name}' is under way", hint)


@contextmanager
def alone(platform: Platform, name: str) -> Iterator[None]:
    """One process at a time works on a task's artifacts; raises Conflict where another one does."""
    folder = platform.settings.state / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"cycle-{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"a cycle of '{name}' runs already", "wait for it, or look: noria status") from None
        yield
