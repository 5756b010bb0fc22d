"""How far two folders of an adapter lie apart: weights, losses, next tokens."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def spread(one: Path, other: Path) -> dict[str, float | None]:
    """Differences by the names of `noria.replays.Replay`; None for what the folders do not both have."""
    largest, relative = _weights(one, other)
    agreement, logprob = _probes(_json(one / "probes.json"), _json(other / "probes.json"))
    losses = (_losses(_json(each / "loss.json")) for each in (one, other))
    return {
        "weights": largest, "relative": relative, "loss": _furthest(*losses), "agreement": agreement,
        "logprob": logprob,
    }  # fmt: skip


def _weights(one: Path, other: Path) -> tuple[float | None, float | None]:
    """The largest difference of a weight, and the norm of all differences as a share of that of all weights.

    Infinite where a tensor is missing or of another shape. One tensor at a time is in memory.
    """
    names = sorted(file.relative_to(one).as_posix() for file in one.rglob("*.safetensors"))
    if not names:
        return None, None
    import torch
    from safetensors import safe_open

    largest, apart, whole = 0.0, 0.0, 0.0
    for name in names:
        if not (other / name).is_file():
            return math.inf, math.inf
        with safe_open(one / name, "pt") as mine, safe_open(other / name, "pt") as theirs:
            if {*mine.keys()} != {*theirs.keys()}:
                return math.inf, math.inf
            for key in mine.keys():  # noqa: SIM118 - it is no dictionary.
                here, there = (each.get_tensor(key).to(torch.float64) for each in (mine, theirs))
                if here.shape != there.shape:
                    return math.inf, math.inf
                largest = max(largest, float((here - there).abs().max())) if here.numel() else largest
                apart += float(((here - there) ** 2).sum())
                whole += float((here**2).sum())
    return largest, math.sqrt(apart / whole) if whole else math.sqrt(apart)


def _probes(one: Any, other: Any) -> tuple[float | None, float | None]:
    if not (isinstance(one, list) and isinstance(other, list) and one and len(one) == len(other)):
        return None, None
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a.get("prefix") == b.get("prefix")]
    if len(pairs) < len(one):
        return None, None
    equal = sum(a.get("token") == b.get("token") for a, b in pairs) / len(pairs)
    return equal, _furthest([a.get("logprob", 0.0) for a, _ in pairs], [b.get("logprob", 0.0) for _, b in pairs])


def _losses(told: Any) -> list[float]:
    found = told.get("loss") if isinstance(told, dict) else None
    return [float(each) for each in found] if isinstance(found, list) else []


def _furthest(one: list[float], other: list[float]) -> float | None:
    if not one or len(one) != len(other):
        return None
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _json(file: Path) -> Any:
    return json.loads(file.read_text()) if file.is_file() else None
