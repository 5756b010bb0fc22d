"""Keeps a child alive: starts it again when it dies, waiting longer after each crash, until there are too many."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from noria.deployment.submit import Submit, at_once
from noria.errors import NoriaError, Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before a crashed child is started again: `first`, then `factor` times more, `most` at most.

    A child that lived `calm` seconds has settled: its next crash counts as a first one. After `breaks` crashes in a
    row the circuit breaker opens (M. Nygard, "Release It!"): no start any more until somebody says so; None never
    does. Of a wait, the part `jitter` is drawn by lot, so that children that died together do not come back so.
    """

    first: float = 0.2
    factor: float = 2.0
    most: float = 10.0
    calm: float = 30.0
    breaks: int | None = None
    jitter: float = 0.0

    def delay(self, crashes: int) -> float:
        """Longest seconds to wait after this many crashes in a row (from 1)."""
        wait = self.first
        for _ in range(crashes - 1):
            if wait >= self.most:
                break
            wait *= self.factor
        return min(wait, self.most)

    def drawn(self, crashes: int, lot: float) -> float:
        """Seconds to wait with a lot in [0, 1)."""
        return self.delay(crashes) * (1.0 - self.jitter * lot)

    def opens(self, crashes: int) -> bool:
        """Whether so many crashes in a row open the breaker."""
        return self.breaks is not None and crashes >= self.breaks


class Supervised(Generic[T]):
    """One child and its restarts. It has no thread: the owner calls `poll` in its loop, every 0.2 s or so.

    `start` makes a ready child and may raise Unavailable; `alive` says whether one still works and must not take
    long; `stop` ends one and frees what it held; `bury` does so for one that is dead or hangs. `clock` gives seconds
    that never go back. With a `submit` that uses threads, a start takes no time of `poll`.
    """

    def __init__(
        self,
        start: Callable[[], T],
        alive: Callable[[T], bool],
        stop: Callable[[T], None],
        clock: Callable[[], float],
        backoff: Backoff | None = None,
        *,
        bury: Callable[[T], None] | None = None,
        submit: Submit[T] = at_once,
        lot: Callable[[], float] = random.random,
    ) -> None:
        self._start = start
        self._alive = alive
        self._stop = stop
        self._bury = bury or stop
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._submit = submit
        self._lot = lot
        self._child: T | None = None
        self._starting: Future[T] | None = None
        self._began = 0.0
        self._due: float | None = None
        self._lived = False
        self.crashes = 0
        """Crashes in a row, failed starts among them."""
        self.restarts = 0
        """How often a dead child was replaced."""
        self.failure: NoriaError | None = None
        """Why the last attempt to start failed; None when it did not."""
        self.broken = False
        """Whether there were so many crashes in a row that it is not started again until `mend`."""

    @property
    def child(self) -> T | None:
        """The child in use; None before it was started, after `close`, and between a crash and the restart."""
        return self._child

    @property
    def starting(self) -> bool:
        """Whether a start is under way."""
        return self._starting is not None

    def begin(self) -> T:
        """Start the child for the first time; what `start` raises goes to the caller, who is still watching."""
        self._child = self._start()
        self._lived = True
        self._began = self._clock()
        self._due = None
        return self._child

    def launch(self) -> None:
        """Begin to start the child; `poll` sees how it went, and counts a failure as a crash."""
        self._due = None
        self._starting = self._submit(self._start)

    def later(self) -> None:
        """Count a start that failed as one more crash, so that `poll` tries again when the delay is over."""
        self._crashed()

    def mend(self) -> None:
        """Close the breaker: forget the crashes, and start at the next `poll` where there is no child."""
        self.crashes, self.broken, self.failure = 0, False, None
        if self._child is None and self._starting is None:
            self._due = self._clock()

    def poll(self) -> T | None:
        """Look at the child once and do what is due; returns the child in use.

        A NoriaError of `start` counts as one more crash and stays in `failure`. Of those that are no Unavailable the
        caller is told too, since another attempt would meet them again.
        """
        if self._starting is not None:
            if self._starting.done():
                self._arrived(self._starting)
        elif self._child is not None:
            if not self._alive(self._child):
                self._lost(self._child)
        elif self._due is not None and self._clock() >= self._due:
            self.launch()
            if self._starting is not None and self._starting.done():
                self._arrived(self._starting)
        return self._child

    def release(self) -> T | None:
        """Give the child away, to be stopped by others, and start none again until `begin`."""
        child, self._child = self._child, None
        self.close()
        return child

    def close(self) -> None:
        """Stop the child, if there is one or as soon as it has come up, and start none again until `begin`."""
        self._due = None
        child, self._child = self._child, None
        starting, self._starting = self._starting, None
        if child is not None:
            self._stop(child)
        if starting is not None:
            starting.add_done_callback(self._unwanted)

    def _arrived(self, starting: Future[T]) -> None:
        self._starting = None
        try:
            self._child = starting.result()
        except NoriaError as error:
            self.failure = error
            self._crashed()
            if not isinstance(error, Unavailable):
                raise
            return
        self.failure = None
        self.restarts += self._lived
        self._lived = True
        self._began = self._clock()
        self._due = None

    def _unwanted(self, started: Future[T]) -> None:
        if not started.cancelled() and started.exception() is None:
            self._stop(started.result())

    def _lost(self, child: T) -> None:
        if self._clock() - self._began >= self._backoff.calm:
            self.crashes = 0
        self._child = None
        self._crashed()
        self._bury(child)

    def _crashed(self) -> None:
        self.crashes += 1
        if self._backoff.opens(self.crashes):
            self.broken, self._due = True, None
            return
        self._due = self._clock() + self._backoff.drawn(self.crashes, self._lot())
