"""Segments: the files that the gateway appends its records to before it answers."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

SUFFIX = ".jsonl"
SEGMENT_BYTES = 16 * 1024 * 1024
"""A segment that has reached this size is sealed and a new one begun."""
SYNC_SECONDS = 0.05
"""Records are forced to the disk in groups, this far apart at the most."""


class SegmentWriter:
    """Appends records to segment files; the port `Recorder`.

    Each writer makes files of its own and never opens an existing one, so nothing is ever truncated. It holds a lock
    (flock) on its open segment for as long as it lives: that is how the shipper knows a torn last line from one that
    is still being written. `append` may be called from several threads.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Begin a segment in `folder`, which is made where it is missing; raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._fd = _new_segment(folder)
        self._size = 0
        self._torn = False
        self._fresh = True
        self._sealed: list[int] = []
        self._fault: OSError | None = None
        self._closed = self._waiting = False
        self._dirty = threading.Event()
        self._syncer = threading.Thread(target=self._sync_in_groups, name="segment-sync", daemon=True)
        self._syncer.start()

    def append(self, record: bytes) -> None:
        """Append one JSON line (without its line end); it survives `kill -9` once this returns.

        Raises OSError when the disk refused it, or refused what was written before, and ValueError for a record of
        more than one line.
        """
        if b"\n" in record:
            raise ValueError("a record is one line")
        with self._lock:
            if self._closed:
                raise ValueError("the writer is closed")
            if self._fault is not None:
                fault, self._fault = self._fault, None
                raise fault
            if self._size >= self._segment_bytes:
                self._rotate()
            self._write(record)
            waiting, self._waiting = self._waiting, True
        if not waiting:
            self._dirty.set()

    def close(self) -> None:
        """Force the open segment to the disk and let go of it; a second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._sealed.append(self._fd)
        self._dirty.set()
        self._syncer.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write(self, record: bytes) -> None:
        # A line end in front closes the torn line that a full disk left behind.
        line = b"\n%b\n" % record if self._torn else b"%b\n" % record
        written = os.write(self._fd, line)
        self._size += written
        if written < len(line):
            self._torn = True
            raise OSError(f"only {written} of {len(line)} bytes could be written to a segment")
        self._torn = False

    def _rotate(self) -> None:
        fresh = _new_segment(self._folder)
        self._sealed.append(self._fd)
        self._fd, self._size, self._torn, self._fresh = fresh, 0, False, True

    def _sync_in_groups(self) -> None:
        while True:
            self._dirty.wait()
            self._dirty.clear()
            with self._lock:
                self._waiting = False
                sealed, self._sealed = self._sealed, []
                fd, closed = self._fd, self._closed
                fresh, self._fresh = self._fresh, False
            try:
                for each in {*sealed, fd}:
                    os.fsync(each)
                if fresh:
                    _sync_folder(self._folder)
            except OSError as error:
                with self._lock:
                    self._fault = error
            for each in sealed:
                os.close(each)
            if closed:
                return
            time.sleep(SYNC_SECONDS)


def _new_segment(folder: Path) -> int:
    """Descriptor of a new, empty, locked segment. Names sort by the time they were made."""
    while True:
        name = f"{time.time_ns():020d}-{os.urandom(4).hex()}{SUFFIX}"
        fd = os.open(folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        # A shipper may have met the file before it was locked, and removed it as empty and abandoned.
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
