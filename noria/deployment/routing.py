"""The routes of a snapshot: which engine answers what, with which adapter; and which engines rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from noria import adapters, classes
from noria.deployment import lights, slices
from noria.deployment.replicas import Replicas
from noria.deployment.slices import Trial
from noria.ports import Platform
from noria.settings import ArmSettings, TaskSettings
from noria.types import Arm, Candidate, Ref, Route


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to serve a task: the champion, the two candidates of a trial where one runs, all that must be loaded."""

    champion: Candidate
    trial: Trial | None = None
    adapters: frozenset[Ref] = frozenset()


@dataclass(frozen=True, slots=True)
class Routes:
    """Builds routes of the engines that run and those that rest.

    Args:
        platform: the opened back-ends.
        running: engines that answer, by name.
        resting: engines that do not, and why they cannot be asked; with an empty reason the next request starts them.
        bases: names of the base models of resting engines.
        lights: thresholds by task.
    """

    platform: Platform
    running: Mapping[str, Replicas]
    resting: Mapping[str, str]
    bases: Mapping[str, str]
    lights: Mapping[str, JsonValue]

    def all(self, wanted: Mapping[str, Wanted], before: Mapping[str, Route]) -> dict[str, Route]:
        """Every route. Of a task whose engine is not ready for what is wanted it stays the one before."""
        tasks = self.platform.settings.tasks
        found = {name: route for name in tasks if (route := self._route(name, wanted.get(name), before)) is not None}
        return {**self._plain(), **found}

    def _plain(self) -> dict[str, Route]:
        """Base models and adapters under their own names, for those who want them as they are."""
        routes: dict[str, Route] = {}
        for name, running in self.running.items():
            base = running.endpoints[0].model
            routes.setdefault(base, Route(arms=(self._arm(name, None, base),)))
            for ref in running.adapters:
                routes.setdefault(f"{base}:{ref.digest}", Route(arms=(self._arm(name, ref, str(ref)),)))
        for name, base in self.bases.items():
            routes.setdefault(base, Route(arms=(self._arm(name, None, base),)))
        return routes

    def _arm(self, name: str, adapter: Ref | None, served_by: str) -> Arm:
        price = self.platform.settings.engines[name].price
        arm = Arm(served_by=served_by, engine=name, upstreams=(), price=(price.prompt, price.completion))
        if name in self.resting:
            why = self.resting[name]
            return arm.model_copy(update={"asleep": not why, "refusal": why})
        running = self.running[name]
        return arm.model_copy(update={"upstreams": running.at(adapter), "extra": running.live[0].extra(adapter)})

    def _route(self, name: str, wanted: Wanted | None, before: Mapping[str, Route]) -> Route | None:
        """A task's route; the one that it has already, as long as what is wanted is not ready."""
        task = self.platform.settings.tasks[name]
        running = self.running.get(task.engine)
        ready = task.engine in self.resting or (
            running is not None
            and running.settings == self.platform.settings.engines[task.engine]
            and wanted is not None
            and wanted.adapters <= running.adapters
        )
        finds = task.context.engine if task.context is not None else None
        if wanted is None or not ready or (finds is not None and finds not in {*self.running, *self.resting}):
            return before.get(name)
        others = [self._other(arm, each, task) for arm, each in task.arms.items()]
        rest = max(0.0, 1.0 - sum(arm.share for arm in task.arms.values() if not arm.shadow))
        spare = [self._other("fallback", ArmSettings(engine=each, share=0.0), task) for each in task.fallback]
        champion = self._serving(task, wanted.champion).model_copy(update={"share": rest})
        own: tuple[Arm, ...] = (champion,)
        if (trial := wanted.trial) is not None:
            challenger, control = (self._serving(task, each) for each in (trial.challenger, trial.control))
            own = slices.arms(champion, challenger, control, trial, task.release)
        return Route(
            arms=(*own, *(arm for arm in others if arm is not None)),
            fallbacks=tuple(arm for arm in spare if arm is not None),
            task=lights.told(task, self.lights.get(name)),
        )

    def _serving(self, task: TaskSettings, candidate: Candidate) -> Arm:
        """The arm of a candidate whose adapter is loaded; with the engine by which its context is found."""
        meaning = self.running.get(task.context.engine) if task.context and task.context.engine else None
        index = self.platform.lake.path(candidate.index) / "index" if candidate.index and task.context else None
        wording = adapters.wording_of(self.platform.lake, candidate.adapter)
        arm = self._arm(task.engine, None if wording else candidate.adapter, str(candidate.ref))
        vectors = meaning.endpoints[0] if meaning and index else None
        return arm.model_copy(
            update={
                "index": str(index) if index else None, "vectors": vectors, "wording": wording,
                "extra": {**arm.extra, **self._held(task.engine, task)},
            }
        )  # fmt: skip

    def _held(self, engine: str, task: TaskSettings) -> dict[str, JsonValue]:
        """What holds an engine's answers to the task's classes."""
        caps = self.platform.engines[self.platform.settings.engines[engine].kind].caps
        return classes.among(caps.choice, task.classes, task.multi_label)

    def _other(self, name: str, wanted: ArmSettings, task: TaskSettings) -> Arm | None:
        """Another engine's base model, where that engine runs or is started by a request."""
        running = self.running.get(wanted.engine)
        if self.resting.get(wanted.engine, "" if running is not None else "away"):
            return None
        base = running.endpoints[0].model if running is not None else self.bases.get(wanted.engine, wanted.engine)
        arm = self._arm(wanted.engine, None, base)
        extra = {**arm.extra, **self._held(wanted.engine, task)}
        return arm.model_copy(update={"name": name, "share": wanted.share, "shadow": wanted.shadow, "extra": extra})
