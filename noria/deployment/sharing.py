"""Several engines in one machine's memory: what each needs, and which of them makes room for another. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from noria.settings import EngineSettings

OVERHEAD = 96 * 2**20
"""Bytes of a process beside weights and cache."""
CACHE_SCALE = 2.4
"""Bytes of key-value cache a token takes, by the square root of the bytes of the weights."""


def need(settings: EngineSettings, model: Path, planned: float | None = None) -> int:
    """Bytes that an engine takes with all its replicas: its own limit, else what is planned for one, else an estimate.

    The estimate is for a model of which nothing but the size is known: its files, and a cache for every slot whose
    bytes a token grow with the root of the weights, as width times layers does (SmolLM2-135M at 4 bits: 24 kB,
    Llama 3.1 8B: 160 kB against 128 kB really).
    """
    if (known := settings.memory_bytes or planned) is not None:
        return int(known) * settings.replicas
    files = [model] if model.is_file() else [each for each in model.rglob("*") if each.is_file()]
    weights = sum(each.stat().st_size for each in files)
    cache = settings.slots * settings.context * CACHE_SCALE * math.sqrt(weights)
    return (weights + int(cache) + OVERHEAD) * settings.replicas


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine in memory: the bytes it takes, when it was asked last, and whether it may be unloaded now."""

    bytes: int
    asked: float
    free: bool


def room(wanted: int, budget: int | None, loaded: Mapping[str, Loaded]) -> list[str] | None:
    """Engines to unload so that `wanted` more bytes fit into the budget, least recently used first.

    Empty where there is room; None where there is none, whatever is unloaded.
    """
    if budget is None:
        return []
    over = sum(each.bytes for each in loaded.values()) + wanted - budget
    going: list[str] = []
    for name in sorted((name for name, each in loaded.items() if each.free), key=lambda name: loaded[name].asked):
        if over <= 0:
            break
        going.append(name)
        over -= loaded[name].bytes
    return going if over <= 0 else None
