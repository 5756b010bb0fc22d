"""Whether an engine works: its own word for it, a real request for one token, and how much memory it takes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from noria.deployment.submit import Submit
from noria.errors import NoriaError, Unavailable
from noria.ports import Engine, Launched, Machine
from noria.settings import EngineSettings
from noria.types import Message

LOOK = 0.5
"""Seconds between two looks at an engine's own word."""
WEIGH = 2.0
"""Seconds between two looks at its memory."""
SILENT = 8.0
"""Seconds after which the look itself hangs, whatever its own limit."""
PROMPT = 2.0
"""Seconds within which one that is gone shows that it is: nobody listens there any more."""
MISSES = 3
"""Requests for one token in a row that an engine may fail."""
ASKED = (Message(role="user", content="Say yes."),)


@dataclass(slots=True)
class _Look:
    """One that is under way."""

    began: float
    future: Future[str]
    """Empty where all is well, else what is wrong."""
    rounds: int = 1
    """Of requests that stood before it, at most."""


class Health:
    """Of one replica. `fault` is asked again and again and never waits; looks are made by `submit`.

    A busy engine is no hung one: the limit for one token grows with the requests that are before it (`queue`).
    """

    def __init__(
        self,
        engine: Engine,
        settings: EngineSettings,
        monotonic: Callable[[], float],
        submit: Submit[str],
        queue: Callable[[str], int],
        machine: Machine | None,
    ) -> None:
        self.engine = engine
        self._settings = settings
        self._monotonic = monotonic
        self._submit = submit
        self._queue = queue
        self._machine = machine
        now = monotonic()
        self._look: _Look | None = None
        self._probe: _Look | None = None
        self._look_due = self._weigh_due = now
        self._probe_due = now + settings.probe_seconds
        self._missed = 0
        self.memory = 0
        """Resident bytes when it was looked at last; 0 where that is not known."""

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that noria has started for it."""
        return self.engine.pids if isinstance(self.engine, Launched) else ()

    def fault(self) -> str:
        """What is wrong with it; empty where nothing is known to be."""
        now = self._monotonic()
        return self._words(now) or self._token(now) or self._weight(now)

    def _words(self, now: float) -> str:
        if self._look is None and now >= self._look_due:
            self._look = _Look(now, self._submit(self._alive))
        if self._look is None:
            return ""
        took = now - self._look.began
        said = self._look.future.result() if self._look.future.done() else ""
        if self._look.future.done():
            self._look, self._look_due = None, now + LOOK
        elif took > SILENT:
            said = "it answers no more"
        # With more in flight than it has slots its page may have to queue like anybody: a token shows what is true.
        crowded = took > PROMPT and self._queue(self.engine.endpoint.url) > self._settings.slots
        return "" if crowded else said

    def _token(self, now: float) -> str:
        every = self._settings.probe_seconds
        if self._probe is None and every and now >= self._probe_due:
            self._probe = _Look(now, self._submit(self._answers))
        if self._probe is None:
            return ""
        if self._probe.future.done():
            said, self._probe = self._probe.future.result(), None
            self._probe_due = now + every
            return said
        # The most that were ever before it: those that have gone since have had their time.
        before = self._queue(self.engine.endpoint.url) // self._settings.slots
        self._probe.rounds = max(self._probe.rounds, 1 + before)
        limit = self._settings.health.limit * self._probe.rounds
        return f"no token in {limit:g} s" if now - self._probe.began > limit else ""

    def _weight(self, now: float) -> str:
        if self._machine is None or now < self._weigh_due:
            return ""
        self._weigh_due = now + WEIGH
        self.memory = self._machine.memory(self.pids) if self.pids else 0
        most = self._settings.memory_bytes
        if most is None or self.memory <= most:
            return ""
        return f"it took {self.memory / 2**20:.0f} MiB, and its limit is {self._settings.memory}"

    def _alive(self) -> str:
        return "" if self.engine.alive() else "it died"

    def _answers(self) -> str:
        try:
            self.engine.answer(ASKED, None, 1, ())
        except Unavailable as error:
            # Once may be that it is busy; a process that is gone is seen by its own word.
            self._missed += 1
            return f"it gives no token: {error.fact}" if self._missed >= MISSES else ""
        except NoriaError:
            # What it refuses it has understood: an engine of vectors alone answers nothing.
            pass
        self._missed = 0
        return ""
