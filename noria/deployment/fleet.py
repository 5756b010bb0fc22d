"""Keeps the running engines and the gateway's snapshot as the ledger wants them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from noria import prompts
from noria.deployment.supervise import Backoff, Supervised
from noria.errors import NoriaError
from noria.ports import Engine, Platform
from noria.settings import ArmSettings, TaskSettings
from noria.types import Arm, Candidate, KeyGrant, Ref, Route, Snapshot


@dataclass(frozen=True, slots=True)
class Running:
    """An engine that is kept alive with these adapters."""

    keeper: Supervised[Engine]
    adapters: frozenset[Ref]


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
        self._running: dict[str, Running] = {}
        self._draining: list[Draining] = []
        self._closing: list[threading.Thread] = []
        self._failed: dict[str, Failed] = {}
        self._snapshot = Snapshot(version=0, routes={}, keys={})

    @property
    def snapshot(self) -> Snapshot:
        """What was published last."""
        return self._snapshot

    def poll(self) -> None:
        """Bring what runs one step nearer to what the ledger wants."""
        wanted = {name: self._wanted(name, task) for name, task in self._platform.settings.tasks.items()}
        for engine in sorted(self._engines()):
            adapters = frozenset(
                each.adapter for each in wanted.values() if each.engine == engine and each.adapter is not None
            )
            self._keep(engine, adapters)
        self._announce(wanted)
        self._let_go()

    def close(self) -> None:
        """Stop every engine."""
        for running in self._running.values():
            running.keeper.close()
        for each in self._draining:
            self._close(each.engine)
        self._running, self._draining = {}, []
        for thread in self._closing:
            thread.join()

    def _engines(self) -> set[str]:
        """Every engine that a task answers, compares or falls back with."""
        tasks = self._platform.settings.tasks.values()
        others = {each for task in tasks for each in (*(arm.engine for arm in task.arms.values()), *task.fallback)}
        return {task.engine for task in tasks} | others

    def _wanted(self, name: str, task: TaskSettings) -> Candidate:
        settings = self._platform.settings.engines[task.engine]
        base, quantization = self._platform.engines[settings.kind].base(settings)
        plain = Candidate(
            task=name, base=base, adapter=None, engine=task.engine, quantization=quantization,
            prompt=prompts.definition(task.system),
        )  # fmt: skip
        live = self._platform.deployments.current(name)
        champion = live.champion if live else None
        if champion is None:
            return plain
        missing = [ref for ref in (champion.adapter, champion.index) if ref and not self._platform.lake.has(ref)]
        fits = champion.base == base and champion.engine == task.engine and champion.prompt == plain.prompt
        return champion if fits and not missing else plain

    def _keep(self, name: str, adapters: frozenset[Ref]) -> None:
        running = self._running.get(name)
        if running is not None and running.adapters == adapters:
            restarts = running.keeper.restarts
            running.keeper.poll()
            if running.keeper.restarts != restarts:
                self._report(f"engine '{name}' had died and was started again")
            return
        failed = self._failed.get(name, Failed(0, 0.0))
        if self._monotonic() < failed.due:
            return
        keeper = self._keeper(name, adapters)
        try:
            keeper.begin()
        except NoriaError as error:
            delay = Backoff().delay(failed.times + 1)
            self._failed[name] = Failed(failed.times + 1, self._monotonic() + delay)
            self._report(f"engine '{name}' did not start: {error.fact}; next try in {delay:.1f} s")
            return
        self._failed.pop(name, None)
        if running is not None and running.keeper.child is not None:
            self._draining.append(Draining(running.keeper.child, self._snapshot.version + 1))
        self._running[name] = Running(keeper, adapters)
        self._report(f"engine '{name}' ready with {len(adapters)} adapter{'s' if len(adapters) != 1 else ''}")

    def _keeper(self, name: str, adapters: frozenset[Ref]) -> Supervised[Engine]:
        settings = self._platform.settings.engines[name]
        kind = self._platform.engines[settings.kind]
        folders = {ref: self._platform.lake.path(ref) for ref in sorted(adapters, key=str)}

        def start() -> Engine:
            return kind.start(settings, folders, self._platform.settings.state / "logs" / f"engine-{name}.log")

        return Supervised(start, lambda engine: engine.alive(), self._close, self._monotonic)

    def _announce(self, wanted: dict[str, Candidate]) -> None:
        routes = {name: route for name, each in wanted.items() if (route := self._route(name, each)) is not None}
        keys = {
            key.sha256: KeyGrant(id=key.id, name=key.name, role=key.role, models=key.models, limits=key.limits)
            for key in self._platform.keys.all()
            if key.revoked is None
        }
        gateway = self._platform.settings.gateway.model_dump(mode="json")
        new = Snapshot(
            version=self._snapshot.version + 1, routes={**self._plain(), **routes}, keys=keys, gateway=gateway
        )
        if new.model_copy(update={"version": self._snapshot.version}) != self._snapshot:
            self._publish(new)
            self._snapshot = new

    def _plain(self) -> dict[str, Route]:
        """Base models and adapters under their own names, for those who want them as they are."""
        routes: dict[str, Route] = {}
        for name, running in self._running.items():
            engine = running.keeper.child
            if engine is None:
                continue
            base = engine.endpoint.model
            routes.setdefault(base, Route(arms=(self._arm(name, engine, None, base),)))
            for ref in running.adapters:
                routes.setdefault(f"{base}:{ref.digest}", Route(arms=(self._arm(name, engine, ref, str(ref)),)))
        return routes

    def _arm(self, name: str, engine: Engine, adapter: Ref | None, served_by: str) -> Arm:
        price = self._platform.settings.engines[name].price
        return Arm(
            served_by=served_by,
            engine=name,
            upstreams=(engine.endpoint,),
            extra=engine.extra(adapter),
            price=(price.prompt, price.completion),
        )

    def _route(self, name: str, wanted: Candidate) -> Route | None:
        task = self._platform.settings.tasks[name]
        running = self._running.get(task.engine)
        engine = running.keeper.child if running else None
        if running is None or engine is None:
            return self._snapshot.routes.get(name)
        if wanted.adapter is not None and wanted.adapter not in running.adapters:
            return self._snapshot.routes.get(name)
        index = self._platform.lake.path(wanted.index) / "index" if wanted.index and task.context else None
        champion = self._arm(task.engine, engine, wanted.adapter, str(wanted.ref))
        others = [self._other(arm, each) for arm, each in task.arms.items()]
        rest = max(0.0, 1.0 - sum(arm.share for arm in task.arms.values() if not arm.shadow))
        spare = [self._other("fallback", ArmSettings(engine=each, share=0.0)) for each in task.fallback]
        return Route(
            arms=(
                champion.model_copy(update={"index": str(index) if index else None, "share": rest}),
                *(arm for arm in others if arm is not None),
            ),
            fallbacks=tuple(arm for arm in spare if arm is not None),
            task=task.model_dump(mode="json"),
        )

    def _other(self, name: str, wanted: ArmSettings) -> Arm | None:
        """Another engine's base model, where that engine runs."""
        running = self._running.get(wanted.engine)
        engine = running.keeper.child if running else None
        if engine is None:
            return None
        arm = self._arm(wanted.engine, engine, None, engine.endpoint.model)
        return arm.model_copy(update={"name": name, "share": wanted.share, "shadow": wanted.shadow})

    def _let_go(self) -> None:
        kept = []
        for each in self._draining:
            if self._snapshot.version >= each.version and self._released(each.version, each.engine.endpoint.url):
                self._close(each.engine)
            else:
                kept.append(each)
        self._draining = kept

    def _close(self, engine: Engine) -> None:
        # Draining may take seconds, in which the other engines must be watched.
        thread = threading.Thread(target=engine.close, name="close-engine")
        thread.start()
        self._closing = [*(each for each in self._closing if each.is_alive()), thread]
