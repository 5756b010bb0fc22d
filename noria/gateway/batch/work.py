"""Works batches off while the clients leave room: one worker of a machine does, the one that holds the lock.

Each line goes through the same exchange as a client's request, so that limits, guards, routing and records hold alike.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson

from noria.errors import NoriaError, NotFound, Unavailable
from noria.gateway.ask import Api
from noria.gateway.batch.api import ENDPOINTS, TRAIN
from noria.gateway.batch.files import FileStore
from noria.gateway.batch.job import Job
from noria.gateway.batch.lines import Check, Line
from noria.gateway.batch.store import ENDED, BatchStore
from noria.gateway.snapshot import Holder, SnapshotFile, View
from noria.gateway.wire import INTERNAL, Caller, Header, too_large
from noria.ports import Clock

Serve = Callable[[Api, Holder, Mapping[bytes, bytes], Caller], Awaitable[None]]
"""Serves a request: the endpoint, whose it is, headers, and where the answer goes."""

LOOK_SECONDS: Final = 1.0
"""Between two looks for new batches, cancellations and ends of time."""
ROOM_SECONDS: Final = 0.05
"""Between two looks for room."""
FAULT_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 3600.0
SETTLE_SECONDS: Final = 120.0
"""After the start, in which engines come up: a model without a route may get one yet."""
MOST_JOBS: Final = 32
"""Batches that are worked on side by side, line by line in turn."""
OWNER_JOBS: Final = 2
"""Of them, those of one key."""
T = TypeVar("T")
_log = logging.getLogger(__name__)


class BatchWork:
    """The worker. `serve` answers a line.

    `here` are the requests in flight in this process, lines of batches included; `elsewhere` counts those of the other
    processes at a time (seconds since 1970), and may look at the disk for it.
    """

    def __init__(
        self,
        store: BatchStore,
        files: FileStore,
        snapshots: SnapshotFile,
        serve: Serve,
        here: Sized,
        elsewhere: Callable[[float], int],
        clock: Clock,
    ) -> None:
        self._store = store
        self._files = files
        self._snapshots = snapshots
        self._serve = serve
        self._here = here
        self._elsewhere = elsewhere
        self._others = 0
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._running: dict[asyncio.Task[None], tuple[Job, Line, _Reply]] = {}
        self._checked: set[str] = set()
        self._known: tuple[View, dict[str, Holder]] | None = None
        # One thread, so that what it does is done in order, and is over before the lock is let go.
        self._thread: ThreadPoolExecutor | None = None
        self._news = asyncio.Event()
        self._began = self._looked = self._swept = float("-inf")

    def wake(self) -> None:
        """There is a new batch."""
        self._news.set()

    async def run(self) -> None:
        """Work for ever. A disk that fails is told of and tried again."""
        # A loop of its own each time that the gateway begins.
        self._news = asyncio.Event()
        self._began = time.monotonic()
        while True:
            try:
                lock = await asyncio.to_thread(self._store.lock)
                if lock is not None:
                    await self._hold(lock)
            except (OSError, ValueError, LookupError, NoriaError) as error:
                _log.warning("batches wait: %r", error)
            await asyncio.sleep(FAULT_SECONDS)

    async def _hold(self, lock: int) -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as self._thread:
            try:
                while True:
                    await self._step()
            finally:
                for task in self._running:
                    task.cancel()
                await asyncio.gather(*self._running, return_exceptions=True)
                self._thread.shutdown()
                for job in self._jobs.values():
                    job.close()
                self._running, self._jobs, self._thread = {}, {}, None
                os.close(lock)

    async def _do(self, work: Callable[..., T], *values: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *values)

    async def _step(self) -> None:
        now = time.monotonic()
        if self._news.is_set() or now - self._looked >= LOOK_SECONDS:
            self._news.clear()
            self._looked = now
            await self._look()
        started = False
        for job in [*self._jobs.values()]:
            if self._room() and job.ready(now) and await self._start(job):
                started = True
                # The next round begins with another batch.
                self._jobs[job.id] = self._jobs.pop(job.id)
        if self._running:
            timeout = 0.0 if started else ROOM_SECONDS
            done, _ = await asyncio.wait(self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await self._took(task)
        elif not started:
            await self._rest()

    async def _rest(self) -> None:
        """Wait a moment; less when there is something to be done as soon as there is room."""
        try:
            soon = any(job.ready(time.monotonic()) for job in self._jobs.values())
            await asyncio.wait_for(self._news.wait(), ROOM_SECONDS if soon else LOOK_SECONDS)
        except TimeoutError:
            return

    def _room(self) -> bool:
        """Whether clients leave room for one more line."""
        view = self._snapshots.current
        most = view.rules.batch_inflight
        return bool(view.live) and len(self._running) < most and len(self._here) + self._others < most

    async def _look(self) -> None:
        """Take up new batches and end those that are through, late or cancelled."""
        now, at = time.monotonic(), self._clock.now().timestamp()
        if now - self._swept >= SWEEP_SECONDS:
            self._swept = now
            await self._do(self._files.sweep, at)
            await self._do(self._store.sweep, at)
        # One switch of threads for both: this is all that an idle gateway does here.
        self._others, waiting = await self._do(lambda: (self._elsewhere(at), self._store.waiting()))
        for owner, identity in waiting:
            if identity not in self._jobs:
                # It may be on its way in.
                with suppress(NotFound):
                    await self._begin(owner, identity)
        for job in [*self._jobs.values()]:
            await self._review(job)

    async def _begin(self, owner: str, identity: str) -> None:
        """Check a batch that is new; go to work on it when its turn has come."""
        turn = len(self._jobs) < MOST_JOBS and sum(job.owner == owner for job in self._jobs.values()) < OWNER_JOBS
        turn = turn or self._store.cancelling(owner, identity) is not None
        if identity in self._checked and not turn:
            return
        job = Job(self._store, self._files, self._clock, owner, await self._do(self._store.read, owner, identity))
        if job.status == "validating":
            await (self._do(job.drop) if job.cancelled else self._check(job))
        if job.status in ENDED:
            self._checked.discard(identity)
            await self._do(self._store.ended, owner, identity)
            return
        self._checked.add(identity)
        if turn:
            await self._do(job.open)
            self._jobs[identity] = job

    async def _check(self, job: Job) -> None:
        rules = self._snapshots.current.rules
        check = Check(job.endpoint, rules.batch_lines, [], set())
        pieces = job.pieces(rules.body_bytes)
        # Parsing is done here, a piece at a time: a thread would hold up the clients' answers for longer.
        with closing(pieces):
            while not check.over and (lines := await self._do(next, pieces, None)) is not None:
                for text, whole in lines:
                    check.take(text, whole)
        await self._do(job.checked, check)

    async def _review(self, job: Job) -> None:
        holders = self._snapshots.current.holders
        revoked = bool(holders) and self._holder(job.owner) is None
        over = job.exhausted or job.cancelled or job.status == "finalizing"
        job.halted = revoked or over or job.late
        if job.running:
            # What is being answered is waited for, whatever happens to the rest.
            return
        if revoked:
            message = "The key of this batch is not valid any more."
            await self._do(job.fail, [{"code": "invalid_api_key", "message": message, "param": None, "line": None}])
        elif over:
            await self._do(job.finish)
        elif job.late:
            await self._do(job.expire)
            await self._do(job.finish)
        else:
            return
        self._checked.discard(job.id)
        self._jobs.pop(job.id)

    def _holder(self, owner: str) -> Holder | None:
        view = self._snapshots.current
        if self._known is None or self._known[0] is not view:
            self._known = view, {each.grant.id: each for each in view.holders.values()}
        return self._known[1].get(owner)

    async def _start(self, job: Job) -> bool:
        holder = self._holder(job.owner)
        line = await self._do(job.next) if holder is not None else None
        if holder is None or line is None:
            # It may be through.
            self._looked = float("-inf") if job.exhausted and not job.running else self._looked
            return False
        reply = _Reply(line.body)
        headers = {} if job.trainable else {TRAIN: b"no"}
        work = self._serve(ENDPOINTS[job.endpoint], holder, headers, reply)
        self._running[asyncio.ensure_future(work)] = (job, line, reply)
        job.running += 1
        # It counts as in flight from its first step on.
        await asyncio.sleep(0)
        return True

    async def _took(self, task: asyncio.Task[None]) -> None:
        job, line, reply = self._running.pop(task)
        job.running -= 1
        if task.cancelled():
            job.back(line)
            return
        if (fault := task.exception()) is not None:
            _log.error("a batch's line failed", exc_info=fault)
        now, status = time.monotonic(), reply.status
        if status == 404 and now - self._began < SETTLE_SECONDS and not self._routed(line):
            status = Unavailable.status
        try:
            await self._do(job.took, line, status, reply.wait, reply.request, reply.told, now)
        except OSError as error:
            _log.warning("batch %s waits: %s", job.id, error)
        if job.exhausted and not job.running:
            self._looked = float("-inf")

    def _routed(self, line: Line) -> bool:
        return orjson.loads(line.body).get("model") in self._snapshots.current.live


@dataclass(slots=True)
class _Reply:
    """A `Caller` that stays here: one request, and what it is answered. It never leaves."""

    asked: bytes
    status: int = 500
    told: bytes = INTERNAL
    request: str = ""
    wait: float = 0.0
    left: Callable[[], None] | None = None

    @property
    def room(self) -> None:
        """Of `Caller`: there is room without end."""

    async def body(self, headers: Mapping[bytes, bytes], most: int) -> bytes:
        """Of `Caller`."""
        if len(self.asked) > most:
            raise too_large(len(self.asked), most)
        return self.asked

    def answer(self, status: int, body: bytes, headers: Sequence[Header]) -> None:
        """Of `Caller`."""
        self.status, self.told = status, body
        found = dict(headers)
        self.request = found.get(b"x-noria-interaction", b"").decode()
        self.wait = float(found.get(b"retry-after", b"0"))

    def begin(self, headers: Sequence[Header]) -> None:
        """Of `Caller`; lines of a batch do not stream."""

    def write(self, piece: bytes) -> None:
        """Of `Caller`."""

    def end(self, piece: bytes) -> None:
        """Of `Caller`."""
