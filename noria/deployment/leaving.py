"""Engines that go: drained by the gateway, then closed, in threads, since that may take seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from noria.adapters import endpoint
from noria.deployment.replicas import Replicas
from noria.ports import Engine


@dataclass(frozen=True, slots=True)
class Draining:
    """An engine that no snapshot from `version` on names; it is closed when the gateway has let go of it."""

    name: str
    engine: Engine
    version: int
    urls: frozenset[str]
    """Of all its servers."""
    bytes: int


@dataclass(frozen=True, slots=True)
class _Closing:
    name: str
    bytes: int
    thread: threading.Thread


class Leaving:
    """Lets go of engines. `released`: whether the gateway has taken a version and has nothing in flight at a URL."""

    def __init__(self, released: Callable[[int, str], bool]) -> None:
        self._released = released
        self._draining: list[Draining] = []
        self._closing: list[_Closing] = []
        self._adding = threading.Lock()

    @property
    def names(self) -> set[str]:
        """Engines of which something is still there."""
        return {each.name for each in self._draining} | {each.name for each in self._running()}

    @property
    def bytes(self) -> int:
        """What they take until they are gone."""
        return sum(each.bytes for each in self._draining) + sum(each.bytes for each in self._running())

    def add(self, name: str, replicas: Replicas, version: int, size: int) -> None:
        """Begin to let go of replicas that snapshots from `version` on do not name; all of them take `size` bytes."""
        refs = (None, *replicas.adapters)
        engines = replicas.release()
        for engine in engines:
            urls = frozenset(endpoint(engine, adapter).url for adapter in refs)
            self._draining.append(Draining(name, engine, version, urls, size // len(engines)))

    def poll(self, version: int) -> None:
        """Close those that the gateway has let go of, with this snapshot published last."""
        kept = []
        for each in self._draining:
            if version >= each.version and all(self._released(each.version, url) for url in each.urls):
                self._close(each.engine, each.name, each.bytes)
            else:
                kept.append(each)
        self._draining = kept

    def close_later(self, engine: Engine) -> None:
        """Close an engine that nobody asks any more; from any thread.

        One that came up when it was not wanted any more is closed by the thread that has started it.
        """
        self._close(engine, "", 0)

    def close(self) -> None:
        """Close all of them, whatever is in flight, and wait for their end."""
        for each in self._draining:
            self._close(each.engine, each.name, each.bytes)
        self._draining = []
        for closing in self._closing:
            closing.thread.join()

    def _running(self) -> list[_Closing]:
        return [each for each in self._closing if each.thread.is_alive()]

    def _close(self, engine: Engine, name: str, size: int) -> None:
        # Draining may take seconds, in which the other engines must be watched.
        thread = threading.Thread(target=engine.close, name="close-engine")
        thread.start()
        with self._adding:
            # The list is replaced, never changed: who reads it needs no lock.
            self._closing = [*self._running(), _Closing(name, size, thread)]
