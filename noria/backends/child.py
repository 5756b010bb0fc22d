"""Child processes that never outlive the process that started them, however that one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

LOOK = 0.5
"""Seconds between two looks at whether the parent still lives."""


def spawn(argv: Sequence[str], *, log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, so that a Ctrl-C meant for the parent does not reach it.

    Standard input is empty; both outputs are appended to `log`, whose folder is made. The child has to call
    `die_with_parent` first thing, with this process's id (`os.getpid()`), which belongs on its command line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=dict(env), start_new_session=True
        )


def die_with_parent(parent: int) -> None:
    """Called in a child: end this process, without clean-up, within a second of the end of process `parent`.

    A daemon thread compares `os.getppid()` with `parent`, the id that the launcher wrote on the command line: a
    parent that ended before this call is noticed too, and one that really is process 1 (a container) is not taken
    for a lost one. Linux's PR_SET_PDEATHSIG is not used because it fires when the *thread* that started the child
    ends, and engines are started from short-lived threads. The price: native code that holds Python's interpreter
    lock, such as llama.cpp while it loads a model, delays the end until it returns.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def stop(process: subprocess.Popen[bytes], grace: float) -> int:
    """End a child and reap it: SIGTERM, then after `grace` seconds SIGKILL to its whole process group.

    Returns the exit status, negative for the signal that ended it. Does nothing to a child that has ended.
    """
    process.terminate()
    try:
        return process.wait(grace)
    except subprocess.TimeoutExpired:
        # The child is not reaped yet, so its id cannot have passed on to a stranger.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def last_lines(log: Path, lines: int = 5) -> str:
    """The end of a child's log, for the error that says why it died; empty when there is none."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        tail = file.read().decode(errors="replace").splitlines()
    return "\n".join([line for line in tail if line.strip()][-lines:])
