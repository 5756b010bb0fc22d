"""What the machine has used up, where its hardware counts it."""

from __future__ import annotations

import ctypes
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class Joules:
    """Energy since it was made: of the processor packages by RAPL, of NVIDIA's devices by NVML.

    None where no counter can be read, as in most virtual machines; it is never estimated. The whole machine is
    counted, whoever else works on it.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._packages = {
            zone: int(zone.with_name("max_energy_range_uj").read_text())
            for zone in sorted(powercap.glob("intel-rapl:*/energy_uj"))
            if zone.parent.name.count(":") == 1 and _number(zone) is not None
        }
        self._last = {zone: _number(zone) or 0 for zone in self._packages}
        self._used = 0.0
        self._nvml = _nvml()
        self._devices_began = self._nvml.millijoules() if self._nvml else None

    def used(self) -> float | None:
        """Joules so far; ask at least every few minutes, since the counters begin anew when they are full."""
        for zone, full in self._packages.items():
            now = _number(zone)
            if now is not None:
                self._used += (now - self._last[zone]) % (full + 1) / 1e6
                self._last[zone] = now
        devices = self._nvml.millijoules() if self._nvml else None
        if not self._packages and devices is None:
            return None
        return round(self._used + ((devices or 0) - (self._devices_began or 0)) / 1e3, 3)


def counted() -> bool:
    """Whether anything here counts energy."""
    return Joules().used() is not None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


class _Nvml:
    """The two calls of NVIDIA's management library that are needed (NVML API reference, device queries)."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        count = ctypes.c_uint()
        library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        self._handles = []
        for number in range(count.value):
            handle = ctypes.c_void_p()
            if library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)) == 0:
                self._handles.append(handle)

    def millijoules(self) -> int | None:
        """Since the driver was loaded, of all devices; None where none counts it."""
        found = []
        for handle in self._handles:
            value = ctypes.c_ulonglong()
            if self._library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value)) == 0:
                found.append(value.value)
        return sum(found) if found else None


def _nvml() -> _Nvml | None:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return _Nvml(library) if library.nvmlInit_v2() == 0 else None
