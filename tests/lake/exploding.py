"""Parsers that do what no parser should; they are run in the process that reads files."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from noria.lake.rows import Item, Row


def hangs(data: bytes) -> Iterator[Item]:
    yield from _fine(data)
    while b"hang" in data:
        time.sleep(0.1)


def spins(data: bytes) -> Iterator[Item]:
    yield from _fine(data)
    while b"hang" in data:
        pass


def tells(data: bytes) -> Iterator[Item]:
    """Writes down its process and hangs."""
    if b"hang" in data:
        Path("data/pid").write_text(str(os.getpid()))
    yield from hangs(data)


def segfaults(data: bytes) -> Iterator[Item]:
    yield from _fine(data)
    if b"segfault" in data:
        ctypes.string_at(0)


def is_killed(data: bytes) -> Iterator[Item]:
    yield from _fine(data)
    if b"killed" in data:
        os.kill(os.getpid(), signal.SIGKILL)


def exits(data: bytes) -> Iterator[Item]:
    yield from _fine(data)
    if b"exit" in data:
        os._exit(3)


def eats(data: bytes) -> Iterator[Item]:
    yield from _fine(data)
    held = []
    while b"eat" in data:
        held.append(bytearray(1 << 24))


def raises(data: bytes) -> Iterator[Item]:
    yield from _fine(data)
    if b"raise" in data:
        raise KeyError("not what it seems \udc80")


def recurses(data: bytes) -> Iterator[Item]:
    yield from _fine(data)
    if b"recurse" in data:
        yield from recurses(data)


def multiplies(data: bytes) -> Iterator[Item]:
    yield from _fine(data)
    while b"multiply" in data:
        yield Row({"text": "x" * 1000}, 7)


def prints(data: bytes) -> Iterator[Item]:
    sys.stdout.write("a line that is no frame\n")
    sys.stdout.flush()
    os.write(1, b"\x00\x00\x00\x05\x00\x00\x00\x00hello")
    yield from _fine(data)


def shuts_up(data: bytes) -> Iterator[Item]:
    """Closes whatever is open, and lives on."""
    yield from _fine(data)
    if b"shut" in data:
        os.closerange(3, 64)
        time.sleep(600)


def babbles(data: bytes) -> Iterator[Item]:
    """Writes nonsense wherever it can."""
    yield from _fine(data)
    if b"babble" in data:
        for door in range(3, 16):
            with suppress(OSError):
                os.write(door, b"\xff" * 64)
        time.sleep(600)


def is_once_unlucky(data: bytes) -> Iterator[Item]:
    """Falls to what the file before it left behind, and reads well in a fresh process."""
    global _left
    _left += 1
    if _left == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    yield from _fine(data)


_left = 0


def _fine(data: bytes) -> Iterator[Item]:
    yield Row({"text": data.decode()}, 7)
