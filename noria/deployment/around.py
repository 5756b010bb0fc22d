"""What the fleet lives among."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from noria.deployment.memory_plan import Plan
from noria.deployment.submit import Submit, at_once
from noria.ports import Machine
from noria.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class Around:
    """Threads, the gateway's numbers, the operating system, and what memory is planned.

    By default there is nothing: work is done at once, nobody asks, and memory is not known.
    """

    submit: Submit[Any] = at_once
    inflight: Callable[[str], int] = lambda url: 0
    """Requests in flight at an address."""
    asked: Callable[[], Mapping[str, float]] = dict
    """When each engine was asked last, in seconds since 1970."""
    machine: Machine | None = None
    need: Callable[[EngineSettings], int] = lambda settings: 0
    """Bytes that an engine takes; raises NoriaError for a model that is not there."""
    plan: Callable[[EngineSettings], Plan | None] = lambda settings: None
    """What one replica is planned to take of this machine's memory; None where that cannot be told."""
