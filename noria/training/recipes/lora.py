"""Recipe `lora`: a low-rank adapter beside the frozen base, going on from the champion's where there is one."""

from __future__ import annotations

from pydantic import JsonValue

from noria.stage import Look
from noria.training import weights
from noria.training.weights import check, make

__all__ = ["check", "make", "observes"]


def observes(look: Look) -> JsonValue:
    """The adapter to go on from."""
    return weights.observes(look, "lora")
