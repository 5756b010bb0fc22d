"""The stage `study`: values of the recipe are searched on rows that trials do not learn; the adapter takes the best."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
from pydantic import JsonValue

from noria.errors import Invalid, NoriaError, NotFound
from noria.ports import Lake, Progress, Study, Trainer, Untracked
from noria.settings import LOSS, SearchPlan, TuneSettings, WeightRecipe, known, space_place, with_values
from noria.stage import Look, Work
from noria.training.base import base_of
from noria.training.weights import PAIRED, held_out
from noria.types import Ref, TrainingJob, Trial, digest_of

LEAST = 10
"""Training rows; of fewer, too few are left to compare trials on."""
ENDED = ("complete", "pruned", "failed")
HOPELESS = 3
"""Trials that fail before any has come to an end, after which the search is given up."""
WAIT = 1.0
"""Seconds between two looks at trials that other processes have under way."""
UNENDING = 1_000_000
"""Patience of a trial whose recipe does not end early by itself."""
Where = TypeVar("Where", Look, Work)


@dataclass(frozen=True, slots=True)
class Means:
    """What a study needs of other rooms."""

    make: Callable[[Work], Mapping[str, JsonValue]]
    """Carries out the recipe of the work's task."""
    score: Callable[[Work, Ref, Sequence[str], str], float]
    """A metric of the answers to training rows, named by their ids, with an adapter."""
    rises: Callable[[str], bool]
    """Whether more of a metric is better."""
    draw: Callable[[SearchPlan, Sequence[Trial], Mapping[str, float], str, Path], None]
    """Draws the history, the importance and the slices into a folder; the text names the metric."""
    energy: Callable[[], bool]
    """Whether this machine counts its energy."""


def check(look: Look, means: Means) -> None:
    """Raise Invalid for a search that cannot be carried out, before anything takes time."""
    tune, place = _tune(look), partial(look.platform.settings.place, "tasks", look.name, "tune")
    if look.task.recipe.kind == PAIRED:
        raise Invalid(
            f"recipe '{PAIRED}' of task '{look.name}' cannot be searched: trials are compared on rows, and it learns "
            "pairs, going on from the champion",
            f'take [tasks.{look.name}.tune] out, or search a recipe of kind "lora"',
            where=place(),
        )
    tune.axes(look.task.recipe, partial(space_place, look.platform.settings, look.name))
    if tune.metric == LOSS and not isinstance(look.task.recipe, WeightRecipe):
        raise Invalid(
            f"recipe '{look.task.recipe.kind}' changes no weights, so it has no loss to search by",
            f'metric = "{look.task.gate.metric}" in [tasks.{look.name}.tune]',
            where=place("metric"),
        )
    names = (LOSS, *look.task.measured)
    if tune.metric not in names:
        raise Invalid(
            f"task '{look.name}' has no metric '{tune.metric}' to search by", known(tune.metric, names),
            where=place("metric"),
        )  # fmt: skip
    if tune.energy_wh is not None and not means.energy():
        raise Invalid(
            "this machine does not count its energy, so no budget of it can be kept",
            "give trials or minutes in place of energy_wh",
            where=place("energy_wh"),
        )


def params(look: Look) -> JsonValue:
    """What is searched, by what, and at what cost."""
    return {**_same(look), "plan": _plan(look, rises=False).model_dump(mode="json")}


def observes(look: Look) -> JsonValue:
    """How many trials the study has that are through: they may have been made in any earlier sitting."""
    try:
        there = look.platform.studies.open(name_of(look)).trials()
    except NotFound:
        return 0
    return sum(each.state in ENDED for each in there)


def name_of(look: Look | Work) -> str:
    """TASK-DIGEST: all sittings of the same search, whatever their budgets and samplers, are one study."""
    return f"{look.name}-{digest_of(_same(look))}"


def tuned(where: Where) -> Where:
    """The same with the winner's values in the recipe, where there was a study."""
    if "study" not in where.inputs:
        return where
    folder = where.platform.lake.path(where.inputs["study"].ref)
    values = json.loads((folder / "winner.json").read_text())["values"]
    recipe = with_values(where.task.recipe, {**values, **_from_base(where)})
    return replace(where, task=where.task.model_copy(update={"recipe": recipe}))


def work(work: Work, means: Means) -> Mapping[str, JsonValue]:
    """Make the trials that are still to be made; write `study.json`, `winner.json` and the pictures.

    Raises Invalid for too few rows, and where no trial comes to an end.
    """
    plan = _plan(work, rises=_rises(work, means))
    _rows(work)
    study = work.platform.studies.open(name_of(work), plan)
    carry_out(work, study, means)
    trials = _finished(work, study, means)
    best = _best(trials, plan)
    assert best is not None
    importance = study.importance()
    told: dict[str, Any] = {
        "study": study.name,
        "metric": _tune(work).metric,
        "higher_is_better": plan.higher_is_better,
        "space": [axis.model_dump(mode="json", exclude_defaults=True) for axis in plan.axes],
        "trials": [trial.model_dump(mode="json") for trial in trials],
        "importance": importance,
        "best": best.number,
    }
    winner = {"study": study.name, "trial": best.number, "value": best.value, "values": best.values}
    (work.out / "study.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    (work.out / "winner.json").write_text(json.dumps(winner, indent=1, ensure_ascii=False) + "\n")
    means.draw(plan, trials, importance, _tune(work).metric, work.out)
    if study.once(f"tracked {len(trials)}"):
        _track(work, told, trials, best)
    states = [each.state for each in trials]
    return {
        "study": study.name, "metric": _tune(work).metric, "best": best.value, "first": trials[0].value,
        "winner": best.values, "trials": len(trials), "pruned": states.count("pruned"),
        "failed": states.count("failed"), "seconds": round(sum(each.seconds for each in trials), 1),
    }  # fmt: skip


def carry_out(work: Work, study: Study, means: Means) -> int:
    """Make trials until the budget is spent; how many. Several processes may do so at once.

    Raises Invalid where the first trials all fail.
    """
    sides, made = _rows(work), 0
    while (trial := study.ask()) is not None:
        there = study.trials()
        _tell(work, study, there)
        known = next((each for each in there if each.state == "complete" and each.values == trial.values), None)
        done = trial.model_copy(update={"state": "lost"})
        try:
            if known is not None:
                # The same values learn the same; nothing would come of doing it twice.
                done = trial.model_copy(update={"state": "complete", "value": known.value, "because": "as before"})
            else:
                done = _attempt(work, study, trial, means, sides)
        finally:
            study.tell(done)
        made += 1
        _give_up(study.name, study.trials())
    _tell(work, study, study.trials())
    return made


def _attempt(work: Work, study: Study, trial: Trial, means: Means, sides: tuple[list[str], list[str]]) -> Trial:
    began = time.monotonic()
    told: dict[str, Any] = {}
    scratch = work.platform.lake.scratch(f"trial-{study.name}-{trial.number}")
    try:
        told = _value(work, study, trial, means, sides, scratch)
    except NoriaError as error:
        told = {"state": "failed", "because": error.fact}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return trial.model_copy(update={"seconds": round(time.monotonic() - began, 3), **told})


def _value(
    work: Work, study: Study, trial: Trial, means: Means, sides: tuple[list[str], list[str]], scratch: Path
) -> dict[str, Any]:
    """Carry out the recipe with the trial's values; what came of it."""
    tune, (learned, compared) = _tune(work), sides
    curve: list[float] = []
    out, left = scratch / "out", scratch / "features"
    out.mkdir()
    values: dict[str, JsonValue] = {**trial.values, **_from_base(work)}
    lake = Beside(work.platform.lake, {})
    trainer: Trainer = work.platform.trainer
    if tune.metric == LOSS:
        assert isinstance(work.task.recipe, WeightRecipe)
        values["validation"] = tune.validation
        if not work.task.recipe.validation:
            # The adapter itself will be what its last step made of it.
            values["patience"] = UNENDING
        trainer = Watched(trainer, curve, partial(study.report, trial.number))
    else:
        _keep(work.folder("features"), left, set(learned))
        lake.folders[work.inputs["features"].ref] = left
    recipe = with_values(work.task.recipe, values)
    platform = replace(work.platform, lake=lake, trainer=trainer, tracking=Untracked())
    task = work.task.model_copy(update={"recipe": recipe})
    inside = replace(work, platform=platform, task=task, observed=None, out=out)
    found = means.make(inside)
    joules = found.get("joules")
    told: dict[str, Any] = {
        "curve": tuple(curve),
        "wh": round(float(joules) / 3600, 6) if isinstance(joules, int | float) else None,
    }
    if isinstance(trainer, Watched) and trainer.stopped:
        return {**told, "state": "pruned"}
    if tune.metric == LOSS:
        kept = work.task.recipe.model_dump().get("validation")
        if not curve:
            raise Invalid(
                "no row was kept to compare trials on, so there is no loss", "add rows of other conversations"
            )
        value = float(str(found["validation_loss"])) if kept else curve[-1]
    else:
        ref = Ref(kind="adapter", name=work.name, digest=digest_of([study.name, trial.number]))
        lake.folders[ref] = out
        value = means.score(inside, ref, compared, tune.metric)
    return {**told, "state": "complete", "value": round(value, 6)}


@dataclass(frozen=True, slots=True)
class Beside:
    """Port `Lake` in which some artifacts lie elsewhere: features without rows, what a trial has made."""

    lake: Lake
    folders: dict[Ref, Path]

    def scratch(self, key: str) -> Path:
        """As of the lake."""
        return self.lake.scratch(key)

    def commit(self, folder: Path, kind: str, name: str) -> Ref:
        """As of the lake."""
        return self.lake.commit(folder, kind, name)

    def path(self, ref: Ref) -> Path:
        """Folder of an artifact; raises NotFound."""
        return self.folders[ref] if ref in self.folders else self.lake.path(ref)

    def verified(self, ref: Ref) -> Path:
        """As of the lake, unless it lies elsewhere."""
        return self.folders[ref] if ref in self.folders else self.lake.verified(ref)

    def has(self, ref: Ref) -> bool:
        """Whether the artifact is there."""
        return ref in self.folders or self.lake.has(ref)


@dataclass(slots=True)
class Watched:
    """Port `Trainer` that notes each loss of the validation rows, and ends where `prunes` says so of one.

    It is asked at each tenth of the plan: batch and epochs change what a step is, so steps cannot be compared. A
    training that is through is not pruned any more.
    """

    trainer: Trainer
    curve: list[float]
    prunes: Callable[[int, float], bool]
    stopped: bool = field(default=False)

    def tokenizer(self, model: Path) -> Path:
        """As of the trainer."""
        return self.trainer.tokenizer(model)

    def check(self, model: Path, recipe: WeightRecipe) -> None:
        """As of the trainer."""
        self.trainer.check(model, recipe)

    def train(self, job: TrainingJob, progress: Progress) -> dict[str, JsonValue]:
        """As of the trainer, without checkpoints: two processes may have drawn the same values."""

        asked = 0

        def stop(step: int, loss: float) -> bool:
            nonlocal asked
            tenth = 10 * step // len(job.plan)
            self.curve.append(loss)
            if tenth > asked:
                asked = tenth
                pruned = self.prunes(tenth, loss)
                self.stopped = self.stopped or (pruned and step < len(job.plan))
            return self.stopped

        return self.trainer.train(replace(job, stop=stop, state=None), progress)


def _tune(look: Look | Work) -> TuneSettings:
    assert look.task.tune is not None
    return look.task.tune


def _from_base(look: Look | Work) -> dict[str, JsonValue]:
    """A champion has learned the very rows that trials are compared on, and has a rank of its own."""
    return {"start": "base"} if isinstance(look.task.recipe, WeightRecipe) else {}


def _same(look: Look | Work) -> dict[str, JsonValue]:
    """What makes two studies the same."""
    tune, settings = _tune(look), look.platform.settings
    axes = tune.axes(look.task.recipe, partial(space_place, settings, look.name))
    searched = {axis.name for axis in axes}
    recipe = look.task.recipe.model_dump(mode="json")
    seen = Look(look.platform, look.name, look.task, look.inputs)
    return {
        "recipe": {name: value for name, value in recipe.items() if name not in searched and name != "start"},
        "space": [axis.model_dump(mode="json") for axis in axes],
        "metric": tune.metric,
        "max_tokens": None if tune.metric == LOSS else look.task.max_tokens,
        "validation": tune.validation,
        "seed": tune.seed,
        "base": str(base_of(seen)[0]),
        "features": str(look.inputs["features"].ref) if tune.renew == "data" else None,
    }


def _plan(look: Look | Work, *, rises: bool) -> SearchPlan:
    tune = _tune(look)
    axes = tune.axes(look.task.recipe, partial(space_place, look.platform.settings, look.name))
    recipe = look.task.recipe.model_dump(mode="json")
    return SearchPlan(
        task=look.name, axes=axes, higher_is_better=rises, sampler=tune.sampler, pruning=tune.pruning, seed=tune.seed,
        trials=tune.trials, minutes=tune.minutes, energy_wh=tune.energy_wh,
        first={axis.name: recipe[axis.name] for axis in axes if axis.holds(recipe[axis.name])},
    )  # fmt: skip


def _rises(work: Work, means: Means) -> bool:
    metric = _tune(work).metric
    return metric != LOSS and means.rises(metric)


def _rows(work: Work) -> tuple[list[str], list[str]]:
    """Ids of the training rows that trials learn, and of those that they are compared on; raises Invalid."""
    ids = pq.read_table(work.folder("features") / "features.parquet", columns=["id"]).column("id").to_pylist()
    table = pq.read_table(work.folder("dataset") / "train.parquet", columns=["id", "conversation"])
    names = dict(zip(table.column("id").to_pylist(), table.column("conversation").to_pylist(), strict=True))
    conversations = [names.get(each, each) for each in ids]
    held = held_out(conversations, _tune(work).validation)
    learned = [each for each, name in zip(ids, conversations, strict=True) if name not in held]
    compared = [each for each, name in zip(ids, conversations, strict=True) if name in held]
    if len(ids) < LEAST or not compared:
        few = f"{len(ids)} training row{'s' * (len(ids) != 1)} of {len(set(conversations))} conversations"
        raise Invalid(
            f"'{work.name}' has {few}; a search needs {LEAST} rows of two conversations, some of them to compare on",
            f"give it more sources or feedback, or take [tasks.{work.name}.tune] out",
            where=work.platform.settings.place("tasks", work.name, "tune"),
        )
    return learned, compared


def _keep(features: Path, out: Path, ids: set[str]) -> None:
    """Features with these rows only."""
    shutil.copytree(features, out)
    table = pq.read_table(features / "features.parquet")
    kept = [each in ids for each in table.column("id").to_pylist()]
    pq.write_table(table.filter(kept), out / "features.parquet")


def _best(trials: Sequence[Trial], plan: SearchPlan) -> Trial | None:
    sign = -1.0 if plan.higher_is_better else 1.0
    done = [(sign * each.value, each.number, each) for each in trials if each.value is not None]
    return min(done)[2] if done else None


def _give_up(name: str, trials: Sequence[Trial], *, over: bool = False) -> None:
    failed = [each for each in trials if each.state == "failed"]
    if any(each.state in ("complete", "pruned") for each in trials) or not failed:
        return
    if over or len(failed) >= HOPELESS:
        raise Invalid(
            f"no trial of the search came to an end; {len(failed)} failed, the last of them: {failed[-1].because}",
            f"put that right, then clear the failed trials away: noria tune remove {name}",
        )


def _finished(work: Work, study: Study, means: Means) -> list[Trial]:
    """All trials, once those that other processes have under way have ended or were found to be lost, and redone."""
    while any(each.state == "running" for each in study.trials()):
        if not carry_out(work, study, means):
            time.sleep(WAIT)
    trials = [each for each in study.trials() if each.state in ENDED]
    _give_up(study.name, trials, over=True)
    if _best(trials, study.plan) is None:
        raise Invalid(
            f"the search ended with {len(trials)} trials, none of which came to its end",
            "give it more trials or minutes, or less pruning",
        )
    return trials


def _tell(work: Work, study: Study, trials: Sequence[Trial]) -> None:
    """Say how far the search is."""
    plan = study.plan
    ended = [each for each in trials if each.state in ENDED]
    at_work = max(1, sum(each.state == "running" for each in trials))
    best = _best(ended, plan)
    notes = [f"best {_tune(work).metric} {best.value:.4g} of trial {best.number}"] if best else []
    if ended:
        seconds = sum(each.seconds for each in ended) / len(ended) * max(0, plan.most - len(ended)) / at_work
        notes.append(f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left")
    work.progress.update("trials", min(len(ended), plan.most), plan.most, ", ".join(notes))


def _track(work: Work, told: Mapping[str, Any], trials: Sequence[Trial], best: Trial) -> None:
    """The whole study where experiments are shown: one run, and below it one for each trial."""
    tracking = work.platform.tracking
    metric = _tune(work).metric
    summary: dict[str, JsonValue] = {
        "task": work.name, "cycle": work.cycle, "study": told["study"], "metric": metric, "best": best.value,
        "best_trial": best.number, "trials": len(trials),
        **{f"winner.{name}": value for name, value in best.values.items()},
        **{f"importance.{name}": value for name, value in told["importance"].items()},
    }  # fmt: skip
    values = [each.value for each in trials if each.value is not None]
    files = sorted(path for path in work.out.iterdir() if path.suffix in (".json", ".png"))
    parent = tracking.log(work.name, f"study {work.cycle[:8]}", summary, {metric: values}, files)
    for each in trials:
        run: dict[str, JsonValue] = {
            "trial": each.number, "state": each.state, "seconds": each.seconds,
            **({"because": each.because} if each.because else {}), **({"wh": each.wh} if each.wh is not None else {}),
            **({metric: each.value} if each.value is not None else {}), **each.values,
        }  # fmt: skip
        tracking.log(work.name, f"trial {each.number}", run, {f"{metric}.curve": each.curve}, [], parent)
