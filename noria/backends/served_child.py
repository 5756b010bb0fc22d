"""Runs an outside server as a child that never outlives noria.

Its command line is python -m noria.backends.served_child PARENT REMOVE COMMAND.

PARENT is the launcher's process id, COMMAND the words to run, REMOVE those that take its container away, as one
argument, empty without a container. This process leads a group of its own, in which the server and all that it
starts are. SIGTERM goes on to the server; this process ends with the server's status.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from noria.backends.child import LOOK

GRACE: Final = 10.0
"""Seconds that a server has to end by itself, once whoever launched it is gone."""
REMOVE_SECONDS: Final = 30.0
"""Seconds that taking a container away may take."""
_PR_SET_PDEATHSIG: Final = 1


def take_away(remove: Sequence[str]) -> None:
    """Run the command that takes a container away; nothing without one, nor where it is gone already."""
    if remove:
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(remove, stdin=subprocess.DEVNULL, capture_output=True, timeout=REMOVE_SECONDS, check=False)


def _die_with_this_process() -> None:
    """Called in the server's process before it runs: where Linux is, it is told of this process's kill -9 too."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_all(remove: Sequence[str], ending: threading.Lock) -> None:
    """Take the container away, then end this group: what the server has started, and this process."""
    # Two threads may see the launcher's end, and the first of them ends the other.
    with ending:
        take_away(remove)
        os.killpg(0, signal.SIGKILL)


def _watch(parent: int, server: subprocess.Popen[bytes], remove: Sequence[str], ending: threading.Lock) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(GRACE)
    _end_all(remove, ending)


def main() -> int:
    """Run the server until it ends."""
    parent, remove, command = int(sys.argv[1]), shlex.split(sys.argv[2]), sys.argv[3:]
    ending = threading.Lock()
    try:
        # The thread that starts the server is the main one, which lives as long as this process.
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_this_process)
    except OSError as error:
        sys.stderr.write(f"'{command[0]}' cannot be run: {error.strerror}\n")
        return 127
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    threading.Thread(target=_watch, args=(parent, server, remove, ending), name="watch-parent", daemon=True).start()
    status = server.wait()
    if os.getppid() != parent:
        _end_all(remove, ending)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
