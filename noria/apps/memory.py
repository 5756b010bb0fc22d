"""How much memory a process tree takes at most."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import psutil

EVERY = 0.5
"""Seconds between two looks."""


class PeakMemory:
    """Watches this process and all that it started; `peak_mb` is the largest sum of proportional set sizes (PSS)."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        own = psutil.Process()
        while not self._done.wait(EVERY):
            total = sum(_pss(process) for process in [own, *own.children(recursive=True)])
            self.peak_mb = max(self.peak_mb, round(total / 1e6, 1))


def of_children() -> float | None:
    """Memory of all that this process started, in GiB (PSS); None where psutil is not installed."""
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    return round(sum(_pss(each) for each in psutil.Process().children(recursive=True)) / 2**30, 4)


def _pss(process: psutil.Process) -> int:
    import psutil

    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
