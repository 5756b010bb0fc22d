"""Keeps the running engines and the gateway's snapshot as the ledger wants them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from queue import SimpleQueue
from typing import Literal

from noria.deployment import engine_logs
from noria.deployment.alarm import Alarm
from noria.deployment.around import Around
from noria.deployment.engine_state import EngineStatus, State, Stopped
from noria.deployment.leaving import Leaving
from noria.deployment.ledger_view import LedgerView
from noria.deployment.memory import Memory
from noria.deployment.reality import Realities
from noria.deployment.replicas import House, Replicas, backoff_of, each_of
from noria.deployment.routing import Routes, Wanted
from noria.deployment.starting import starter
from noria.deployment.wanting import wanted
from noria.errors import NoriaError, Unavailable
from noria.ports import Platform
from noria.settings import EngineSettings, TaskSettings
from noria.types import Ref, Snapshot

LOGS_EVERY = 10.0
"""Seconds between two looks at the size of the engines' logs."""
REFUSED = 2.0
"""Seconds for which requests are told that there is no room, before it is tried again."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An engine that could not be started: how often in a row, when the next attempt is due, what was attempted."""

    times: int
    due: float
    fact: str = ""
    attempt: object = None


class Fleet:
    """Starts, watches, switches and stops engines; writes what the gateway needs to know.

    Adapters are fixed when an engine starts, so a release starts a second engine, waits until it is ready, moves the
    routes there and drains the first; where memory has no room for both, the first goes first and requests wait. Call
    `poll` again and again; it never raises for an engine that fails.

    Args:
        platform: the opened back-ends.
        publish: hands a snapshot to the gateway.
        released: whether the gateway has taken this version and has nothing in flight at this URL.
        report: told of every fault and every change, in one line.
        monotonic: seconds, for delays between restarts.
        around: threads, the gateway's numbers, the machine.
    """

    def __init__(
        self,
        platform: Platform,
        publish: Callable[[Snapshot], None],
        released: Callable[[int, str], bool],
        report: Callable[[str], None],
        monotonic: Callable[[], float],
        around: Around | None = None,
    ) -> None:
        self._platform = platform
        self._publish = publish
        self._report = report
        self._monotonic = monotonic
        self._around = around or Around()
        self._leaving = Leaving(released)
        self._memory = Memory(platform.settings.runtime.memory_bytes, self._around.need)
        machine = self._around.machine
        taken = machine.taken if machine is not None else lambda pids: 0
        self._realities = Realities(self._around.plan, taken, self._around.submit, monotonic, report)
        self._alarm = Alarm(platform, report)
        self._stopped = Stopped(platform.settings.state / "stopped.json")
        self._orders = SimpleQueue[tuple[Literal["start", "stop"], str, threading.Event]]()
        self._running: dict[str, Replicas] = {}
        self._coming: dict[str, Replicas] = {}
        self._bases: dict[str, tuple[EngineSettings, Ref, str]] = {}
        self._ledger = LedgerView(report)
        self._failed: dict[str, Failed] = {}
        self._refused: dict[str, Failed] = {}
        self._called: set[str] = set()
        self._had: set[str] = set()
        self._used: dict[str, float] = {}
        self._slept: dict[str, float] = {}
        self._logs_due = 0.0
        self._snapshot = Snapshot(version=0, routes={}, keys={})
        self.engines: tuple[EngineStatus, ...] = self._statuses()
        """Every engine of the settings as it was at the last poll; may be read from any thread."""

    @property
    def snapshot(self) -> Snapshot:
        """What was published last."""
        return self._snapshot

    def order(self, what: Literal["start", "stop"], engine: str) -> threading.Event:
        """Have an engine of the settings started or stopped at the next poll; from any thread.

        What is given back is set once `engines` tell of it.
        """
        obeyed = threading.Event()
        self._orders.put((what, engine, obeyed))
        return obeyed

    def poll(self) -> None:
        """Bring what runs one step nearer to what the ledger wants; while that is away, to what it wanted last."""
        obeyed = self._obey()
        self._ledger.poll(self._platform)
        tasks = self._platform.settings.tasks.items()
        serving = {name: found for name, task in tasks if (found := self._wanted(name, task)) is not None}
        here = self._engines()
        for engine in sorted({*self._running, *self._coming} - here):
            self._unload(engine)
        self._used |= {name: at for name, at in self._around.asked().items() if at > self._used.get(name, 0.0)}
        for engine in sorted(here):
            loaded = (each.adapters for each in serving.values() if each.champion.engine == engine)
            self._keep(engine, frozenset[Ref]().union(*loaded))
        self._announce(serving)
        self._realities.poll(self._running)
        self._leaving.poll(self._snapshot.version)
        self._turn_logs()
        self.engines = self._statuses()
        for each in obeyed:
            each.set()

    def close(self) -> None:
        """Stop every engine."""
        for each in (*self._running.values(), *self._coming.values()):
            each.close()
        self._running, self._coming = {}, {}
        self._leaving.close()

    def take(self, platform: Platform) -> None:
        """Go on with other settings. An engine whose table has changed is started anew, then the old one drained."""
        self._platform = platform

    def _engines(self) -> set[str]:
        """Every engine that a task answers, compares, falls back or finds its context with, or a person has started."""
        tasks = self._platform.settings.tasks.values()
        others = {each for task in tasks for each in (*(arm.engine for arm in task.arms.values()), *task.fallback)}
        meaning = {task.context.engine for task in tasks if task.context is not None and task.context.engine}
        more = self._called & self._platform.settings.engines.keys()
        return {task.engine for task in tasks} | others | meaning | more

    def _obey(self) -> list[threading.Event]:
        done = []
        while not self._orders.empty():
            what, name, obeyed = self._orders.get()
            done.append(obeyed)
            self._failed.pop(name, None)
            self._refused.pop(name, None)
            if what == "stop":
                self._called.discard(name)
                self._stopped.add(name)
                continue
            self._stopped.discard(name)
            self._called.add(name)
            self._used[name] = self._now()
            if name in self._running:
                self._running[name].mend()
        return done

    def _now(self) -> float:
        return self._platform.clock.now().timestamp()

    def _base(self, engine: str, strict: bool = False) -> tuple[Ref, str] | None:
        """An engine's base model, of one that runs or is attached as it was first seen; None while it is not known.

        `strict` raises for a model that is wrong, not only away, as long as nothing was published yet.
        """
        settings = self._platform.settings.engines[engine]
        known = self._bases.get(engine)
        known = known if known is not None and known[0] == settings else None
        if known is not None and (settings.url is not None or engine in self._running):
            return known[1:]
        if known is None and self._waits(engine) and _is_of(self._failed[engine].attempt, settings):
            return None
        try:
            base, quantization = self._platform.engines[settings.kind].base(settings)
        except NoriaError as error:
            if known is not None:
                # What is wrong with the model now shows when it is started.
                return known[1:]
            if strict and self._snapshot.version == 0 and not isinstance(error, Unavailable):
                raise
            self._tried(engine, error, settings)
            return None
        self._bases[engine] = (settings, base, quantization)
        return base, quantization

    def _tried(self, engine: str, error: NoriaError, attempt: object) -> None:
        times = self._failed.get(engine, Failed(0, 0.0)).times + 1
        backoff = backoff_of(self._platform.settings.engines[engine])
        if backoff.opens(times):
            self._failed[engine] = Failed(times, inf, error.fact, attempt)
            self._alarm.fire(engine, f"engine '{engine}' did not start {times} times in a row: {error.fact}")
            return
        delay = backoff.delay(times)
        self._failed[engine] = Failed(times, self._monotonic() + delay, error.fact, attempt)
        self._report(f"engine '{engine}' did not start: {error.fact}; next try in {delay:.1f} s")

    def _waits(self, engine: str) -> bool:
        return self._monotonic() < self._failed.get(engine, Failed(0, 0.0)).due

    def _wanted(self, name: str, task: TaskSettings) -> Wanted | None:
        """What is to serve a task; None as long as its engine's base model is not known."""
        found = self._base(task.engine, strict=True)
        if found is None:
            return None
        return wanted(self._platform, name, found, self._ledger.live.get(name), self._report)

    def _keep(self, name: str, wanted: frozenset[Ref]) -> None:
        """Bring one engine a step nearer to running with these adapters, or to resting."""
        settings = self._platform.settings.engines[name]
        running = self._running.get(name)
        if name in self._stopped:
            self._unload(name)
            return
        if running is not None:
            self._look_after(name, running)
            if running.adapters == wanted and running.settings == settings:
                self._leave(self._coming.pop(name, None), name)
                if not running.broken and self._failed.pop(name, None) is not None:
                    # What failed is not wanted any more.
                    self._alarm.resolve(name)
                if self._is_idle(name, running):
                    self._report(f"engine '{name}' is unloaded: nobody asked it for {settings.idle:g} s")
                    self._unload(name)
                return
        coming = self._coming.get(name)
        if coming is not None and (coming.adapters, coming.settings) != (wanted, settings):
            self._leave(self._coming.pop(name), name)
            coming = None
        coming = coming or self._begun(name, settings, wanted)
        if coming is not None:
            self._follow(name, coming)

    def _begun(self, name: str, settings: EngineSettings, wanted: frozenset[Ref]) -> Replicas | None:
        """Begin to start an engine, unless it has to wait for a request, for its next attempt or for memory."""
        if settings.idle is not None and name not in self._running and not self._missed(name):
            return None
        failed = self._failed.get(name)
        if failed is not None and failed.due == inf and failed.attempt not in (settings, (settings, wanted)):
            del self._failed[name]
        if self._waits(name):
            return None
        running = self._running.get(name)
        held = running is not None and running.settings.port == settings.port
        if settings.port is not None and (held or name in self._leaving.names):
            # Only one can listen there: requests wait until the new one does.
            self._unload(name)
            self._used[name] = self._now()
            return None
        if not self._has_room(name, settings):
            return None
        around = self._around
        house = House(self._monotonic, self._leaving.close_later, around.submit, around.inflight, around.machine)
        fresh = Replicas(settings, wanted, starter(self._platform, name, wanted, around.machine), house)
        self._coming[name] = fresh
        fresh.begin()
        return fresh

    def _follow(self, name: str, coming: Replicas) -> None:
        """See whether an engine that was begun is ready, and let it take over."""
        coming.poll()
        if not coming.settled:
            return
        del self._coming[name]
        faults = coming.failures
        if not coming.live:
            coming.close()
            self._tried(name, faults[0], (coming.settings, coming.adapters))
            return
        self._failed.pop(name, None)
        for fault in faults:
            self._report(f"a replica of engine '{name}' did not start: {fault.fact}; it is tried again")
        self._leave(self._running.pop(name, None), name)
        self._running[name] = coming
        self._had.add(name)
        self._used[name] = self._now()
        self._alarm.resolve(name)
        count = len(coming.adapters)
        self._report(f"engine '{name}' ready with {count} adapter{'s' if count != 1 else ''}")

    def _look_after(self, name: str, running: Replicas) -> None:
        broken = running.broken
        died, back = running.poll()
        if died:
            self._report(f"engine '{name}' died{_of(died, running.settings)}: {running.fault}")
        if back:
            if running.settings.url is None:
                # It was started from the model as it is now.
                self._bases.pop(name, None)
            self._report(f"engine '{name}' had died and was started again{_of(back, running.settings)}")
        if running.broken > broken:
            where = _of(running.broken, running.settings)
            self._alarm.fire(name, f"engine '{name}'{where} crashed too often in a row: {running.fault}")
        elif back and not running.broken:
            self._alarm.resolve(name)

    def _missed(self, name: str) -> bool:
        """Whether an engine that rests was asked since it did so."""
        return self._used.get(name, 0.0) > self._slept.get(name, 0.0)

    def _is_idle(self, name: str, running: Replicas) -> bool:
        idle = running.settings.idle
        if idle is None:
            return False
        if not self._free(running):
            self._used[name] = self._now()
        return self._now() - self._used.get(name, 0.0) > idle

    def _free(self, running: Replicas) -> bool:
        """Whether nothing is in flight there."""
        return not any(self._around.inflight(url) for url in running.urls)

    def _has_room(self, name: str, settings: EngineSettings) -> bool:
        """Whether the engine fits into memory now; makes room where that is possible, refuses where it is not."""
        # Both halves of a release take memory.
        loaded = {**self._running, **{f"{each} (starting)": coming for each, coming in self._coming.items()}}
        old = self._running.get(name)
        going, why = self._memory.room(
            name, settings, loaded, self._used,
            lambda each: each in self._running and each not in self._coming and self._free(self._running[each]),
        )  # fmt: skip
        if why and old is not None:
            # There is no room for the old one and the new: requests wait until the new one is there.
            self._unload(name)
            self._used[name] = self._now()
            return False
        if why:
            if self._refused.get(name, Failed(0, 0.0)).fact != why:
                self._report(f"engine '{name}' is not started: {why}")
            self._refused[name] = Failed(1, self._monotonic() + REFUSED, why)
            self._slept[name] = self._now()
            return False
        for each in going:
            self._report(f"engine '{each}' is unloaded to make room for '{name}'")
            self._unload(each)
        return not going and not self._memory.waits(settings, loaded, self._leaving.bytes)

    def _unload(self, name: str) -> None:
        running = self._running.pop(name, None)
        if running is not None:
            self._slept[name] = self._now()
        self._leave(running, name)
        self._leave(self._coming.pop(name, None), name)

    def _leave(self, replicas: Replicas | None, name: str) -> None:
        """Let replicas finish what the gateway has in flight there, then stop them."""
        if replicas is not None:
            self._leaving.add(name, replicas, self._snapshot.version + 1, self._memory.bytes(replicas))

    def _resting(self) -> dict[str, str]:
        """Engines that are not to be asked, and why; without a reason they are started by the next request."""
        found = {}
        for name in self._engines():
            running, failed = self._running.get(name), self._failed.get(name)
            refused = self._refused.get(name)
            if name in self._stopped:
                found[name] = f"engine '{name}' was stopped"
            elif running is not None and running.broken == running.count:
                found[name] = f"engine '{name}' crashed too often in a row: {running.fault}"
            elif running is not None:
                continue
            elif failed is not None and failed.due == inf:
                found[name] = f"engine '{name}' did not start: {failed.fact}"
            elif refused is not None and self._monotonic() < refused.due:
                found[name] = f"engine '{name}' is not started: {refused.fact}"
            elif name in self._had or self._platform.settings.engines[name].idle is not None:
                found[name] = ""
        return found

    def _announce(self, wanted: dict[str, Wanted]) -> None:
        resting = self._resting()
        launched = [name for name in resting if self._platform.settings.engines[name].model is not None]
        bases = {name: base[0].name for name in launched if (base := self._base(name)) is not None}
        built = Routes(self._platform, self._running, resting, bases, self._ledger.lights)
        new = Snapshot(
            version=self._snapshot.version + 1, routes=built.all(wanted, self._snapshot.routes), keys=self._ledger.keys,
            gateway=self._platform.settings.gateway.model_dump(mode="json"),
        )  # fmt: skip
        if new.model_copy(update={"version": self._snapshot.version}) != self._snapshot:
            self._publish(new)
            self._snapshot = new

    def _turn_logs(self) -> None:
        if self._monotonic() < self._logs_due:
            return
        self._logs_due = self._monotonic() + LOGS_EVERY
        settings = self._platform.settings
        for name in settings.engines:
            for file in engine_logs.files_of(settings.state / "logs", name):
                engine_logs.rotate(file, settings.runtime.engine_log_bytes)

    def _statuses(self) -> tuple[EngineStatus, ...]:
        return tuple(self._status(name) for name in sorted(self._platform.settings.engines))

    def _status(self, name: str) -> EngineStatus:
        settings = self._platform.settings.engines[name]
        running, failed, refused = self._running.get(name), self._failed.get(name), self._refused.get(name)
        error = (running.fault if running is not None else "") or (failed or refused or Failed(0, 0.0)).fact
        found = EngineStatus(name, settings.kind, self._state(name), replicas=len(each_of(settings)), error=error)
        if running is None:
            return found
        return EngineStatus(
            name, settings.kind, found.state, len(running.children), found.replicas, running.pids,
            tuple(sorted(running.urls)), running.memory, tuple(sorted(map(str, running.adapters))), running.restarts,
            error, self._realities.of(name),
        )  # fmt: skip

    def _state(self, name: str) -> State:
        running, failed = self._running.get(name), self._failed.get(name)
        if running is not None and running.children:
            return "ready"
        if running is not None:
            return "failed" if running.broken == running.count else "starting"
        if name in self._leaving.names:
            return "draining"
        if name in self._coming:
            return "starting"
        if name in self._stopped or name not in self._engines():
            return "stopped"
        if failed is not None:
            return "failed" if failed.due == inf else "starting"
        return "starting" if self._platform.settings.engines[name].idle is None else "idle"


def _of(number: int, settings: EngineSettings) -> str:
    """How many of how many, where there are several."""
    count = len(each_of(settings))
    return f" ({number} of {count} replicas)" if count > 1 else ""


def _is_of(attempt: object, settings: EngineSettings) -> bool:
    """Whether an attempt was one with these settings, with whatever adapters."""
    return attempt == settings or (isinstance(attempt, tuple) and attempt[0] == settings)
