"""`noria up`: one process tree that serves: engines, gateway and control plane."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from types import FrameType

import httpx
import uvicorn

from noria.apps import access, api
from noria.apps.screen import Screen
from noria.backends.child import spawn, stop
from noria.deployment.fleet import Fleet
from noria.deployment.supervise import Supervised
from noria.errors import Conflict, Unavailable
from noria.ports import Platform
from noria.settings import child_environment
from noria.types import Snapshot

TICK = 0.25
"""Seconds between two looks at the ledger and the children."""
DRAIN = 25.0
"""Seconds that the gateway gets to finish what is in flight."""


class Serving:
    """The running tree. `run` returns when it was told to stop."""

    def __init__(self, platform: Platform, screen: Screen, ready_file: Path | None) -> None:
        self._platform = platform
        self._screen = screen
        self._ready_file = ready_file
        self._state = platform.settings.state
        self._stopping = threading.Event()
        self._gateway = Supervised(self._start_gateway, _lives, _end, time.monotonic)
        self._http = httpx.Client(timeout=2.0, trust_env=False)
        self._address = ""
        self._fleet = Fleet(platform, self._publish, self._released, screen.line, time.monotonic)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; raises Conflict when this project is up already or a port is taken."""
        with _alone(self._state), _control_plane(self._platform) as control:
            access.admin_key(self._platform)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._stop)
            (self._state / "snapshot.json").unlink(missing_ok=True)
            self._publish(self._fleet.snapshot)
            self._screen.line("starting engines…")
            try:
                self._loop(control)
            finally:
                self._gateway.close()
                self._fleet.close()
                for name in ("up.json", "gateway.url"):
                    (self._state / name).unlink(missing_ok=True)

    def _loop(self, control: str) -> None:
        announced = False
        log = self._state / "logs" / "gateway.log"
        before = log.stat().st_size if log.is_file() else 0
        self._gateway.begin()
        while not self._stopping.is_set():
            self._fleet.poll()
            self._gateway.poll()
            if self._gateway.child is None and not self._address and (fact := _refusal(log, before)):
                raise Unavailable(fact, "free the port, or set [runtime] listen")
            if not announced and self._serves():
                self._announce(control)
                announced = True
            self._stopping.wait(TICK)

    def _announce(self, control: str) -> None:
        urls = {"data": self._address, "control": control, "pid": os.getpid()}
        for file in (self._state / "up.json", self._ready_file):
            if file is not None:
                _write(file, json.dumps(urls))
        self._screen.line(f"data plane     {self._address}/v1   (key: {self._state.name}/admin.key)")
        self._screen.line(f"control plane  {control}")

    def _serves(self) -> bool:
        health = self._health()
        return (
            health is not None
            and health["snapshot"] == self._fleet.snapshot.version
            and bool(self._fleet.snapshot.routes or not self._platform.settings.tasks)
        )

    def _start_gateway(self) -> Popen[bytes]:
        host, port = _split(self._platform.settings.runtime.listen)
        if self._address:
            # Clients know the port that was taken at the first start.
            port = int(self._address.rpartition(":")[2])
        (self._state / "gateway.url").unlink(missing_ok=True)
        argv = [sys.executable, "-m", "noria.apps.gateway", "--state", str(self._state)]
        argv += ["--host", host, "--port", str(port), "--parent", str(os.getpid())]
        return spawn(argv, log=self._state / "logs" / "gateway.log", env=child_environment())

    def _health(self) -> dict[str, object] | None:
        file = self._state / "gateway.url"
        if not file.is_file():
            return None
        self._address = file.read_text().strip()
        try:
            answer: dict[str, object] = self._http.get(f"{self._address}/health").json()
        except (httpx.HTTPError, ValueError):
            return None
        return answer

    def _released(self, version: int, url: str) -> bool:
        health = self._health()
        if health is None:
            return False
        inflight, taken = health.get("inflight"), health.get("snapshot")
        return isinstance(taken, int) and taken >= version and not (isinstance(inflight, dict) and inflight.get(url))

    def _publish(self, snapshot: Snapshot) -> None:
        _write(self._state / "snapshot.json", snapshot.model_dump_json(), private=True)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()


def _lives(gateway: Popen[bytes]) -> bool:
    return gateway.poll() is None


def _end(gateway: Popen[bytes]) -> None:
    stop(gateway, DRAIN)


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    (state / "logs").mkdir(parents=True, exist_ok=True)
    with (state / "up.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict("this project is up already", "look: noria status") from None
        yield


@contextmanager
def _control_plane(platform: Platform) -> Iterator[str]:
    host, port = _split(platform.settings.runtime.control)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Conflict(
            f"port {port} on {host} is in use", "free it, or set [runtime] control",
            where=platform.settings.place("runtime", "control"),
        ) from error  # fmt: skip
    server = uvicorn.Server(uvicorn.Config(api.build(platform), log_level="error", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="control-plane", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _split(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    return host or "127.0.0.1", int(port)


def _refusal(log: Path, start: int) -> str:
    """What the gateway said when it would not start; empty when it was killed, which the next start may survive."""
    with log.open("rb") as file:
        file.seek(start)
        said = [line for line in file.read().decode(errors="replace").splitlines() if line.startswith("noria: ")]
    return said[-1].removeprefix("noria: ") if said else ""


def _write(file: Path, text: str, private: bool = False) -> None:
    fresh = file.with_name(file.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o644)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    fresh.replace(file)
