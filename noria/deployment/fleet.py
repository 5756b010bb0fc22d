"""Keeps the running engines and the gateway's snapshot as the ledger wants them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import JsonValue

from noria import adapters, classes, prompts
from noria.deployment import lights, slices
from noria.deployment.replicas import Replicas, each_of
from noria.deployment.slices import Trial, trial_of
from noria.deployment.supervise import Backoff
from noria.errors import NoriaError, Unavailable
from noria.ports import Engine, Platform
from noria.settings import ArmSettings, EngineSettings, TaskSettings
from noria.types import Arm, Candidate, Deployment, KeyGrant, Ref, Route, Snapshot


@dataclass(frozen=True, slots=True)
class Failed:
    """An engine that could not be started: how often in a row, and when the next attempt is due."""

    times: int
    due: float


@dataclass(frozen=True, slots=True)
class Draining:
    """An engine that no snapshot from `version` on names; it is closed when the gateway has let go of it."""

    engine: Engine
    version: int
    urls: frozenset[str]
    """Of all its servers."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to serve a task: the champion, the two candidates of a trial where one runs, all that must be loaded."""

    champion: Candidate
    trial: Trial | None = None
    adapters: frozenset[Ref] = frozenset()


class Fleet:
    """Starts, watches, switches and stops engines; writes what the gateway needs to know.

    Adapters are fixed when an engine starts, so a release starts a second engine, waits until it is ready, moves the
    routes there and drains the first. Call `poll` again and again; it never raises for an engine that fails.

    Args:
        platform: the opened back-ends.
        publish: hands a snapshot to the gateway.
        released: whether the gateway has taken this version and has nothing in flight at this URL.
        report: told of every fault and every change, in one line.
        monotonic: seconds, for delays between restarts.
    """

    def __init__(
        self,
        platform: Platform,
        publish: Callable[[Snapshot], None],
        released: Callable[[int, str], bool],
        report: Callable[[str], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._platform = platform
        self._publish = publish
        self._released = released
        self._report = report
        self._monotonic = monotonic
        self._running: dict[str, Replicas] = {}
        self._bases: dict[str, tuple[EngineSettings, Ref, str]] = {}
        self._live: dict[str, Deployment | None] = {}
        self._keys: dict[str, KeyGrant] = {}
        self._lights: dict[str, JsonValue] = {}
        self._asked = False
        self._fault = ""
        self._draining: list[Draining] = []
        self._closing: list[threading.Thread] = []
        self._failed: dict[str, Failed] = {}
        self._snapshot = Snapshot(version=0, routes={}, keys={})

    @property
    def snapshot(self) -> Snapshot:
        """What was published last."""
        return self._snapshot

    def poll(self) -> None:
        """Bring what runs one step nearer to what the ledger wants; while that is away, to what it wanted last."""
        self._ask_ledger()
        tasks = self._platform.settings.tasks.items()
        wanted = {name: found for name, task in tasks if (found := self._wanted(name, task)) is not None}
        for engine in sorted(self._running.keys() - self._engines()):
            self._drain(self._running.pop(engine))
        for engine in sorted(self._engines()):
            here = (each.adapters for each in wanted.values() if each.champion.engine == engine)
            self._keep(engine, frozenset[Ref]().union(*here))
        self._announce(wanted)
        self._let_go()

    def close(self) -> None:
        """Stop every engine."""
        for running in self._running.values():
            running.close()
        for each in self._draining:
            self._close(each.engine)
        self._running, self._draining = {}, []
        for thread in self._closing:
            thread.join()

    def _engines(self) -> set[str]:
        """Every engine that a task answers, compares, falls back or finds its context with."""
        tasks = self._platform.settings.tasks.values()
        others = {each for task in tasks for each in (*(arm.engine for arm in task.arms.values()), *task.fallback)}
        meaning = {task.context.engine for task in tasks if task.context is not None and task.context.engine}
        return {task.engine for task in tasks} | others | meaning

    def take(self, platform: Platform) -> None:
        """Go on with other settings. An engine whose table has changed is started anew, then the old one drained."""
        self._platform = platform

    def _ask_ledger(self) -> None:
        try:
            live = {name: self._platform.deployments.current(name) for name in self._platform.settings.tasks}
            keys = {
                key.sha256: KeyGrant(id=key.id, name=key.name, role=key.role, models=key.models, limits=key.limits)
                for key in self._platform.keys.all()
                if key.revoked is None
            }
            thresholds = lights.thresholds(self._platform)
        except Unavailable as error:
            if not self._asked:
                raise
            if error.fact != self._fault:
                self._fault = error.fact
                self._report(f"{error.fact}; keys and releases stay as they are")
            return
        if self._fault:
            self._fault = ""
            self._report("the ledger is back")
        self._live, self._keys, self._asked = live, keys, True
        self._lights = thresholds

    def _base(self, engine: str) -> tuple[Ref, str] | None:
        """An engine's base model; that of an attached engine as it was first seen, None before that."""
        settings = self._platform.settings.engines[engine]
        known = self._bases.get(engine)
        if settings.url is not None and known is not None and known[0] == settings:
            return known[1:]
        try:
            base, quantization = self._platform.engines[settings.kind].base(settings)
        except Unavailable as error:
            self._tried(engine, error)
            return None
        self._bases[engine] = (settings, base, quantization)
        return base, quantization

    def _tried(self, engine: str, error: NoriaError) -> None:
        times = self._failed.get(engine, Failed(0, 0.0)).times + 1
        delay = Backoff().delay(times)
        self._failed[engine] = Failed(times, self._monotonic() + delay)
        self._report(f"engine '{engine}' did not start: {error.fact}; next try in {delay:.1f} s")

    def _waits(self, engine: str) -> bool:
        return self._monotonic() < self._failed.get(engine, Failed(0, 0.0)).due

    def _wanted(self, name: str, task: TaskSettings) -> Wanted | None:
        """What is to serve a task; None as long as its engine's base model is not known."""
        if task.engine not in self._bases and self._waits(task.engine):
            return None
        found = self._base(task.engine)
        if found is None:
            return None
        base, quantization = found
        plain = Candidate(
            task=name, base=base, adapter=None, engine=task.engine, quantization=quantization,
            prompt=prompts.definition(task.system),
        )  # fmt: skip
        live = self._live.get(name)
        champion = live.champion if live and live.champion and self._fits(live.champion, plain) else plain
        trial = trial_of(live)
        if trial is None or trial.share(task.release) == 0:
            return self._with_adapters(champion)
        both = self._fits(trial.challenger, plain) and self._fits(trial.control, plain)
        return self._with_adapters(champion, trial if both else None)

    def _with_adapters(self, champion: Candidate, trial: Trial | None = None) -> Wanted:
        tried = (trial.challenger, trial.control) if trial else ()
        named = {each.adapter for each in (champion, *tried) if each.adapter is not None}
        # Their files are verified when an engine starts, where a fault keeps that engine alone from starting.
        return Wanted(champion, trial, adapters.weights(self._platform.lake, named))

    def _fits(self, candidate: Candidate, plain: Candidate) -> bool:
        """Whether a candidate can serve: made for the present base, engine and prompt, and all of it is there."""
        missing = [ref for ref in (candidate.adapter, candidate.index) if ref and not self._platform.lake.has(ref)]
        if missing or (candidate.base, candidate.engine) != (plain.base, plain.engine):
            return False
        try:
            wording = adapters.wording_of(self._platform.lake, candidate.adapter)
        except NoriaError as error:
            self._report(f"'{candidate.ref}' cannot serve: {error.fact}")
            return False
        system = self._platform.settings.tasks[candidate.task].system
        return candidate.prompt == prompts.definition(system, wording)

    def _keep(self, name: str, adapters: frozenset[Ref]) -> None:
        settings = self._platform.settings.engines[name]
        running = self._running.get(name)
        if running is not None:
            died, back = running.poll()
            if died:
                self._report(f"engine '{name}' died{_of(died, settings)}")
            if back:
                self._report(f"engine '{name}' had died and was started again{_of(back, settings)}")
            if running.adapters == adapters and running.settings == settings:
                return
        if self._waits(name):
            return
        fresh = self._replicas(name, settings, adapters)
        try:
            faults = fresh.begin()
        except NoriaError as error:
            self._tried(name, error)
            return
        self._failed.pop(name, None)
        for fault in faults:
            self._report(f"a replica of engine '{name}' did not start: {fault.fact}; it is tried again")
        if running is not None:
            self._drain(running)
        self._running[name] = fresh
        self._report(f"engine '{name}' ready with {len(adapters)} adapter{'s' if len(adapters) != 1 else ''}")

    def _replicas(self, name: str, settings: EngineSettings, adapters: frozenset[Ref]) -> Replicas:
        kind = self._platform.engines[settings.kind]
        logs = self._platform.settings.state / "logs"

        def start(each: EngineSettings, number: int) -> Engine:
            folders = {ref: self._platform.lake.verified(ref) for ref in sorted(adapters, key=str)}
            return kind.start(each, folders, logs / f"engine-{name}{f'-{number}' if number else ''}.log")

        return Replicas(settings, adapters, start, self._close, self._monotonic)

    def _drain(self, replicas: Replicas) -> None:
        for engine in replicas.children:
            urls = {adapters.endpoint(engine, adapter).url for adapter in (None, *replicas.adapters)}
            self._draining.append(Draining(engine, self._snapshot.version + 1, frozenset(urls)))

    def _announce(self, wanted: dict[str, Wanted]) -> None:
        tasks = self._platform.settings.tasks
        routes = {name: route for name in tasks if (route := self._route(name, wanted.get(name))) is not None}
        new = Snapshot(
            version=self._snapshot.version + 1, routes={**self._plain(), **routes}, keys=self._keys,
            gateway=self._platform.settings.gateway.model_dump(mode="json"),
        )  # fmt: skip
        if new.model_copy(update={"version": self._snapshot.version}) != self._snapshot:
            self._publish(new)
            self._snapshot = new

    def _plain(self) -> dict[str, Route]:
        """Base models and adapters under their own names, for those who want them as they are."""
        routes: dict[str, Route] = {}
        for name, running in self._running.items():
            base = running.endpoints[0].model
            routes.setdefault(base, Route(arms=(self._arm(name, running, None, base),)))
            for ref in running.adapters:
                routes.setdefault(f"{base}:{ref.digest}", Route(arms=(self._arm(name, running, ref, str(ref)),)))
        return routes

    def _arm(self, name: str, replicas: Replicas, adapter: Ref | None, served_by: str) -> Arm:
        price = self._platform.settings.engines[name].price
        return Arm(
            served_by=served_by,
            engine=name,
            upstreams=replicas.at(adapter),
            extra=replicas.live[0].extra(adapter),
            price=(price.prompt, price.completion),
        )

    def _route(self, name: str, wanted: Wanted | None) -> Route | None:
        """A task's route; the one that it has already, as long as what is wanted is not ready."""
        task = self._platform.settings.tasks[name]
        running = self._running.get(task.engine)
        if (
            wanted is None
            or running is None
            or running.settings != self._platform.settings.engines[task.engine]
            or not wanted.adapters <= running.adapters
            or (task.context is not None and task.context.engine not in (None, *self._running))
        ):
            return self._snapshot.routes.get(name)
        others = [self._other(arm, each, task) for arm, each in task.arms.items()]
        rest = max(0.0, 1.0 - sum(arm.share for arm in task.arms.values() if not arm.shadow))
        spare = [self._other("fallback", ArmSettings(engine=each, share=0.0), task) for each in task.fallback]
        champion = self._serving(running, task, wanted.champion).model_copy(update={"share": rest})
        own: tuple[Arm, ...] = (champion,)
        if (trial := wanted.trial) is not None:
            challenger, control = (self._serving(running, task, each) for each in (trial.challenger, trial.control))
            own = slices.arms(champion, challenger, control, trial, task.release)
        return Route(
            arms=(*own, *(arm for arm in others if arm is not None)),
            fallbacks=tuple(arm for arm in spare if arm is not None),
            task=lights.told(task, self._lights.get(name)),
        )

    def _serving(self, running: Replicas, task: TaskSettings, candidate: Candidate) -> Arm:
        """The arm of a candidate whose adapter is loaded; with the engine by which its context is found."""
        meaning = self._running.get(task.context.engine) if task.context and task.context.engine else None
        index = self._platform.lake.path(candidate.index) / "index" if candidate.index and task.context else None
        wording = adapters.wording_of(self._platform.lake, candidate.adapter)
        arm = self._arm(task.engine, running, None if wording else candidate.adapter, str(candidate.ref))
        vectors = meaning.endpoints[0] if meaning and index else None
        return arm.model_copy(
            update={
                "index": str(index) if index else None, "vectors": vectors, "wording": wording,
                "extra": {**arm.extra, **self._held(task.engine, task)},
            }
        )  # fmt: skip

    def _held(self, engine: str, task: TaskSettings) -> dict[str, JsonValue]:
        """What holds an engine's answers to the task's classes."""
        caps = self._platform.engines[self._platform.settings.engines[engine].kind].caps
        return classes.among(caps.choice, task.classes, task.multi_label)

    def _other(self, name: str, wanted: ArmSettings, task: TaskSettings) -> Arm | None:
        """Another engine's base model, where that engine runs."""
        running = self._running.get(wanted.engine)
        if running is None:
            return None
        arm = self._arm(wanted.engine, running, None, running.endpoints[0].model)
        extra = {**arm.extra, **self._held(wanted.engine, task)}
        return arm.model_copy(update={"name": name, "share": wanted.share, "shadow": wanted.shadow, "extra": extra})

    def _let_go(self) -> None:
        kept = []
        for each in self._draining:
            free = all(self._released(each.version, url) for url in each.urls)
            if self._snapshot.version >= each.version and free:
                self._close(each.engine)
            else:
                kept.append(each)
        self._draining = kept

    def _close(self, engine: Engine) -> None:
        # Draining may take seconds, in which the other engines must be watched.
        thread = threading.Thread(target=engine.close, name="close-engine")
        thread.start()
        self._closing = [*(each for each in self._closing if each.is_alive()), thread]


def _of(number: int, settings: EngineSettings) -> str:
    """How many of how many, where there are several."""
    count = len(each_of(settings))
    return f" ({number} of {count} replicas)" if count > 1 else ""
