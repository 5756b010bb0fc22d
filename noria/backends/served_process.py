"""An outside server as a process: a free port, its first sign of health, its end with all that it has started."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx

from noria.backends.child import last_lines, spawn, stop
from noria.backends.served_child import take_away
from noria.errors import Unavailable

LOOPBACK: Final = "127.0.0.1"
START_SECONDS: Final = 600.0
HEALTH_TIMEOUT: Final = 5.0
_POLL: Final = 0.1
_LINES: Final = 12


def launch(
    command: Sequence[str], env: Mapping[str, str], log: Path, remove: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start a server that ends with this process, however that ends; returns the leader of its process group.

    `remove` is the command that takes away its container, which is run too should this process be gone.
    """
    wrapped = (sys.executable, "-m", "noria.backends.served_child", str(os.getpid()), shlex.join(remove), *command)
    return spawn(wrapped, log=log, env=env)


def wait(name: str, process: subprocess.Popen[bytes], url: str, seconds: float, log: Path) -> None:
    """Return once the server says at `url` that it is healthy; raises Unavailable when it ends or takes too long."""
    until = time.monotonic() + seconds
    with httpx.Client(trust_env=False, timeout=HEALTH_TIMEOUT) as client:
        while (status := process.poll()) is None and time.monotonic() < until:
            with suppress(httpx.TransportError):
                if client.get(url).is_success:
                    return
            time.sleep(_POLL)
    reason = f"no sign of health in {seconds:.0f} s" if status is None else f"it ended with status {status}"
    said = last_lines(log, _LINES)
    raise Unavailable(
        f"{name} did not start: {reason}" + (f"\n{said}" if said else ""),
        f"its log is {log}" + ("; more time: start_limit = …" if status is None else ""),
    )


def end(process: subprocess.Popen[bytes], grace: float, remove: Sequence[str] = ()) -> None:
    """End a launcher and all that its server has started; SIGKILL after `grace` seconds; then `remove` its container.

    A container is no child of the client that runs it, and outlives its SIGKILL.
    """
    stop(process, grace)
    with suppress(ProcessLookupError, PermissionError):
        # A group keeps its number as long as one of it lives; of one that has ended there is nobody to tell.
        os.killpg(process.pid, signal.SIGKILL)
    take_away(remove)


def port_of(wanted: int | None) -> int:
    """The port that is asked for, else a free one; raises Unavailable where somebody listens on it already.

    The health of whoever has it would pass for that of the server about to be started.
    """
    if not wanted:
        return free_port()
    with socket.socket() as probe:
        # Connections of the last server there that have not timed out yet do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError as error:
            raise Unavailable(
                f"port '{wanted}' cannot be had: {error.strerror}", "end what listens there, or choose another port"
            ) from error
    return wanted


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
