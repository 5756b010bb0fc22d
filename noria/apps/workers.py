"""The gateway's processes: they share the port of the data plane, and each is started again when it dies."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Any

from noria.apps import port
from noria.backends.child import spawn, stop
from noria.deployment.supervise import Supervised
from noria.gateway import limits
from noria.gateway.workers import read
from noria.settings import child_environment

DRAIN = 25.0
"""Seconds that the workers get to finish what is in flight."""


class Workers:
    """`count` gateways of one project on one port, which stays ours until `close`.

    The owner calls `poll` in its loop. Raises Unavailable where the port is taken, Invalid where there is none.
    """

    def __init__(self, state: Path, host: str, port_number: int, count: int, parent: int) -> None:
        self._reserved = port.reserve(host, port_number)
        self.address = port.url_of(self._reserved)
        self._state = state
        self._host = host
        self._port: int = self._reserved.getsockname()[1]
        self._count = count
        self._parent = parent
        self._log = state / "logs" / "gateway.log"
        self._keepers = [
            Supervised(partial(self._start, number), _lives, partial(self._end, number), time.monotonic)
            for number in range(count)
        ]

    def begin(self) -> None:
        """Start all of them, with counts from zero; limits go on from what was used."""
        shutil.rmtree(self._state / "workers", ignore_errors=True)
        limits.forget(self._state / "limits.bin")
        self._began = self._log.stat().st_size if self._log.is_file() else 0
        for keeper in self._keepers:
            keeper.begin()

    def poll(self) -> None:
        """Start those again that have died."""
        for keeper in self._keepers:
            keeper.poll()

    def close(self) -> None:
        """Stop all of them at the same time; requests in flight have DRAIN seconds."""
        for keeper in self._keepers:
            if keeper.child is not None:
                keeper.child.terminate()
        for keeper in self._keepers:
            keeper.close()
        self._reserved.close()

    def refusal(self) -> str:
        """Why none of them would start; empty when some live, or were killed, which the next start may survive."""
        if any(keeper.child is not None for keeper in self._keepers) or not self._log.is_file():
            return ""
        with self._log.open("rb") as file:
            file.seek(self._began)
            said = [line for line in file.read().decode(errors="replace").splitlines() if line.startswith("noria: ")]
        return said[-1].removeprefix("noria: ") if said else ""

    def have(self, version: int) -> bool:
        """Whether every worker has taken over this snapshot."""
        return all(told.get("snapshot") == version for told in self._told())

    def released(self, version: int, url: str) -> bool:
        """Whether every worker has taken over this snapshot or a later one and has nothing in flight at `url`."""
        return all(
            told.get("snapshot", -1) >= version and not told.get("inflight", {}).get(url) for told in self._told()
        )

    def inflight(self, url: str) -> int:
        """Requests that all workers together have at `url`."""
        return sum(int(told.get("inflight", {}).get(url, 0)) for told in self._told())

    def asked(self) -> dict[str, float]:
        """When each engine was asked last, in seconds since 1970."""
        found: dict[str, float] = {}
        for told in self._told():
            for engine, at in told.get("asked", {}).items():
                found[engine] = max(at, found.get(engine, 0.0))
        return found

    def _told(self) -> list[Mapping[str, Any]]:
        """What each worker said of itself; nothing of one that has not spoken since it was started."""
        found = []
        for number, keeper in enumerate(self._keepers):
            told = read(self._state / "workers" / f"{number}.json")
            child = keeper.child
            found.append(told if child is not None and told.get("pid") == child.pid else {})
        return found

    def _start(self, number: int) -> Popen[bytes]:
        argv = [sys.executable, "-m", "noria.apps.gateway", "--state", str(self._state)]
        argv += ["--host", self._host, "--port", str(self._port), "--parent", str(self._parent)]
        argv += ["--worker", str(number), "--workers", str(self._count)]
        return spawn(argv, log=self._log, env=child_environment())

    def _end(self, number: int, worker: Popen[bytes]) -> None:
        stop(worker, DRAIN)
        # What it had in flight must not count until its successor is up.
        limits.forget(self._state / "limits.bin", number)


def _lives(worker: Popen[bytes]) -> bool:
    return worker.poll() is None
