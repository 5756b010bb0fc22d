"""Energy that this machine has taken, where its counters may be read: Intel's and AMD's RAPL, NVIDIA's NVML."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

RAPL: Final = Path("/sys/class/powercap")
NVML: Final = "libnvidia-ml.so.1"


class EnergyMeter:
    """Counts joules since it was made: all processors' packages and all graphics cards, whatever they work for.

    What cannot be read is not counted: `joules` is None where nothing can.
    """

    def __init__(self, rapl: Path = RAPL, nvml: str = NVML) -> None:
        self._packages = [file for file in sorted(rapl.glob("intel-rapl:*/energy_uj")) if _is_package(file)]
        self._packages = [file for file in self._packages if _number(file) is not None]
        self._seen = {file: _number(file) or 0 for file in self._packages}
        self._counted = 0
        self._cards = _Cards(nvml)
        self._cards_began = self._cards.millijoules()

    def joules(self) -> float | None:
        """Energy since the start; None where no counter can be read."""
        for file, before in self._seen.items():
            now = _number(file)
            if now is None:
                continue
            # The counter starts again from 0 after its range.
            span = _number(file.with_name("max_energy_range_uj")) or 0
            self._counted += now - before if now >= before else now + span - before
            self._seen[file] = now
        cards = self._cards.millijoules()
        if not self._packages and (cards is None or self._cards_began is None):
            return None
        of_cards = 0 if cards is None or self._cards_began is None else cards - self._cards_began
        return self._counted / 1e6 + of_cards / 1e3


class _Cards:
    """NVML's own counters, without a package of Python for them (NVIDIA Management Library API, since Volta)."""

    def __init__(self, name: str) -> None:
        self._library: ctypes.CDLL | None = None
        self._handles: list[ctypes.c_void_p] = []
        try:
            library = ctypes.CDLL(name)
        except OSError:
            return
        count = ctypes.c_uint()
        if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return
        for number in range(count.value):
            handle = ctypes.c_void_p()
            if not library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(number), ctypes.byref(handle)):
                self._handles.append(handle)
        self._library = library

    def millijoules(self) -> int | None:
        """Of all cards since their drivers were loaded; None where one does not say."""
        if self._library is None or not self._handles:
            return None
        total = 0
        for handle in self._handles:
            value = ctypes.c_ulonglong()
            if self._library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value)):
                return None
            total += value.value
        return total


def _is_package(file: Path) -> bool:
    """Whether it is a package's own counter: those below it are parts of the same energy."""
    return file.parent.name.count(":") == 1


def counted() -> bool:
    """Whether anything here counts energy."""
    return EnergyMeter().joules() is not None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
