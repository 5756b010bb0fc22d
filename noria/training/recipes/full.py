"""Recipe `full`: every weight of the base is trained; the product is a whole model, served in the base's place."""

from __future__ import annotations

from pydantic import JsonValue

from noria.errors import Invalid
from noria.stage import Look
from noria.training import weights
from noria.training.weights import make

__all__ = ["check", "make", "observes"]


def check(look: Look) -> None:
    """As for the others; and the engine must be able to start whole models."""
    weights.check(look)
    engine = look.platform.settings.engines[look.task.engine]
    if not look.platform.engines[engine.kind].caps.models:
        raise Invalid(
            f"engine '{look.task.engine}' cannot serve whole trained models, so '{look.name}' cannot learn as 'full'",
            'use an engine of kind "llamacpp", or a recipe of kind "lora"',
            where=look.platform.settings.place("tasks", look.name, "recipe"),
        )


def observes(look: Look) -> JsonValue:
    """The whole model to go on from."""
    return weights.observes(look, "model")
