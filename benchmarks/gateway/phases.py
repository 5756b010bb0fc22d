"""The phases of the benchmark, and what one of them measures."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTLE_SECONDS = 15.0
"""How long a server may take to notice that its clients have gone."""
_WORDS = "A customer asks why the lamp stays red although the reset button was pressed for five seconds. "


@dataclass(frozen=True)
class Phase:
    """One load. `chunks` is the length of a stream, 0 for plain answers; `rate` 0 is a closed loop.

    `warm` are seconds of the same load before it, `lead` those at its beginning that rates and times leave out.
    """

    letter: str
    title: str
    connections: int
    seconds: float
    warm: float = 0.0
    lead: float = 0.0
    mode: str = ""
    chunks: int = 0
    rate: float = 0.0
    body: int = 925
    slow: int = 0


PHASES = (
    Phase("A", "closed loop, 925 B", 32, 1.5, warm=0.3),
    Phase("E", "closed loop, 54 KB", 16, 1.2, warm=0.3, body=54_000),
    Phase("D", "open loop, 50 req/s", 8, 4.0, lead=0.5, rate=50.0),
    Phase("B", "burst streams", 16, 1.0, chunks=64),
    Phase("C", "64 paced streams", 64, 1.95, mode="-paced", chunks=64),
    Phase("F", "500 paced streams", 500, 2.6, lead=1.0, mode="-paced", chunks=64),
    Phase("G", "500 streams of 300 numbered chunks", 500, 5.0, lead=1.0, mode="-long", chunks=300),
    Phase("S", "50 slow readers that vanish", 50, 4.0, mode="-flood", chunks=60_000, slow=16_384),
)
"""In the order in which they run: latency before the streams, of which some servers take long to recover."""


@dataclass(frozen=True)
class Target:
    """What is put under load: its port and process group, and how requests to it look."""

    port: int
    group: int
    model: str
    key: str


class Bench:
    """Runs loads against targets; `load` is the program, `folder` takes the bodies, `mock` is what answers in the end.

    With `hurried` every phase has its processes run before all others of the machine, not only that of latencies.
    """

    def __init__(self, load: Path, folder: Path, mock: Target, hurried: bool = False) -> None:
        self._load = load
        self._folder = folder
        self._mock = mock
        self._hurried = hurried

    def measure(self, target: Target, phase: Phase) -> dict[str, Any]:
        """The figures of one phase; `void` says why they do not count, where they do not."""
        if phase.warm:
            self._run(self._command(target, phase, phase.warm))
        first = phase.rate or self._hurried
        with realtime((target.group, self._mock.group)) if first else contextlib.nullcontext(False) as allowed:
            command = [*(("chrt", "-r", "1") if allowed else ()), *self._command(target, phase, phase.seconds)]
            before = cpu_ns(target.group)
            found = self._slow(target, phase, command) if phase.slow else self._run(command)
            used = (cpu_ns(target.group) - before) / 1e3
        found["realtime"] = allowed
        found["cpu_us"] = used
        found["cpu_us_per_request"] = used / found["n"] if found["n"] else None
        found["cpu_us_per_chunk"] = used / found["events"] if found["events"] else None
        found["pss_mb"] = pss_mb(target.group)
        found["void"] = _void(found, phase)
        return found

    def stats(self) -> dict[str, int]:
        """What the mock has seen."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._mock.port}/stats", timeout=10) as answer:
            found: dict[str, int] = json.load(answer)
        return found

    def _slow(self, target: Target, phase: Phase, command: list[str]) -> dict[str, Any]:
        """Readers that take a trickle and then go: what they cost in memory, and what they leave behind."""
        before, stats = pss_mb(target.group), self.stats()
        highest = before
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        while process.poll() is None:
            time.sleep(0.2)
            highest = max(highest, pss_mb(target.group))
        found: dict[str, Any] = json.loads(process.communicate()[0])
        end, left = time.monotonic() + SETTLE_SECONDS, stats
        while time.monotonic() < end:
            left = self.stats()
            # A server that is behind may still have requests to begin with, although their clients have gone.
            if left["requests"] - stats["requests"] == phase.connections and not left["active"]:
                break
            time.sleep(0.05)
        found["kb_per_reader"] = (highest - before) * 1e3 / phase.connections
        found["reached"] = left["requests"] - stats["requests"]
        found["stuck"] = left["active"]
        found["cancelled"] = left["aborted"] - stats["aborted"]
        return found

    def _run(self, command: list[str]) -> dict[str, Any]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the load failed: {done.stderr}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _command(self, target: Target, phase: Phase, seconds: float) -> list[str]:
        words = [str(self._load), "--port", str(target.port), "--key", target.key, "--conns", str(phase.connections)]
        words += ["--seconds", str(seconds), "--warmup", str(phase.lead), "--body", str(self._body(target, phase))]
        for option, value in (("--rate", phase.rate), ("--stream", phase.chunks), ("--slow", phase.slow)):
            words += [option, str(value)] if value else []
        return words

    def _body(self, target: Target, phase: Phase) -> Path:
        """A request with a system and a user message, of the phase's size with the mock's own model name."""
        user = {"role": "user", "content": ""}
        messages = [{"role": "system", "content": "You are the help desk of a maker of lamps. Answer briefly."}, user]
        body: dict[str, Any] = {"model": f"mock{phase.mode}", "messages": messages, "max_tokens": 64}
        if phase.chunks:
            body["stream"] = True
        missing = phase.body - len(json.dumps(body))
        user["content"] = (_WORDS * (missing // len(_WORDS) + 1))[:missing]
        body["model"] = f"{target.model}{phase.mode}"
        file = self._folder / f"body-{target.model}-{phase.letter}.json"
        file.write_text(json.dumps(body))
        return file


def _void(found: dict[str, Any], phase: Phase) -> str:
    faults = [
        name for name in ("errors", "non200", "skipped", "lost", "reordered", "short", "unfinished") if found[name]
    ]
    if not phase.slow and not found["n"]:
        faults.append("n")
    return ", ".join(
        f"{name} {found[name]}" + (f" ({found['last_status']})" if name == "non200" else "") for name in faults
    )


def pids(group: int) -> Iterator[int]:
    """The processes of a process group."""
    for file in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = Path(file).read_text()
            if int(text[text.rindex(")") + 2 :].split()[2]) == group:
                yield int(file.split("/")[2])


def threads(group: int) -> list[str]:
    return [folder for pid in pids(group) for folder in glob.glob(f"/proc/{pid}/task/*")]


def cpu_ns(group: int) -> int:
    """Time on a CPU of all threads of a process group; those of ended threads are lost."""
    used = 0
    for folder in threads(group):
        with contextlib.suppress(OSError):
            used += int(Path(folder, "schedstat").read_text().split()[0])
    return used


def pss_mb(group: int) -> float:
    """Memory of a process group, shared pages by share."""
    total = 0
    for pid in pids(group):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


@contextlib.contextmanager
def realtime(groups: Sequence[int]) -> Iterator[bool]:
    """Have process groups run before everything else on their cores, where that is allowed; says whether it is."""
    tids = [int(folder.rsplit("/", 1)[1]) for group in groups for folder in threads(group)]
    try:
        for tid in tids:
            os.sched_setscheduler(tid, os.SCHED_RR, os.sched_param(1))
        allowed = True
    except OSError:
        allowed = False
    try:
        yield allowed
    finally:
        for tid in tids:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(tid, os.SCHED_OTHER, os.sched_param(0))
