"""Keeps a child alive: starts it again when it dies, waiting longer after each crash that follows another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from noria.errors import Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before a crashed child is started again: `first`, then `factor` times more, `most` at most.

    A child that lived `calm` seconds has settled: its next crash counts as a first one.
    """

    first: float = 0.2
    factor: float = 2.0
    most: float = 10.0
    calm: float = 30.0

    def delay(self, crashes: int) -> float:
        """Seconds to wait after this many crashes in a row (from 1)."""
        wait = self.first
        for _ in range(crashes - 1):
            if wait >= self.most:
                break
            wait *= self.factor
        return min(wait, self.most)


class Supervised(Generic[T]):
    """One child and its restarts. It has no thread: the owner calls `poll` in its loop, every 0.2 s or so.

    `start` makes a ready child and may raise Unavailable; `alive` says whether one still works; `stop` ends one,
    dead or alive, and frees what it held. `clock` gives seconds that never go back.
    """

    def __init__(
        self,
        start: Callable[[], T],
        alive: Callable[[T], bool],
        stop: Callable[[T], None],
        clock: Callable[[], float],
        backoff: Backoff | None = None,
    ) -> None:
        self._start = start
        self._alive = alive
        self._stop = stop
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._child: T | None = None
        self._began = 0.0
        self._crashes = 0
        self._due: float | None = None
        self.restarts = 0
        """How often a dead child was replaced."""
        self.failure: Unavailable | None = None
        """Why the last attempt to start failed; None when it did not."""

    @property
    def child(self) -> T | None:
        """The child in use; None before `begin`, after `close`, and between a crash and the restart."""
        return self._child

    def begin(self) -> T:
        """Start the child for the first time; what `start` raises goes to the caller, who is still watching."""
        self._child = self._start()
        self._began = self._clock()
        self._due = None
        return self._child

    def later(self) -> None:
        """Count a start that failed as one more crash, so that `poll` tries again when the delay is over."""
        self._crashed()

    def poll(self) -> T | None:
        """Look at the child once and do what is due; returns the child in use.

        A restart takes as long as `start` does. An Unavailable of `start` counts as one more crash and stays in
        `failure`; any other error reaches the caller, since another attempt would meet it again.
        """
        if self._child is not None and not self._alive(self._child):
            self._bury(self._child)
        elif self._due is not None and self._clock() >= self._due:
            self._restart()
        return self._child

    def close(self) -> None:
        """Stop the child, if there is one, and start none again until `begin`."""
        self._due = None
        child, self._child = self._child, None
        if child is not None:
            self._stop(child)

    def _bury(self, child: T) -> None:
        if self._clock() - self._began >= self._backoff.calm:
            self._crashes = 0
        self._child = None
        self._crashed()
        self._stop(child)

    def _restart(self) -> None:
        try:
            child = self._start()
        except Unavailable as error:
            self.failure = error
            self._crashed()
            return
        self.failure = None
        self.restarts += 1
        self._child = child
        self._began = self._clock()
        self._due = None

    def _crashed(self) -> None:
        self._crashes += 1
        self._due = self._clock() + self._backoff.delay(self._crashes)
