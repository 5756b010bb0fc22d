"""`noria doctor`: is this machine ready, and is this project sound?"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from noria import settings as reading
from noria.apps.doctor import engines, logs, machine
from noria.apps.doctor.check import Check, warning
from noria.backends.clock import SystemClock
from noria.errors import NoriaError

RECENT: Final = 86400.0
"""Seconds for which a log's troubles are told."""


def examine(start: Path) -> list[Check]:
    """All checks, of the machine first and then of the project around `start`."""
    now = SystemClock().now()
    return [*machine.checks(start, now), *_project(start, now.timestamp())]


def _project(start: Path, now: float) -> Iterator[Check]:
    try:
        settings = reading.load(reading.find(start.resolve()))
    except NoriaError as error:
        yield Check("noria.toml", False, f"{error.where} {error.fact}".strip(), error.hint)
        return
    yield Check("noria.toml", True, f"{len(settings.tasks)} task(s), {len(settings.sources)} source(s)")
    yield _tried("back-ends", lambda: _open(settings))
    for source in settings.sources:
        if source.path is not None:
            yield _files(settings, source)
    yield from engines.checks(settings)
    yield from _serving(settings)
    yield from _spark(settings.runtime.spark)
    yield from _logs(settings.state / "logs", now)


def _open(settings: reading.Settings) -> str:
    from noria.wiring import open_platform

    platform = open_platform(settings)
    bases = []
    for name, engine in settings.engines.items():
        ref, quantization = platform.engines[engine.kind].base(engine)
        bases.append(f"{name}: {ref.name} {quantization}")
    return ", ".join(bases) or "opened"


def _tried(name: str, work: Callable[[], str]) -> Check:
    try:
        return Check(name, True, work())
    except NoriaError as error:
        return Check(name, False, f"{error.where} {error.fact}".strip(), error.hint)


def _files(settings: reading.Settings, source: reading.SourceSettings) -> Check:
    from noria.lake.read import Place, listed

    name = f"source {source.name}"
    try:
        files = listed(Place(source, settings))
    except NoriaError as error:
        return Check(name, False, error.fact, error.hint)
    refused = [file for file in files if file.refused]
    found = f"{len(files)} file(s)" + (f", {len(refused)} of them refused" if refused else "")
    return Check(name, not refused, found, f"{refused[0].name}: {refused[0].refused}" if refused else "")


def _serving(settings: reading.Settings) -> Iterator[Check]:
    """The ports of `noria up`, or whether the one that runs is alive."""
    file = settings.state / "up.json"
    if not file.is_file():
        yield machine.port("data plane", settings.runtime.listen)
        yield machine.port("control plane", settings.runtime.control)
        return
    try:
        os.kill(int(json.loads(file.read_text())["pid"]), 0)
    except PermissionError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        yield Check("noria up", False, "it was killed and left .noria/up.json behind", "start it again: noria up")


def _spark(address: str) -> Iterator[Check]:
    """A Spark Connect server that does not answer; the embedded one needs no server, and no Java."""
    parts = urlsplit(address)
    if parts.scheme != "sc" or parts.hostname is None:
        return
    host = f"{parts.hostname}:{parts.port or 15002}"
    try:
        socket.create_connection((parts.hostname, parts.port or 15002), timeout=3.0).close()
    except OSError as error:
        here = parts.hostname in ("localhost", "127.0.0.1", "::1")
        java = "install Java 17 first; then " if here and shutil.which("java") is None else ""
        hint = f'{java}start the server: start-connect-server.sh, or spark = "embedded"'
        yield Check("Spark", False, f"nobody answers at {host}: {error}", hint)
    else:
        yield Check("Spark", True, f"{host} answers")


def _logs(folder: Path, now: float) -> Iterator[Check]:
    """Known troubles in the logs of the last day, which may be over by now."""
    for log in sorted(folder.glob("*.log")) if folder.is_dir() else []:
        if now - log.stat().st_mtime < RECENT:
            for seen in logs.recognised(logs.read(log)):
                yield warning(f"log {log.name}:{seen.line}", f"{seen.name}: {seen.says}", seen.hint)
