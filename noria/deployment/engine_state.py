"""What is told of an engine, and the engines that a person has stopped."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from noria.deployment.memory_plan import Reality

State = Literal["starting", "ready", "draining", "stopped", "failed", "idle"]
"""Failed: it crashed so often that it stays down until `noria engines start`; idle: the next request starts it."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One engine as it is now; `memory` is in resident bytes, `addresses` are without keys."""

    name: str
    kind: str
    state: State
    live: int = 0
    replicas: int = 0
    pids: tuple[int, ...] = ()
    addresses: tuple[str, ...] = ()
    memory: int = 0
    adapters: tuple[str, ...] = ()
    restarts: int = 0
    error: str = ""
    """What went wrong last."""
    plan: Reality | None = None
    """What one replica was planned to take of this machine's memory, and the most that it has held since its start."""


class Stopped:
    """The engines that a person has stopped: kept in a file, so that they stay so when noria is started again."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._names = frozenset[str](json.loads(file.read_text()) if file.is_file() else ())

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str) -> None:
        """From now on it is stopped."""
        self._write(self._names | {name})

    def discard(self, name: str) -> None:
        """From now on it is not."""
        self._write(self._names - {name})

    def _write(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(sorted(names)))
        fresh.replace(self._file)
