"""Engines for the command line: asked of the running `noria up`, or one started on its own."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import httpx

from noria.apps import access, engine_api
from noria.apps.plans import Plans
from noria.apps.screen import Screen
from noria.backends import llamacpp, served_kinds, served_process
from noria.backends.processes import LinuxMachine
from noria.deployment import engine_logs, wanting
from noria.deployment.engine_state import EngineStatus, Stopped
from noria.deployment.leaving import Leaving
from noria.deployment.reality import Realities
from noria.deployment.replicas import House, Replicas, each_of
from noria.deployment.starting import log_name, starter
from noria.deployment.submit import in_thread
from noria.errors import NoriaError, NotFound, Unavailable
from noria.ports import Platform, Progress
from noria.settings import EngineSettings, known

TICK = 0.25
MARGIN = 10.0
"""Seconds beyond an engine's own limit: the one before it may have to go first."""
PATIENCE = 120.0
"""Most seconds to wait until an engine has stopped."""


def control(platform: Platform) -> str | None:
    """URL of the running control plane; None where the project is not up."""
    file = platform.settings.state / "up.json"
    if not file.is_file():
        return None
    url = str(json.loads(file.read_text())["control"])
    try:
        httpx.get(f"{url}/health", timeout=5, trust_env=False)
    except httpx.HTTPError:
        # What was killed leaves its file behind.
        return None
    return url


def listed(platform: Platform) -> list[dict[str, Any]]:
    """Every engine, as `noria up` tells of it; all are stopped where it does not run."""
    url = control(platform)
    if url is not None:
        found: list[dict[str, Any]] = _asked(platform, "GET", f"{url}/api/engines")["data"]
        return found
    away = [
        EngineStatus(name, each.kind, "stopped", replicas=len(each_of(each)), error="noria up does not run")
        for name, each in sorted(platform.settings.engines.items())
    ]
    return engine_api.told(platform, away)


def ordered(platform: Platform, what: Literal["start", "stop"], name: str, screen: Progress) -> dict[str, Any]:
    """Start or stop an engine of the running `noria up`, and wait until that is done; returns its status.

    A start is waited for as long as the engine's own limit. Raises NotFound, and Unavailable where nothing runs or it
    takes too long.
    """
    settings = _settings(platform, name)
    url = control(platform)
    if url is None:
        raise Unavailable("noria up does not run here", "start it: noria up")
    if not _asked(platform, "POST", f"{url}/api/engines/{name}/{what}")["begun"]:
        raise Unavailable(f"noria up has not begun to {what} engine '{name}'", "look: noria engines list")
    began, limit = time.monotonic(), PATIENCE if what == "stop" else starting_limit(settings) + MARGIN
    ends = ("stopped",) if what == "stop" else ("ready", "failed")
    while True:
        (told,) = (each for each in listed(platform) if each["name"] == name)
        waited = time.monotonic() - began
        if told["state"] in ends:
            return told
        if waited > limit:
            raise Unavailable(
                f"engine '{name}' is still {told['state']} after {waited:.0f} s" + _because(told),
                log_hint(platform, name),
            )
        screen.update(f"{what} {name}", waited, limit, told["state"] + _because(told))
        time.sleep(2 * TICK)


def starting_limit(settings: EngineSettings) -> float:
    """Seconds in which an engine must answer after its start."""
    if settings.start_limit is not None:
        return settings.start_limit
    outside = settings.url is None and (settings.kind in served_kinds.MAKES or settings.program is not None)
    return served_process.START_SECONDS if outside else llamacpp.READY_SECONDS


def log_hint(platform: Platform, name: str) -> str:
    """Where to look for why an engine does not start."""
    log = platform.settings.state / "logs" / f"{log_name(name, 0)}.log"
    if platform.settings.engines[name].url is not None:
        return "noria doctor"
    return f"its log is {log}; read it: noria engines logs {name}"


def _because(told: Mapping[str, Any]) -> str:
    fact = str(told["error"]).partition("\n")[0]
    return f": {fact}" if fact else ""


def logs(platform: Platform, name: str, lines: int) -> dict[str, Any]:
    """The last lines of each log of an engine, by the log's name; raises NotFound."""
    return {"engine": name, "logs": {file.stem: engine_logs.tail(file, lines) for file in _files(platform, name)}}


def told(platform: Platform, name: str, lines: int, follow: bool) -> Iterator[str]:
    """Lines of an engine's logs, with `follow` for ever; of several logs each line names its own. Raises NotFound."""
    files = _files(platform, name)
    places = {file: file.stat().st_size for file in files}
    several = len(files) > 1
    for file in files:
        yield from (f"{file.stem}: {line}" if several else line for line in engine_logs.tail(file, lines))
    while follow:
        time.sleep(TICK)
        for file in files:
            # A log that was put aside begins anew.
            start = places[file] if places[file] <= file.stat().st_size else 0
            with file.open("rb") as source:
                source.seek(start)
                fresh = source.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            places[file] = start + len(whole)
            for line in whole.decode(errors="replace").splitlines():
                yield f"{file.stem}: {line}" if several else line


class Alone:
    """One engine with the adapters that its tasks have promoted, looked after without a gateway, in the foreground."""

    def __init__(self, platform: Platform, name: str, screen: Screen) -> None:
        """Raises NotFound, and what keeps the ledger or the model from being read."""
        settings = _settings(platform, name)
        self._name = name
        self._screen = screen
        self._report = screen.line
        self._limit = starting_limit(settings)
        self._hint = log_hint(platform, name)
        self._stopping = threading.Event()
        self._leaving = Leaving(lambda version, url: True)
        machine = LinuxMachine()
        house = House(time.monotonic, self._leaving.close_later, in_thread, machine=machine)
        adapters = wanting.promoted(platform, name, screen.line)
        self._replicas = Replicas(settings, adapters, starter(platform, name, adapters, machine), house)
        self._realities = Realities(Plans().plan, machine.taken, in_thread, time.monotonic, screen.line)
        self._logs = platform.settings.state / "logs"
        self._most = platform.settings.runtime.engine_log_bytes
        Stopped(platform.settings.state / "stopped.json").discard(name)

    def run(self, show: Callable[[dict[str, Any]], None]) -> None:
        """Serve until SIGTERM or SIGINT; `show` is given addresses, keys and adapters once it answers.

        Raises Unavailable when it does not come up, naming its log, and when it has crashed too often in a row.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            self._replicas.begin()
            if self._comes_up():
                show(self._told())
            while not self._stopping.wait(TICK):
                self._look()
        finally:
            self._replicas.close()
            self._leaving.close()

    def _comes_up(self) -> bool:
        """Wait for the first answers, which the engine's own limit bounds; False where it was stopped meanwhile."""
        replicas, began = self._replicas, time.monotonic()
        while not replicas.settled:
            waited = time.monotonic() - began
            self._screen.update(f"start {self._name}", min(waited, self._limit), self._limit, "starting")
            if self._stopping.wait(TICK):
                return False
            replicas.poll()
        self._screen.clear()
        if not replicas.live:
            first = replicas.failures[0]
            raise Unavailable(f"engine '{self._name}' did not start: {first.fact}", first.hint or self._hint)
        return True

    def _look(self) -> None:
        died, back = self._replicas.poll()
        self._realities.poll({self._name: self._replicas})
        if died:
            self._report(f"engine '{self._name}' died: {self._replicas.fault}")
        if back:
            self._report(f"engine '{self._name}' was started again")
            self._report(json.dumps(self._told()))
        if self._replicas.broken == self._replicas.count:
            raise Unavailable(f"engine '{self._name}' crashed too often in a row: {self._replicas.fault}", self._hint)
        for file in engine_logs.files_of(self._logs, self._name):
            engine_logs.rotate(file, self._most)

    def _told(self) -> dict[str, Any]:
        replicas = self._replicas
        servers = [{"url": each.url, "key": each.key, "model": each.model} for each in replicas.endpoints]
        adapters = [
            {
                "adapter": str(ref), "servers": [{"url": each.url, "key": each.key} for each in replicas.at(ref)],
                "request": replicas.live[0].extra(ref),
            }
            for ref in sorted(replicas.adapters, key=str)
        ]  # fmt: skip
        return {"engine": self._name, "servers": servers, "pids": list(replicas.pids), "adapters": adapters}

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()


def _settings(platform: Platform, name: str) -> EngineSettings:
    found = platform.settings.engines.get(name)
    if found is None:
        raise NotFound(f"there is no engine '{name}'", known(name, dict(platform.settings.engines)))
    return found


def _files(platform: Platform, name: str) -> list[Path]:
    _settings(platform, name)
    files = engine_logs.files_of(platform.settings.state / "logs", name)
    if not files:
        raise NotFound(f"engine '{name}' has no log yet", "it is written once noria has started the engine")
    return files


def _asked(platform: Platform, method: str, url: str) -> Any:
    headers = {"authorization": f"Bearer {access.admin_key(platform)}"}
    try:
        answer = httpx.request(method, url, headers=headers, timeout=30, trust_env=False)
    except httpx.HTTPError as error:
        raise Unavailable(f"'{url}' does not answer: {error}", "is it up? start it: noria up") from error
    found = answer.json()
    if answer.status_code != 200:
        raise NoriaError(found["error"]["message"], "look: noria engines list")
    return found
