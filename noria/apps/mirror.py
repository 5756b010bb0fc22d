"""The registry follows what serves while noria is up: a child process syncs, for MLflow's import is not paid here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from noria.backends.child import last_lines, spawn, stop
from noria.ports import Platform
from noria.registry import versions
from noria.settings import child_environment

AGAIN = 60.0
"""Seconds after which a sync that failed is tried again."""
GRACE = 5.0


class Mirror:
    """Looks whether a release was made since the last sync, whoever made it. The owner calls `poll`; no thread."""

    def __init__(self, platform: Platform, report: Callable[[str], None]) -> None:
        """`report` is told, in one line, of a sync that failed."""
        self._platform = platform
        self._report = report
        self._child: tuple[str, subprocess.Popen[bytes]] | None = None
        self._failed: dict[str, float] = {}
        self._log = platform.settings.state / "logs" / "registry.log"

    def take(self, platform: Platform) -> None:
        """Go on with other settings."""
        self._platform = platform

    def poll(self) -> None:
        """Begin at most one sync; raises Unavailable where the ledger is away."""
        if self._child is not None:
            self._look(*self._child)
            return
        for task in self._platform.settings.tasks:
            waits = time.monotonic() < self._failed.get(task, 0.0)
            if not waits and versions.due(self._platform, task):
                root = str(self._platform.settings.root)
                argv = [sys.executable, "-m", "noria", "registry", "sync", task, "--project", root]
                argv += ["--new", "--parent", str(os.getpid())]
                self._child = task, spawn(argv, log=self._log, env=child_environment())
                return

    def close(self) -> None:
        """End a sync that runs; the next one goes on."""
        if self._child is not None:
            stop(self._child[1], GRACE)
            self._child = None

    def _look(self, task: str, child: subprocess.Popen[bytes]) -> None:
        status = child.poll()
        if status is None:
            return
        self._child = None
        if status == 0:
            self._failed.pop(task, None)
            return
        if task not in self._failed:
            why = last_lines(self._log, 1) or f"status {status}"
            self._report(f"the registry's '{task}' was not brought up to date: {why}; it is tried again")
        self._failed[task] = time.monotonic() + AGAIN
