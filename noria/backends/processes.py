"""Port `Machine` on Linux: memory of process trees, their end, and the cores they may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from noria.backends import machine

PROC = Path("/proc")


class LinuxMachine:
    """Reads `/proc` (proc(5)); asks for nothing but what the owner of a process may do."""

    def memory(self, pids: Sequence[int]) -> int:
        """Resident bytes of these processes and all their descendants; pages that they share count for each."""
        page = os.sysconf("SC_PAGE_SIZE")
        return sum(_resident_pages(pid) for pid in tree(pids)) * page

    def taken(self, pids: Sequence[int]) -> int:
        """Bytes that they hold together, as memory plans count: shared pages and a mapped model once."""
        return machine.taken({*tree(pids)})

    def kill(self, pids: Sequence[int]) -> None:
        """End these processes and their groups at once, by SIGKILL; those that are gone are no error."""
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    @contextmanager
    def confined(self, cores: int, place: int) -> Iterator[None]:
        """What this thread starts within runs on so many of its cores, from the `place`-th on, for all its life."""
        mine = os.sched_getaffinity(0)
        allowed = sorted(mine)
        first = place % len(allowed)
        os.sched_setaffinity(0, (allowed[first:] + allowed[:first])[:cores])
        try:
            yield
        finally:
            os.sched_setaffinity(0, mine)


def tree(pids: Sequence[int]) -> list[int]:
    """These processes and all their descendants."""
    found, ahead = list[int](), list(pids)
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        for children in (PROC / str(pid) / "task").glob("*/children"):
            with suppress(OSError):
                ahead += [int(each) for each in children.read_text().split()]
    return found


def _resident_pages(pid: int) -> int:
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
