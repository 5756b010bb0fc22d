"""The processes or servers of one engine, which answer alike and are kept alive one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from noria.adapters import endpoint
from noria.deployment.supervise import Supervised
from noria.errors import NoriaError
from noria.ports import Engine
from noria.settings import EngineSettings
from noria.types import Endpoint, Ref

Start = Callable[[EngineSettings, int], Engine]
"""Starts or attaches the replica of this number (from 0) and returns it ready; raises NoriaError."""


class Replicas:
    """The replicas of one engine with one set of adapters.

    One that is dead is left out of `live` until it is back. When none is left, those that were live last stay there:
    the gateway asks them again for a while, instead of telling its callers that there is no such model.
    """

    def __init__(
        self,
        settings: EngineSettings,
        adapters: frozenset[Ref],
        start: Start,
        stop: Callable[[Engine], None],
        monotonic: Callable[[], float],
    ) -> None:
        """`stop` ends a replica; `monotonic` gives seconds."""
        self.settings = settings
        self.adapters = adapters
        self._keepers = [
            Supervised(partial(start, each, number), _lives, stop, monotonic)
            for number, each in enumerate(each_of(settings))
        ]
        self.live: tuple[Engine, ...] = ()

    def begin(self) -> list[NoriaError]:
        """Start all of them at the same time; returns the faults of those that are tried again later.

        Raises the first fault when none could be started.
        """
        if len(self._keepers) == 1:
            self._keepers[0].begin()
            faults: list[NoriaError] = []
        else:
            with ThreadPoolExecutor(len(self._keepers), thread_name_prefix="start-engine") as pool:
                faults = [fault for fault in pool.map(_begun, self._keepers) if fault is not None]
            if len(faults) == len(self._keepers):
                raise faults[0]
        self._look()
        return faults

    def poll(self) -> tuple[int, int]:
        """Look after them once; returns how many have died and how many are back."""
        before = [keeper.child for keeper in self._keepers]
        for keeper in self._keepers:
            try:
                keeper.poll()
            except NoriaError:
                keeper.later()
        after = [keeper.child for keeper in self._keepers]
        self._look()
        died = sum(was is not None and now is None for was, now in zip(before, after, strict=True))
        back = sum(was is None and now is not None for was, now in zip(before, after, strict=True))
        return died, back

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

    def close(self) -> None:
        """Stop all of them."""
        for keeper in self._keepers:
            keeper.close()

    def _look(self) -> None:
        self.live = tuple(self.children) or self.live


def each_of(settings: EngineSettings) -> Sequence[EngineSettings]:
    """The settings of each replica: one for each address of an attached engine, else `replicas` equal ones."""
    if settings.url is not None:
        return [settings.model_copy(update={"url": url, "urls": ()}) for url in (settings.url, *settings.urls)]
    return [settings] * settings.replicas


def _lives(engine: Engine) -> bool:
    return engine.alive()


def _begun(keeper: Supervised[Engine]) -> NoriaError | None:
    try:
        keeper.begin()
    except NoriaError as error:
        keeper.later()
        return error
    return None
