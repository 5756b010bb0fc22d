"""What processes take while something runs: memory at its highest, CPU seconds, and what others take meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from noria.backends import machine
from noria.backends.energy import EnergyMeter
from noria.backends.processes import tree

_EVERY: Final = 0.5
_PROC: Final = Path("/proc")


class ProcessMeter:
    """Watches process trees from `with` to its end; `pids` may be empty, and then nothing of them is known.

    `peak` are bytes (as `machine.taken` counts them), `cpu` CPU seconds (user and system) of the trees, `busy` those
    of all other programs but this one, `joules` the machine's. None for what this machine does not tell.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = [*pids]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak: int | None = None
        self.cpu: float | None = None
        self.busy: float | None = None
        self.joules: float | None = None

    def __enter__(self) -> Self:
        self._energy = EnergyMeter()
        self._before = self._spent()
        if self._pids:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        before, after = self._before, self._spent()
        self.joules = self._energy.joules()
        if self._pids:
            self._ended.set()
            self._thread.join()
            self._look()
            self.cpu = after[0] - before[0]
        if before[1] is not None and after[1] is not None:
            mine = after[0] - before[0] + after[2] - before[2]
            self.busy = max(0.0, after[1] - before[1] - mine)

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        now = machine.taken({*tree(self._pids)})
        self.peak = max(now, self.peak or 0)

    def _spent(self) -> tuple[float, float | None, float]:
        """CPU seconds of the trees, of the machine, and of this process."""
        own = os.times()
        return sum(map(_seconds, tree(self._pids))), _machine(), own.user + own.system


def _seconds(pid: int) -> float:
    """CPU seconds of a process (proc(5): utime and stime); 0 for one that has ended."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def _machine() -> float | None:
    """CPU seconds that all cores were not idle; None where nobody tells."""
    try:
        fields = [int(each) for each in (_PROC / "stat").read_text().splitlines()[0].split()[1:]]
    except (OSError, IndexError, ValueError):
        return None
    # user nice system idle iowait irq softirq steal; guests are within user.
    return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
