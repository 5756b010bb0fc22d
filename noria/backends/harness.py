"""Outside harnesses: each in an environment of its own, run as a child process against an OpenAI-compatible URL."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from pydantic import JsonValue

from noria.backends.child import last_lines, stop
from noria.errors import Unavailable
from noria.ports import Progress
from noria.settings import child_environment, environment
from noria.types import Scored

LOOK = 0.5
"""Seconds between two looks at a child's log."""
GRACE = 10.0
_COUNT = re.compile(rb"([\w. ]+):\s+\d+%[^\r\n]*?(\d+)/(\d+) \[")
"""A bar of tqdm: its name, how many are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is examined: base URL that ends in `/v1`, API key, and the name of the model there."""

    url: str
    key: str
    model: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a harness found: scores by name, its own files by the names they are kept under, settings, remarks."""

    scores: dict[str, Scored]
    files: dict[str, Path]
    settings: dict[str, JsonValue]
    notes: tuple[str, ...] = field(default_factory=tuple)


def home(name: str, version: str, steps: Sequence[Sequence[str]], pins: str, progress: Progress) -> Path:
    """The folder of a harness's programs, installed at first use; each step is what one call of pip installs.

    `pins` is the file beside this module with the versions of all that it needs: without it pip looks for a set that
    fits for more than a quarter of an hour. The environment lies in the user's cache (`XDG_CACHE_HOME`, else
    `~/.cache`), by name and version. Raises Unavailable with the end of pip's log; the next call goes on from there.
    """
    cache = Path(environment("XDG_CACHE_HOME") or Path.home() / ".cache") / "noria" / "harness"
    folder = cache / f"{name}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        ready = folder / "ready"
        if not ready.is_file():
            label, log = f"installing {name} {version}", folder / "install.log"
            python = str(folder / "bin" / "python")
            calls = [[sys.executable, "-m", "venv", str(folder)]]
            fixed = str(files("noria.backends") / pins)
            calls += [[python, "-m", "pip", "install", "-c", fixed, *step] for step in steps]
            for number, call in enumerate(calls):
                progress.update(label, number, len(calls), "once; this may take minutes")
                with log.open("ab") as out:
                    done = subprocess.run(call, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
                if done.returncode != 0:
                    raise Unavailable(f"{name} {version} cannot be installed: {last_lines(log, 3)}", f"read {log}")
            progress.update(label, len(calls), len(calls))
            ready.touch()
    return folder / "bin"


def watched(argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path, progress: Progress, label: str) -> None:
    """Run a child to its end and tell the counts of the bars that it draws; raises Unavailable where it fails.

    The child ends with this process, also where that is interrupted.
    """
    with log.open("ab") as out:
        child = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd,
            env=child_environment(**env, PYTHONUNBUFFERED="1"), start_new_session=True,
        )  # fmt: skip
    try:
        while child.poll() is None:
            if counted := _COUNT.findall(_tail(log)):
                bar, done, total = counted[-1]
                progress.update(f"{label}: {bar.decode().strip()}", int(done), int(total))
            time.sleep(LOOK)
    finally:
        status = stop(child, GRACE)
    if status != 0:
        raise Unavailable(f"{Path(argv[0]).name} ended with status {status}: {last_lines(log, 3)}", f"read {log}")


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 2048))
        return file.read()
