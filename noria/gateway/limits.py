"""What callers have used, in one file that all workers of this machine map into their memory.

Minutes are kept by the generic cell rate algorithm (ITU-T I.371): one number per limit, the time at which all that was
used will have come back. Tokens are reserved when a request is let in and settled when it has ended, so that requests
which run side by side cannot all pass one limit.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from noria.errors import NoriaError, Unavailable
from noria.settings import LimitSettings

SUBJECTS: Final = 8192
"""Keys and tasks that one file has room for."""
WORKERS: Final = 32
_INEXACT: Final = 1e-4
"""Seconds that a sum of times since 1970 may be off."""
_MINUTE: Final = 60.0
_DAY: Final = 86400.0

_NUMBERS: Final = 16
"""A subject has 128 bytes, seen as 16 doubles: its name's hash, then those below; in the last 8 of them there are
32 16-bit counters, the requests in flight of each worker."""
_REQUESTS, _TOKENS, _TODAY, _USED, _SPENT = range(1, 6)
_STREAMS: Final = 32
"""Place of the first counter, in counters."""


class Limited(NoriaError):
    """A limit is reached. `limit` is its name, `wait` the seconds until it is worth asking again."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, limit: str, subject: str, most: float, wait: float) -> None:
        super().__init__(f"limit '{limit}' of {subject} is reached: {most:g}", f"ask again in {max(1, round(wait))} s")
        self.limit = limit
        self.wait = wait


class Subject:
    """Whose use is counted: `name` is its unique name, `shown` how errors call it.

    What is asked for every request is worked out once: seconds that a request or a token takes of its minute.
    """

    __slots__ = (
        "limited",
        "limits",
        "most_cost",
        "most_streams",
        "most_tokens",
        "name",
        "per_request",
        "per_token",
        "shown",
    )

    def __init__(self, name: str, shown: str, limits: LimitSettings) -> None:
        self.name = name
        self.shown = shown
        self.limits = limits
        self.limited = limits != LimitSettings()
        self.per_request = _MINUTE / limits.requests_per_minute if limits.requests_per_minute else 0.0
        self.per_token = _MINUTE / limits.tokens_per_minute if limits.tokens_per_minute else 0.0
        self.most_tokens = limits.tokens_per_day or 0
        self.most_cost = limits.cost_per_day or 0.0
        self.most_streams = limits.streams or 0


class Reservation:
    """What a request was let in with, to be settled once."""

    __slots__ = ("at", "cost", "open", "subjects", "tokens")

    def __init__(self, subjects: Sequence[Subject], tokens: int, cost: float, at: float) -> None:
        self.subjects = subjects
        self.tokens = tokens
        self.cost = cost
        self.at = at
        self.open = bool(subjects)


class Ledger:
    """The shared counters. `worker` is this worker's number, from 0; `alone` that there is no other one."""

    def __init__(self, file: Path, worker: int = 0, alone: bool = True) -> None:
        """Open or make the file; what a dead worker of this number had in flight is forgotten. Raises OSError.

        One that is alone forgets what any worker had in flight.
        """
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._worker = worker
        self._alone = alone
        self._places: dict[str, int] = {}
        size = SUBJECTS * _NUMBERS * 8
        with self._locked():
            if os.fstat(self._fd).st_size != size:
                os.ftruncate(self._fd, 0)
                os.ftruncate(self._fd, size)
            self._map = mmap.mmap(self._fd, size)
            whole = memoryview(self._map)
            self._names, self._numbers, self._counts = whole.cast("Q"), whole.cast("d"), whole.cast("H")
            for place in range(SUBJECTS):
                for each in range(WORKERS) if alone else (worker,):
                    self._counts[place * 4 * _NUMBERS + _STREAMS + each] = 0

    def close(self) -> None:
        """Let go of the file."""
        for view in (self._names, self._numbers, self._counts):
            view.release()
        os.close(self._fd)

    def reserve(self, subjects: Sequence[Subject], tokens: int, cost: float, now: float) -> Reservation:
        """Let a request in that will use about so many tokens; raises Limited, and then nothing was counted."""
        limited = [subject for subject in subjects if subject.limited]
        if limited:
            if self._alone:
                self._reserve(limited, tokens, cost, now)
            else:
                with self._locked():
                    self._reserve(limited, tokens, cost, now)
        return Reservation(limited, tokens, cost, now)

    def settle(self, reservation: Reservation, tokens: int, cost: float) -> None:
        """Count what a request has really used and give its place free; a second call does nothing."""
        if reservation.open:
            reservation.open = False
            if self._alone:
                self._settle(reservation, tokens, cost)
            else:
                with self._locked():
                    self._settle(reservation, tokens, cost)

    def used(self, subject: Subject, now: float) -> dict[str, float]:
        """Tokens and cost of this day, and the requests in flight."""
        with self._locked():
            at = self._place(subject)
            today = self._numbers[at + _TODAY] == now // _DAY
            return {
                "tokens": self._numbers[at + _USED] if today else 0,
                "cost": self._numbers[at + _SPENT] if today else 0.0,
                "streams": self._streams(at),
            }

    def _reserve(self, subjects: Sequence[Subject], tokens: int, cost: float, now: float) -> None:
        for subject in subjects:
            self._check(self._place(subject), subject, tokens, cost, now)
        numbers = self._numbers
        for subject in subjects:
            at = self._places[subject.name]
            if subject.per_request:
                numbers[at + _REQUESTS] = max(numbers[at + _REQUESTS], now) + subject.per_request
            if subject.per_token:
                numbers[at + _TOKENS] = max(numbers[at + _TOKENS], now) + tokens * subject.per_token
            numbers[at + _USED] += tokens
            numbers[at + _SPENT] += cost
            self._counts[at * 4 + _STREAMS + self._worker] += 1

    def _settle(self, reservation: Reservation, tokens: int, cost: float) -> None:
        numbers = self._numbers
        more = tokens - reservation.tokens
        for subject in reservation.subjects:
            at = self._places[subject.name]
            if subject.per_token:
                numbers[at + _TOKENS] += more * subject.per_token
            if numbers[at + _TODAY] == reservation.at // _DAY:
                numbers[at + _USED] += more
                numbers[at + _SPENT] += cost - reservation.cost
            counter = at * 4 + _STREAMS + self._worker
            self._counts[counter] = max(self._counts[counter], 1) - 1

    def _check(self, at: int, subject: Subject, tokens: int, cost: float, now: float) -> None:
        numbers = self._numbers
        if numbers[at + _TODAY] != now // _DAY:
            numbers[at + _TODAY], numbers[at + _USED], numbers[at + _SPENT] = now // _DAY, 0.0, 0.0
        if (
            subject.per_request
            and (wait := max(numbers[at + _REQUESTS] - now, 0.0) + subject.per_request - _MINUTE) > _INEXACT
        ):
            raise Limited("requests_per_minute", subject.shown, subject.limits.requests_per_minute or 0, wait)
        # One request that is larger than a whole minute's allowance may pass when nothing else is in use.
        taken = min(_MINUTE, tokens * subject.per_token)
        if taken and (wait := max(numbers[at + _TOKENS] - now, 0.0) + taken - _MINUTE) > _INEXACT:
            raise Limited("tokens_per_minute", subject.shown, subject.limits.tokens_per_minute or 0, wait)
        if subject.most_tokens and numbers[at + _USED] + tokens > subject.most_tokens:
            raise Limited("tokens_per_day", subject.shown, subject.most_tokens, _DAY - now % _DAY)
        if subject.most_cost and numbers[at + _SPENT] + cost > subject.most_cost:
            raise Limited("cost_per_day", subject.shown, subject.most_cost, _DAY - now % _DAY)
        if subject.most_streams and self._streams(at) >= subject.most_streams:
            raise Limited("streams", subject.shown, subject.most_streams, 1.0)

    def _streams(self, at: int) -> int:
        first = at * 4 + _STREAMS
        if self._alone:
            return self._counts[first + self._worker]
        return sum(self._counts[first : first + WORKERS])

    def _place(self, subject: Subject) -> int:
        """Where a subject is counted, in numbers: an open-addressing table keyed by a part of a SHA-256."""
        found = self._places.get(subject.name)
        if found is not None:
            return found
        digest = hashlib.sha256(subject.name.encode()).digest()
        # Zero marks a free place.
        name, start = int.from_bytes(digest[:8], "little") or 1, int.from_bytes(digest[8:16], "little")
        for step in range(SUBJECTS):
            at = (start + step) % SUBJECTS * _NUMBERS
            if self._names[at] == 0:
                self._names[at] = name
            if self._names[at] == name:
                self._places[subject.name] = at
                return at
        raise Unavailable(f"limits are kept for {SUBJECTS} keys and tasks only", "revoke keys that nobody uses")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._alone:
            yield
            return
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)


def forget(file: Path, worker: int | None = None) -> None:
    """Forget the requests in flight of a dead worker, or of all of them, when none is running; raises OSError."""
    Ledger(file, worker or 0, alone=worker is None).close()
