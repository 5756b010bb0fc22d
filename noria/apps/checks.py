"""`noria doctor`: is this machine ready, and is this project sound?"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from noria import settings as reading
from noria.errors import NoriaError

DISK_GB = 2.0
MEMORY_GB = 4.0
PACKAGES = {
    "llamacpp": ("xllamacpp", "gguf"),
    "data": ("pysail", "pyspark", "selectolax", "rensa"),
    "train": ("torch", "transformers", "peft", "trl"),
    "evaluate": ("rouge_score",),
    "mlflow": ("mlflow",),
}
"""What each extra brings."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; `hint` says what to do where it is not `good`."""

    name: str
    good: bool
    found: str
    hint: str = ""


def examine(start: Path) -> list[Check]:
    """All checks, of the machine first and then of the project around `start`."""
    return [*_machine(start), *_project(start)]


def _machine(start: Path) -> Iterator[Check]:
    good = sys.version_info >= (3, 11)
    yield Check("Python", good, sys.version.split()[0], "" if good else "install Python 3.11 or later")
    free = shutil.disk_usage(start).free / 1e9
    yield Check("free disk", free >= DISK_GB, f"{free:.1f} GB", "" if free >= DISK_GB else f"free {DISK_GB} GB")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    good = memory >= MEMORY_GB * 0.93
    yield Check("memory", good, f"{memory:.1f} GB", "" if good else "lower recipe.batch and engine slots")
    yield Check("cores", True, str(os.cpu_count()))
    for extra, modules in PACKAGES.items():
        missing = [name for name in modules if find_spec(name) is None]
        found = f"missing: {', '.join(missing)}" if missing else "installed"
        yield Check(f"noria[{extra}]", not missing, found, f"pip install 'noria[{extra}]'" if missing else "")


def _project(start: Path) -> Iterator[Check]:
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
    if not (settings.state / "up.json").is_file():
        yield _port("data plane", settings.runtime.listen)
        yield _port("control plane", settings.runtime.control)


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


def _port(name: str, listen: str) -> Check:
    host, _, port = listen.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return Check(name, False, f"{listen} is in use", "free it, or change it under [runtime]")
    return Check(name, True, f"{listen} is free")
