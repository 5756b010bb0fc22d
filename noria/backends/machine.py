"""What this machine has: free memory within its limits, cards, bandwidth, and what processes take."""

from __future__ import annotations

import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GIB: Final = 2.0**30
_ROOT: Final = Path("/")
_ASK: Final = ("nvidia-smi", "--query-gpu=name,memory.total,memory.free,compute_cap", "--format=csv,noheader,nounits")
_PATIENCE: Final = 20.0
_PROBE: Final = 48 * 2**20
_PROBES: Final = 4


@dataclass(frozen=True, slots=True)
class Card:
    """An NVIDIA card as its driver tells of it; memory in GiB."""

    name: str
    memory_gib: float
    free_gib: float
    compute: float


def free_memory(root: Path = _ROOT) -> int | None:
    """Bytes that programs may still take: what is available, within the limits of the control groups above us.

    None where nothing tells.
    """
    available = _meminfo(root).get("MemAvailable")
    if available is None:
        return _sysctl("hw.memsize")
    return min([available, *_groups(root)])


def _meminfo(root: Path) -> dict[str, int]:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}


def _groups(root: Path) -> Iterator[int]:
    """What each control group, v2 or v1, leaves of its limit; its file cache gives way."""
    base = root / "sys/fs/cgroup"
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        for folder in _folders(base, root):
            most, now = _number(folder / limit), _number(folder / used)
            if most is not None and now is not None:
                yield max(0, most - now + _file_cache(folder))


def _folders(base: Path, root: Path) -> Iterator[Path]:
    yield base
    yield base / "memory"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            folder = (base / controllers / path.lstrip("/")) if controllers else base / path.lstrip("/")
            yield from (each for each in (folder, *folder.parents) if base in each.parents)


def _number(file: Path) -> int | None:
    """None for no file and for `max`."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _file_cache(folder: Path) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def _sysctl(name: str) -> int | None:
    said = _said(("sysctl", "-n", name))
    return int(said) if said.isdigit() else None


def _said(command: tuple[str, ...]) -> str:
    """What a program prints; empty where there is none or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def cards(command: tuple[str, ...] = _ASK) -> list[Card]:
    """The NVIDIA cards that nvidia-smi lists; empty without one."""
    found = []
    for line in _said(command).splitlines():
        name, *numbers = (part.strip() for part in line.split(","))
        try:
            total, free, compute = map(float, numbers)
        except ValueError:
            continue
        found.append(Card(name, total / 1024, free / 1024, compute))
    return found


def chip() -> str:
    """The processor's name, such as `Apple M3 Max`; empty where it cannot be told."""
    if platform.system() == "Darwin":
        return _said(("sysctl", "-n", "machdep.cpu.brand_string"))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def bandwidth(cores: int) -> float:
    """GB/s at which all cores together read memory now: the best of a few sums over more than caches hold."""
    import numpy as np

    parts = [np.ones(_PROBE // 8) for _ in range(cores)]
    best = 0.0
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(_PROBES):
            began = time.perf_counter()
            list(pool.map(np.sum, parts))
            best = max(best, cores * _PROBE / (time.perf_counter() - began) / 1e9)
    return best


def taken(processes: set[int]) -> int:
    """Bytes that these processes hold together (Linux only).

    What they share of anonymous memory counts once. Of files that are mapped (a model's weights, libraries) the most
    that one of them holds counts, in full: other programs that have mapped the same file come and go.
    """
    held = [_held(each) for each in processes]
    return sum(own for own, _ in held) + max((mapped for _, mapped in held), default=0)


def peak_mb() -> float:
    """Highest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would count the launcher's memory too: its high mark survives fork and exec.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _held(process: int) -> tuple[int, int]:
    """Bytes of its own and of mapped files; zeros for one that has ended."""
    sizes = {"Pss_Anon": 0, "Pss_Shmem": 0, "RssFile": 0}
    for name in ("smaps_rollup", "status"):
        try:
            lines = Path(f"/proc/{process}/{name}").read_text().splitlines()
        except OSError:
            return 0, 0
        for line in lines:
            key, _, rest = line.partition(":")
            if key in sizes:
                sizes[key] = int(rest.split()[0]) * 1024
    return sizes["Pss_Anon"] + sizes["Pss_Shmem"], sizes["RssFile"]
