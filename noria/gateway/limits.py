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
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from noria.errors import NoriaError, Unavailable
from noria.settings import LimitSettings

SUBJECTS: Final = 8192
"""Keys and tasks that one file has room for."""
WORKERS: Final = 32
_MINUTE: Final = 60.0
_DAY: Final = 86400.0

_USE = struct.Struct("<8sddqqd")
"""Subject, requests and tokens (times at which they will have come back), day, tokens and cost of that day."""
_STREAMS = struct.Struct(f"<{WORKERS}H")
_SLOT: Final = _USE.size + _STREAMS.size


class Limited(NoriaError):
    """A limit is reached. `limit` is its name, `wait` the seconds until it is worth asking again."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, limit: str, subject: str, most: float, wait: float) -> None:
        super().__init__(f"limit '{limit}' of {subject} is reached: {most:g}", f"ask again in {max(1, round(wait))} s")
        self.limit = limit
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose use is counted: `name` is its unique name, `shown` how errors call it."""

    name: str
    shown: str
    limits: LimitSettings

    @property
    def limited(self) -> bool:
        """Whether any limit holds at all."""
        return self.limits != LimitSettings()


@dataclass(slots=True)
class Reservation:
    """What a request was let in with, to be settled once."""

    subjects: tuple[Subject, ...]
    tokens: int
    cost: float
    at: float
    open: bool = True


class Ledger:
    """The shared counters. `worker` is this worker's number, from 0; `alone` that there is no other one."""

    def __init__(self, file: Path, worker: int = 0, alone: bool = True) -> None:
        """Open or make the file; what a dead worker of this number had in flight is forgotten. Raises OSError.

        One that is alone forgets what any worker had in flight.
        """
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._column = worker
        self._alone = alone
        self._places: dict[str, int] = {}
        size = SUBJECTS * _SLOT
        with self._locked():
            if os.fstat(self._fd).st_size != size:
                os.ftruncate(self._fd, 0)
                os.ftruncate(self._fd, size)
            self._map = mmap.mmap(self._fd, size)
            width = _STREAMS.size if alone else 2
            for number in range(SUBJECTS):
                at = number * _SLOT + _USE.size + (0 if alone else 2 * worker)
                if any(self._map[at : at + width]):
                    self._map[at : at + width] = bytes(width)

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        os.close(self._fd)

    def reserve(self, subjects: Sequence[Subject], tokens: int, cost: float, now: float) -> Reservation:
        """Let a request in that will use about so many tokens; raises Limited, and then nothing was counted."""
        limited = tuple(subject for subject in subjects if subject.limited)
        reservation = Reservation(limited, tokens, cost, now)
        if limited:
            with self._locked():
                places = [self._place(subject) for subject in limited]
                for place, subject in zip(places, limited, strict=True):
                    self._check(place, subject, tokens, cost, now)
                for place, subject in zip(places, limited, strict=True):
                    self._take(place, subject.limits, tokens, cost, now)
        return reservation

    def settle(self, reservation: Reservation, tokens: int, cost: float) -> None:
        """Count what a request has really used and give its place free; a second call does nothing."""
        if not reservation.open:
            return
        reservation.open = False
        if not reservation.subjects:
            return
        with self._locked():
            for subject in reservation.subjects:
                place = self._place(subject)
                name, requests, busy, day, used, spent = _USE.unpack_from(self._map, place)
                if subject.limits.tokens_per_minute:
                    busy += (tokens - reservation.tokens) * _MINUTE / subject.limits.tokens_per_minute
                if day == reservation.at // _DAY:
                    used += tokens - reservation.tokens
                    spent += cost - reservation.cost
                _USE.pack_into(self._map, place, name, requests, busy, day, used, spent)
                self._stream(place, -1)

    def used(self, subject: Subject, now: float) -> dict[str, float]:
        """Tokens and cost of this day, and the requests in flight."""
        with self._locked():
            place = self._place(subject)
            _, _, _, day, used, spent = _USE.unpack_from(self._map, place)
            today = day == now // _DAY
            streams = sum(_STREAMS.unpack_from(self._map, place + _USE.size))
        return {"tokens": used if today else 0, "cost": spent if today else 0.0, "streams": streams}

    def _check(self, place: int, subject: Subject, tokens: int, cost: float, now: float) -> None:
        limits = subject.limits
        _, requests, busy, day, used, spent = _USE.unpack_from(self._map, place)
        if day != now // _DAY:
            used, spent = 0, 0.0
        night = _DAY - now % _DAY
        if limits.requests_per_minute:
            # Sums of times since 1970 are inexact; half a request, or half a token, is far more than that.
            one = _MINUTE / limits.requests_per_minute
            wait = max(requests, now) + one - now - _MINUTE
            if wait > one / 2:
                raise Limited("requests_per_minute", subject.shown, limits.requests_per_minute, wait)
        if limits.tokens_per_minute:
            # One request that is larger than a whole minute's allowance may pass when nothing else is in use.
            wait = max(busy, now) + min(_MINUTE, tokens * _MINUTE / limits.tokens_per_minute) - now - _MINUTE
            if wait > _MINUTE / limits.tokens_per_minute / 2:
                raise Limited("tokens_per_minute", subject.shown, limits.tokens_per_minute, wait)
        if limits.tokens_per_day and used + tokens > limits.tokens_per_day:
            raise Limited("tokens_per_day", subject.shown, limits.tokens_per_day, night)
        if limits.cost_per_day and spent + cost > limits.cost_per_day:
            raise Limited("cost_per_day", subject.shown, limits.cost_per_day, night)
        if limits.streams and sum(_STREAMS.unpack_from(self._map, place + _USE.size)) >= limits.streams:
            raise Limited("streams", subject.shown, limits.streams, 1.0)

    def _take(self, place: int, limits: LimitSettings, tokens: int, cost: float, now: float) -> None:
        name, requests, busy, day, used, spent = _USE.unpack_from(self._map, place)
        if day != now // _DAY:
            day, used, spent = int(now // _DAY), 0, 0.0
        if limits.requests_per_minute:
            requests = max(requests, now) + _MINUTE / limits.requests_per_minute
        if limits.tokens_per_minute:
            busy = max(busy, now) + tokens * _MINUTE / limits.tokens_per_minute
        _USE.pack_into(self._map, place, name, requests, busy, day, used + tokens, spent + cost)
        self._stream(place, 1)

    def _stream(self, place: int, by: int) -> None:
        at = self._stream_at(place)
        count = int.from_bytes(self._map[at : at + 2], "little") + by
        self._map[at : at + 2] = min(max(count, 0), 0xFFFF).to_bytes(2, "little")

    def _stream_at(self, place: int) -> int:
        return place + _USE.size + 2 * self._column

    def _place(self, subject: Subject) -> int:
        """Where a subject is counted: an open-addressing table keyed by half a SHA-256."""
        found = self._places.get(subject.name)
        if found is not None:
            return found
        digest = hashlib.sha256(subject.name.encode()).digest()
        name, start = digest[:8], int.from_bytes(digest[8:16], "little")
        for step in range(SUBJECTS):
            place = (start + step) % SUBJECTS * _SLOT
            there = self._map[place : place + 8]
            if there == bytes(8):
                self._map[place : place + 8] = name
            if there in (name, bytes(8)):
                self._places[subject.name] = place
                return place
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
