"""The processes or servers of one engine, which answer alike and are kept alive one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from noria.adapters import endpoint
from noria.deployment.health import Health
from noria.deployment.submit import Submit, at_once
from noria.deployment.supervise import Backoff, Supervised
from noria.errors import NoriaError
from noria.ports import Engine, Launched, Machine
from noria.settings import EngineSettings
from noria.types import Endpoint, Ref

Start = Callable[[EngineSettings, int], Engine]
"""Starts or attaches the replica of this number (from 0) and returns it ready; raises NoriaError."""
LAUNCHED = Backoff(calm=120.0, breaks=3, jitter=0.5)
"""For what noria starts: three crashes in a row, none after two calm minutes, and it stays down."""
ATTACHED = Backoff(jitter=0.5)
"""A server of somebody else is tried for ever: nothing of it is ours to break."""


def backoff_of(settings: EngineSettings) -> Backoff:
    """How long to wait between two starts of such an engine."""
    return ATTACHED if settings.model is None else LAUNCHED


@dataclass(frozen=True, slots=True)
class House:
    """What replicas live on: seconds, threads, the requests in flight at an address, and the operating system."""

    monotonic: Callable[[], float]
    stop: Callable[[Engine], None]
    """Ends a replica after the requests in flight."""
    submit: Submit[Any] = at_once
    queue: Callable[[str], int] = lambda url: 0
    machine: Machine | None = None
    """None where processes cannot be looked at."""


class Replicas:
    """The replicas of one engine with one set of adapters.

    One that is dead is left out of `live` until it is back. When none is left, those that were live last stay there:
    the gateway asks them again for a while, instead of telling its callers that there is no such model.
    """

    def __init__(self, settings: EngineSettings, adapters: frozenset[Ref], start: Start, house: House) -> None:
        self.settings = settings
        self.adapters = adapters
        self._house = house
        self._health: dict[int, Health] = {}
        self._keepers = [
            Supervised(
                partial(start, each, number), partial(self._works, number), house.stop, house.monotonic,
                backoff_of(settings), bury=self._bury, submit=house.submit,
            )
            for number, each in enumerate(each_of(settings))
        ]  # fmt: skip
        self.live: tuple[Engine, ...] = ()
        self.fault = ""
        """What went wrong last."""

    def begin(self) -> None:
        """Begin to start all of them; `poll` sees how it went."""
        for keeper in self._keepers:
            keeper.launch()
        self.poll()

    def poll(self) -> tuple[int, int]:
        """Look after them once; returns how many have died and how many are back."""
        before = [keeper.child for keeper in self._keepers]
        for keeper in self._keepers:
            try:
                keeper.poll()
            except NoriaError:
                # It stays in the keeper's `failure` and is tried again like any other.
                continue
        for number, keeper in enumerate(self._keepers):
            if keeper.child is None:
                self._health.pop(number, None)
            if keeper.failure is not None:
                self.fault = keeper.failure.fact
        after = [keeper.child for keeper in self._keepers]
        self.live = tuple(self.children) or self.live
        died = sum(was is not None and now is None for was, now in zip(before, after, strict=True))
        back = sum(was is None and now is not None for was, now in zip(before, after, strict=True))
        return died, back

    @property
    def settled(self) -> bool:
        """Whether it is known of each how its first start went."""
        return all(not keeper.starting or keeper.crashes for keeper in self._keepers)

    @property
    def failures(self) -> list[NoriaError]:
        """Why some could not be started."""
        return [keeper.failure for keeper in self._keepers if keeper.failure is not None]

    @property
    def broken(self) -> int:
        """How many crashed so often in a row that they are not started again."""
        return sum(keeper.broken for keeper in self._keepers)

    @property
    def restarts(self) -> int:
        """How often a dead one was replaced."""
        return sum(keeper.restarts for keeper in self._keepers)

    @property
    def count(self) -> int:
        """How many there should be."""
        return len(self._keepers)

    @property
    def memory(self) -> int:
        """Resident bytes of all of them when they were looked at last."""
        return sum(each.memory for each in self._health.values())

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that noria has started for them."""
        return tuple(pid for each in self.children if isinstance(each, Launched) for pid in each.pids)

    @property
    def urls(self) -> frozenset[str]:
        """Addresses of all their servers."""
        return frozenset(endpoint(engine, ref).url for engine in self.children for ref in (None, *self.adapters))

    def mend(self) -> None:
        """Start those again that are not started any more."""
        for keeper in self._keepers:
            if keeper.broken:
                keeper.mend()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where the live ones answer."""
        return tuple(engine.endpoint for engine in self.live)

    def at(self, adapter: Ref | None) -> tuple[Endpoint, ...]:
        """Where the live ones answer with this adapter."""
        return tuple(endpoint(engine, adapter) for engine in self.live)

    @property
    def children(self) -> list[Engine]:
        """Those that really live."""
        return [keeper.child for keeper in self._keepers if keeper.child is not None]

    def release(self) -> list[Engine]:
        """Give those that live away, to be stopped by others; one that is still starting is stopped."""
        return [child for keeper in self._keepers if (child := keeper.release()) is not None]

    def close(self) -> None:
        """Stop all of them, those that are still starting too."""
        for keeper in self._keepers:
            keeper.close()

    def _works(self, number: int, engine: Engine) -> bool:
        health = self._health.get(number)
        if health is None or health.engine is not engine:
            house = self._house
            health = self._health[number] = Health(
                engine, self.settings, house.monotonic, house.submit, house.queue, house.machine
            )
        fault = health.fault()
        self.fault = fault or self.fault
        return not fault

    def _bury(self, engine: Engine) -> None:
        """End one that is dead or hangs: what it has in flight will not come to an end."""
        if self._house.machine is not None and isinstance(engine, Launched):
            self._house.machine.kill(engine.pids)
        self._house.stop(engine)


def each_of(settings: EngineSettings) -> Sequence[EngineSettings]:
    """The settings of each replica: one for each address of an attached engine, else `replicas` equal ones."""
    if settings.url is not None:
        return [settings.model_copy(update={"url": url, "urls": ()}) for url in (settings.url, *settings.urls)]
    return [settings] * settings.replicas
