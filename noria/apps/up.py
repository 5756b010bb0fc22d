"""`noria up`: one process tree that serves: engines, gateway and control plane."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from noria.apps import access, api, reload
from noria.apps.mirror import Mirror
from noria.apps.plans import Plans
from noria.apps.screen import Screen
from noria.apps.workers import Workers
from noria.backends.processes import LinuxMachine
from noria.deployment.around import Around
from noria.deployment.fleet import Fleet
from noria.deployment.submit import in_thread
from noria.deployment.watcher import Watcher
from noria.errors import Conflict, NoriaError, Unavailable
from noria.ports import Platform
from noria.types import Snapshot

TICK = 0.25
"""Seconds between two looks at the ledger and the children."""
LOOK = 2.0
"""Seconds between two looks at the trials."""


class Serving:
    """The running tree. `run` returns when it was told to stop."""

    def __init__(self, platform: Platform, screen: Screen, ready_file: Path | None, workers: int | None = None) -> None:
        """`workers` is the number of gateway processes; without it that of [gateway] workers."""
        self._platform = platform
        self._screen = screen
        self._ready_file = ready_file
        self._state = platform.settings.state
        self._stopping = threading.Event()
        self._reloading = threading.Event()
        self._count = workers or platform.settings.gateway.workers
        self._watcher = Watcher(platform, screen.line)
        self._mirror = Mirror(platform, screen.line)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; raises Conflict when this project is up already or a port is taken."""
        with _alone(self._state), ExitStack() as stack:
            workers = self._workers()
            fleet = self._fleet(workers)
            stack.callback(self._tidy)
            stack.enter_context(closing(fleet))
            stack.enter_context(closing(workers))
            control = stack.enter_context(_control_plane(self._platform, fleet))
            access.admin_key(self._platform)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._stop)
            signal.signal(signal.SIGHUP, self._reload)
            (self._state / "snapshot.json").unlink(missing_ok=True)
            self._publish(fleet.snapshot)
            self._screen.line("starting engines…")
            # What has come in since a trial began may take a while to read; the children are looked after meanwhile.
            watching = threading.Thread(target=self._watch, name="trials", daemon=True)
            watching.start()
            try:
                self._loop(fleet, workers, control)
            finally:
                self._stopping.set()
                watching.join(LOOK)
                self._mirror.close()

    def _fleet(self, workers: Workers) -> Fleet:
        plans = Plans()
        around = Around(in_thread, workers.inflight, workers.asked, LinuxMachine(), plans.need, plans.plan)
        return Fleet(self._platform, self._publish, workers.released, self._screen.line, time.monotonic, around)

    def _tidy(self) -> None:
        for name in ("up.json", "gateway.url"):
            (self._state / name).unlink(missing_ok=True)

    def _loop(self, fleet: Fleet, workers: Workers, control: str) -> None:
        announced = told = False
        workers.begin()
        while not self._stopping.is_set():
            if self._reloading.is_set():
                self._reloading.clear()
                self._read_again(fleet)
            fleet.poll()
            workers.poll()
            if not announced and (fact := workers.refusal()):
                raise Unavailable(fact, "look at .noria/logs/gateway.log")
            if not announced and self._serves(fleet, workers):
                self._announce(workers.address, control)
                announced = told = True
            elif not told and (workers.have(fleet.snapshot.version) or _failed(fleet)):
                # Engines that failed, rest or were stopped are looked at and started by way of the control plane.
                told = True
                _write(self._state / "up.json", self._urls(workers.address, control))
            self._stopping.wait(TICK)

    def _watch(self) -> None:
        told = ""
        while not self._stopping.wait(LOOK):
            try:
                self._watcher.poll()
                self._mirror.poll()
            except (NoriaError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    self._screen.line(f"the trials could not be looked at: {error}")

    def _workers(self) -> Workers:
        host, port = _split(self._platform.settings.runtime.listen)
        try:
            return Workers(self._state, host, port, self._count, os.getpid())
        except NoriaError as error:
            raise Unavailable(
                error.fact, "free the port, or set [runtime] listen",
                where=self._platform.settings.place("runtime", "listen"),
            ) from error  # fmt: skip

    def _read_again(self, fleet: Fleet) -> None:
        """Take over a changed noria.toml, as far as that can be done while serving; a faulty one changes nothing."""
        try:
            fresh = reload.platform(self._platform)
            fleet.take(fresh)
            self._watcher.take(fresh)
            self._mirror.take(fresh)
        except NoriaError as error:
            self._screen.line(f"{error.where or 'noria.toml'}: {error.fact}; what was in use before stays in use")
            return
        self._platform = fresh
        self._screen.line("noria.toml was read again")

    def _announce(self, address: str, control: str) -> None:
        for file in (self._state / "up.json", self._ready_file):
            if file is not None:
                _write(file, self._urls(address, control))
        self._screen.line(f"data plane     {address}/v1   (key: {self._state.name}/admin.key)")
        self._screen.line(f"control plane  {control}")

    def _urls(self, address: str, control: str) -> str:
        return json.dumps({"data": address, "control": control, "pid": os.getpid()})

    def _serves(self, fleet: Fleet, workers: Workers) -> bool:
        arms = [arm for route in fleet.snapshot.routes.values() for arm in route.arms]
        some = any(not arm.refusal for arm in arms) or not self._platform.settings.tasks
        return workers.have(fleet.snapshot.version) and some

    def _publish(self, snapshot: Snapshot) -> None:
        _write(self._state / "snapshot.json", snapshot.model_dump_json(), private=True)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()

    def _reload(self, number: int, frame: FrameType | None) -> None:
        self._reloading.set()


def _failed(fleet: Fleet) -> bool:
    return any(each.state == "failed" for each in fleet.engines)


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
def _control_plane(platform: Platform, fleet: Fleet) -> Iterator[str]:
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
    server = uvicorn.Server(
        uvicorn.Config(api.build(platform, fleet), ws="none", log_level="error", access_log=False, lifespan="off")
    )
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


def _write(file: Path, text: str, private: bool = False) -> None:
    fresh = file.with_name(file.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o644)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    fresh.replace(file)
