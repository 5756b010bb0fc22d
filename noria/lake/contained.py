"""Files are read in a process of their own, so that none of them can hang, crash or bloat the cycle."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

import orjson

from noria.errors import Unavailable
from noria.lake.contained_worker import allowed
from noria.lake.documents import Job, Made

AHEAD = 32
"""Files that the process is told of before it has read them."""
_AHEAD_BYTES = 32 << 10
"""Less than a pipe holds, so that neither process waits for the other to read."""
_START = 120.0
"""Seconds for the process to start."""
_END = 5.0
"""Seconds for a process that says no more to end."""
_FRAME = 1 << 28
"""Bytes of the largest frame that is believed."""
_CHUNK = 1 << 20
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
from noria.lake.contained_worker import main
main()
"""
"""It finds modules where this process does, and not in whatever folder it was started from."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file: its counts with the first fault, or the one that puts it into the quarantine as a `whole`.

    `rows` of what was given last are its own; none where it is faulty. `passing` is a fault that another time
    might not have: time and memory depend on what else the machine does.
    """

    offset: int = 0
    reason: str = ""
    whole: bool = False
    passing: bool = False
    rows: int = 0
    digest: str = ""
    documents: int = 0
    quarantined: int = 0
    encoding: str = ""
    skipped: dict[str, int] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)


class Reader:
    """The process, started when it is needed and again after every file that took it down. Close it at the end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._held = bytearray()
        self._job: Job | None = None
        self._used = False

    def read(self, job: Job, files: Sequence[tuple[str, int]], give: Callable[[list[Made]], None]) -> Iterator[Outcome]:
        """Read files, given as path and size; yields what became of each, in their order, after giving its batches.

        A file that took the process down after others had been read in it is read again in a fresh one, so that it
        does not pay for them. Raises Unavailable when the process does not start or a package is missing.
        """
        waiting = deque(files)
        sent: deque[tuple[str, int]] = deque()
        while waiting or sent:
            if self._process is None or self._job != job:
                self._open(job)
            self._send(waiting, sent)
            outcome = self._outcome(job, sent[0], give)
            if outcome is None:
                waiting.extendleft(reversed(sent))
                sent.clear()
                continue
            sent.popleft()
            if self._process is None:
                waiting.extendleft(reversed(sent))
                sent.clear()
            yield outcome

    def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is None:
            return
        # It leads a group of its own: what a parser started ends with it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, self._said):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def _open(self, job: Job) -> None:
        if self._process is None:
            self._said, self._held, self._used = tempfile.TemporaryFile(), bytearray(), False  # noqa: SIM115 - closed with the process
            command = [sys.executable, "-P", "-c", _CODE, json.dumps(sys.path), str(os.getpid())]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, start_new_session=True
            )
        self._job = job
        self._write(job.line())
        ready = self._frame(time.monotonic() + _START)
        if ready is None:
            why = self._last_words() or "it said nothing"
            self.close()
            raise Unavailable(f"the process that reads files does not start: {why}", "see: noria doctor")

    def _send(self, waiting: deque[tuple[str, int]], sent: deque[tuple[str, int]]) -> None:
        told = sum(len(_line(file)) for file in sent)
        while waiting and len(sent) < AHEAD:
            line = _line(waiting[0])
            told += len(line)
            if sent and told > _AHEAD_BYTES:
                break
            sent.append(waiting.popleft())
            self._write(line)

    def _outcome(self, job: Job, file: tuple[str, int], give: Callable[[list[Made]], None]) -> Outcome | None:
        """What became of the file; None when it has to be read again, in a fresh process."""
        seconds, offset, rows = allowed(job.limits.seconds, file[1]), 0, 0
        while True:
            # Only waiting counts: the time that this process takes to store what came is not the file's.
            began = time.monotonic()
            try:
                frame = self._frame(began + seconds)
            except TimeoutError:
                self.close()
                reason = f"reading it took longer than seconds = {job.limits.seconds:g} allow"
                return _faulty(offset, reason, passing=True)
            seconds -= time.monotonic() - began
            if frame is None:
                return self._died(offset)
            header, body = frame
            offset = header.get("offset", offset)
            if body:
                give(body)
                rows += len(body)
            elif "unavailable" in header:
                self.close()
                raise Unavailable(*header["unavailable"])
            elif header.get("again") and self._used:
                self.close()
                return None
            else:
                self._used = True
                if header.get("again"):
                    self.close()
                if "fault" in header:
                    return _faulty(offset, header["fault"], passing="again" in header)
                return Outcome(rows=rows, **header)

    def _died(self, offset: int) -> Outcome | None:
        assert self._process is not None
        try:
            code = self._process.wait(_END)
        except subprocess.TimeoutExpired:
            # It has closed its door, or talks nonsense, and lives on.
            self._process.kill()
            code = self._process.wait()
        used = self._used
        said = self._last_words()
        self.close()
        if used:
            return None
        name = signal.Signals(-code).name if code < 0 else f"status {code}"
        return _faulty(offset, f"its reader crashed: {said or name}", passing=True)

    def _write(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # A process that is gone is noticed where its answer is awaited.
        with suppress(BrokenPipeError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _frame(self, until: float) -> tuple[dict[str, Any], list[Made]] | None:
        """The next frame, None at the end or for what is no frame; raises TimeoutError at the time `until`."""
        head = self._bytes(8, until)
        if head is None:
            return None
        sizes = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
        if sum(sizes) > _FRAME:
            return None
        header = self._bytes(sizes[0], until)
        body = self._bytes(sizes[1], until)
        try:
            return None if header is None or body is None else (orjson.loads(header), orjson.loads(body or b"[]"))
        except orjson.JSONDecodeError:
            return None

    def _bytes(self, count: int, until: float) -> bytes | None:
        assert self._process is not None
        assert self._process.stdout is not None
        stream = self._process.stdout.fileno()
        while len(self._held) < count:
            waiting = select.poll()
            waiting.register(stream, select.POLLIN)
            if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
                raise TimeoutError
            chunk = os.read(stream, _CHUNK)
            if not chunk:
                return None
            self._held += chunk
        data = bytes(self._held[:count])
        del self._held[:count]
        return data

    def _last_words(self) -> str:
        """The last line that the process wrote to its standard error."""
        if self._said is None:
            return ""
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - 4096))
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""


def _line(file: tuple[str, int]) -> bytes:
    """The order to read a file: a path may take six bytes for each of its characters."""
    return json.dumps({"file": file[0], "size": file[1]}).encode() + b"\n"


def _faulty(offset: int, reason: str, *, passing: bool) -> Outcome:
    return Outcome(offset, reason, whole=True, passing=passing, quarantined=1)
