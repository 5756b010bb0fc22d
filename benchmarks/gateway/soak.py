"""The gateway for a long time at half of what it can take, with clients that vanish or dawdle and engines that die.

`make soak`, or `python benchmarks/gateway/soak.py --seconds 60` for a quick look. Exit status 0 when memory stayed
flat, every request has one record, nothing was left in flight and the gateway's process is the one that began.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import servers
from phases import pss_mb
from run import compiled
from servers import KEY, KINDS, ROOT, Place, Server

FLAT = 1.10
"""Most that memory at the end may be of what it was at the beginning."""
SETTLED = 0.2
"""Share of the run that is left out of that: pools and caches fill."""
LOOK_SECONDS = 1.0
PROBE_SECONDS = 5.0
LEAVERS, DAWDLERS = 20, 4
TRICKLE = 4096
"""Bytes a second that a slow reader takes."""


@dataclass
class Kept:
    """What the soak has seen."""

    memory: list[float] = field(default_factory=list)
    requests: int = 0
    refused: int = 0
    records: int = 0
    restarts: int = 0


class Engine:
    """The mock on one port, which can die and come back."""

    def __init__(self, program: Path) -> None:
        self.port = servers.free_port()
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen([self._program, str(self.port)])
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                self.active()
                return
            time.sleep(0.02)
        sys.exit("the mock does not answer")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def active(self) -> int:
        return int(_told(self.port, "/stats")["active"])


class Load:
    """One kind of client: the load program with these options, run again as soon as it ends, if `again`."""

    def __init__(self, command: Sequence[object], connections: int, again: bool, leaves: bool) -> None:
        self._command = [str(word) for word in command] + ["--conns", str(connections)]
        self._connections = connections
        self._again = again
        self._leaves = leaves
        self._process: subprocess.Popen[bytes] | None = None
        self.begin()

    def begin(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)

    def look(self, kept: Kept, stopping: bool = False) -> bool:
        """Take in what a finished run has seen; whether another one is under way."""
        if self._process is None:
            return False
        if self._process.poll() is None and not stopping:
            return True
        found: dict[str, Any] = json.loads(self._process.communicate()[0])
        # Those that leave have one request under way on each connection when they do.
        kept.requests += found["n"] + found["errors"] + (self._connections if self._leaves else found["unfinished"])
        kept.refused += found["non200"]
        self._process = None
        if self._again and not stopping:
            self.begin()
            return True
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[min(1, len(cores) - 1)]})
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-", dir=build) as name:
        folder = Path(name)
        load = compiled("load", folder)
        engine = Engine(compiled("mock", folder))
        place = Place(folder / "noria", servers.free_port(), engine.port, cores[0])
        server = Server(next(kind for kind in KINDS if kind.name == "noria"), place)
        try:
            faults = _soak(options, folder, load, engine, server)
        finally:
            server.stop()
            engine.stop()
    print("soak: " + ("; ".join(faults) if faults else "passed"))
    return 1 if faults else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--restart", type=float, default=20.0, help="seconds between two deaths of the engine")
    return parser.parse_args(arguments)


def _soak(options: argparse.Namespace, folder: Path, load: Path, engine: Engine, server: Server) -> list[str]:
    kept = Kept()
    segments = folder / "noria" / "segments"
    base = [load, "--port", server.port, "--key", KEY]
    plain = [*base, "--body", _body(folder, "")]
    probe = json.loads(subprocess.check_output([str(word) for word in [*plain, "--seconds", PROBE_SECONDS]]))
    kept.requests += probe["n"] + probe["errors"] + probe["unfinished"]
    rate = probe["rps"] / 2
    print(f"saturated at {probe['rps']:.0f} requests/s; {options.seconds:.0f} s at {rate:.0f}", flush=True)
    streams = [*base, "--stream", 300, "--body", _body(folder, "-long")]
    floods = [*base, "--stream", 60_000, "--body", _body(folder, "-flood")]
    loads = [
        Load([*plain, "--rate", rate, "--seconds", options.seconds], 64, again=False, leaves=False),
        Load([*streams, "--seconds", 2, "--leave"], LEAVERS, again=True, leaves=True),
        Load([*floods, "--seconds", 10, "--slow", TRICKLE], DAWDLERS, again=True, leaves=True),
    ]
    began = time.monotonic()
    restart = began + options.restart
    while time.monotonic() - began < options.seconds:
        time.sleep(LOOK_SECONDS)
        kept.memory.append(pss_mb(server.group))
        kept.records += _taken(segments, last=False)
        for each in loads:
            each.look(kept)
        if time.monotonic() > restart:
            engine.stop()
            engine.start()
            kept.restarts += 1
            restart += options.restart
    for each in loads:
        each.look(kept, stopping=True)
    faults = _left(server, engine)
    server.stop()
    kept.records += _taken(segments, last=True)
    return faults + _judged(kept)


def _left(server: Server, engine: Engine) -> list[str]:
    """What is still in flight although every client has gone."""
    faults = [] if server.process.poll() is None else [f"the gateway ended with {server.process.returncode}"]
    end = time.monotonic() + 30
    inflight: object = None
    while not faults and time.monotonic() < end:
        inflight = _told(server.port, "/health")["inflight"]
        if not inflight and not engine.active():
            return faults
        time.sleep(0.2)
    return [*faults, f"still in flight: {inflight} at the gateway, {engine.active()} at the engine"]


def _judged(kept: Kept) -> list[str]:
    faults = []
    settled = kept.memory[int(len(kept.memory) * SETTLED) :]
    quarter = max(1, len(settled) // 4)
    first, last = statistics.median(settled[:quarter]), statistics.median(settled[-quarter:])
    print(f"memory {first:.1f} MB, at the end {last:.1f} MB ({last / first:.3f}x), at most {max(kept.memory):.1f} MB")
    print(
        f"{kept.requests} requests, {kept.records} records; {kept.refused} answers without status 200 over "
        f"{kept.restarts} restarts of the engine"
    )
    if last > FLAT * first:
        faults.append(f"memory grew to {last / first:.2f}x")
    if kept.records != kept.requests:
        faults.append(f"{kept.records} records of {kept.requests} requests")
    return faults


def _taken(segments: Path, last: bool) -> int:
    """The records of sealed segments, which are removed, as if shipped; with `last` of the open one too."""
    count = 0
    files = sorted(segments.glob("*.jsonl"))
    for file in files if last else files[:-1]:
        with file.open("rb") as lines:
            count += sum(line.startswith(b'{"kind":"interaction"') for line in lines)
        file.unlink()
    return count


def _body(folder: Path, mode: str) -> Path:
    text = "Why does the lamp stay red? " * (1 if mode else 28)
    body: dict[str, Any] = {"model": f"desk{mode}", "messages": [{"role": "user", "content": text}], "max_tokens": 64}
    if mode:
        body["stream"] = True
    file = folder / f"body{mode}.json"
    file.write_text(json.dumps(body))
    return file


def _told(port: int, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


if __name__ == "__main__":
    sys.exit(main())
