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
import struct
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
_USE: Final = struct.Struct("=5d")
"""When the requests and the tokens of a minute will have come back, which day it is, its tokens, and its cost."""
_FIRST: Final = 8
"""Byte of a subject at which these stand."""
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
            self._names, self._counts = whole.cast("Q"), whole.cast("H")
            for place in range(SUBJECTS):
                for each in range(WORKERS) if alone else (worker,):
                    self._counts[place * 4 * _NUMBERS + _STREAMS + each] = 0

    def close(self) -> None:
        """Let go of the file."""
        for view in (self._names, self._counts):
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
            _, _, day, used, spent = _USE.unpack_from(self._map, at * 8 + _FIRST)
            today = day == now // _DAY
            return {
                "tokens": used if today else 0,
                "cost": spent if today else 0.0,
                "streams": self._streams(at),
            }

    def _reserve(self, subjects: Sequence[Subject], tokens: int, cost: float, now: float) -> None:
        today = now // _DAY
        taken = [self._check(subject, tokens, cost, now, today) for subject in subjects]
        # Nothing is counted before all of them have let it pass.
        for at, use in taken:
            _USE.pack_into(self._map, at * 8 + _FIRST, *use)
            self._counts[at * 4 + _STREAMS + self._worker] += 1

    def _check(
        self, subject: Subject, tokens: int, cost: float, now: float, today: float
    ) -> tuple[int, tuple[float, float, float, float, float]]:
        """Where a subject is counted, and its use with this request; raises Limited."""
        at = self._places.get(subject.name)
        if at is None:
            at = self._place(subject)
        requests, minute, day, used, spent = _USE.unpack_from(self._map, at * 8 + _FIRST)
        if day != today:
            used, spent = 0.0, 0.0
        if subject.per_request:
            requests = (requests if requests > now else now) + subject.per_request
            if (wait := requests - now - _MINUTE) > _INEXACT:
                raise Limited("requests_per_minute", subject.shown, subject.limits.requests_per_minute or 0, wait)
        if subject.per_token:
            minute = minute if minute > now else now
            whole = tokens * subject.per_token
            # One request that is larger than a whole minute's allowance may pass when nothing else is in use.
            if (wait := minute - now + (whole if whole < _MINUTE else _MINUTE) - _MINUTE) > _INEXACT:
                raise Limited("tokens_per_minute", subject.shown, subject.limits.tokens_per_minute or 0, wait)
            minute += whole
        used += tokens
        if subject.most_tokens and used > subject.most_tokens:
            raise Limited("tokens_per_day", subject.shown, subject.most_tokens, _DAY - now % _DAY)
        spent += cost
        if subject.most_cost and spent > subject.most_cost:
            raise Limited("cost_per_day", subject.shown, subject.most_cost, _DAY - now % _DAY)
        if subject.most_streams and self._streams(at) >= subject.most_streams:
            raise Limited("streams", subject.shown, subject.most_streams, 1.0)
        return at, (requests, minute, today, used, spent)

    def _settle(self, reservation: Reservation, tokens: int, cost: float) -> None:
        more = tokens - reservation.tokens
        for subject in reservation.subjects:
            at = self._places[subject.name]
            requests, minute, day, used, spent = _USE.unpack_from(self._map, at * 8 + _FIRST)
            minute += more * subject.per_token
            if day == reservation.at // _DAY:
                used += more
                spent += cost - reservation.cost
            _USE.pack_into(self._map, at * 8 + _FIRST, requests, minute, day, used, spent)
            counter = at * 4 + _STREAMS + self._worker
            if self._counts[counter]:
                self._counts[counter] -= 1

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
