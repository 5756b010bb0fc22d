"""The base model of a task, as its engine serves it."""

from __future__ import annotations

from noria.errors import Invalid
from noria.settings import WordingRecipe
from noria.stage import Look
from noria.types import Ref


def base_of(look: Look) -> tuple[Ref, str]:
    """Base model and quantization as the task's engine serves them; raises Invalid where it cannot take adapters.

    Words need no adapters: an attached engine serves them too.
    """
    settings = look.platform.settings
    engine = settings.engines[look.task.engine]
    kind = look.platform.engines[engine.kind]
    words = isinstance(look.task.recipe, WordingRecipe)
    if words and engine.url is not None:
        return kind.base(engine)
    if look.task.recipe.kind == "encoder" and not kind.caps.heads:
        raise Invalid(
            f"engine '{look.task.engine}' serves no heads, so task '{look.name}' cannot learn one on it",
            'use an engine of kind "encoder", or another recipe',
            where=settings.place("tasks", look.name, "engine"),
        )
    if look.task.recipe.kind != "encoder" and kind.caps.heads:
        raise Invalid(
            f"engine '{look.task.engine}' is an encoder: recipe '{look.task.recipe.kind}' has nothing to do on it",
            'recipe = { kind = "encoder" }',
            where=settings.place("tasks", look.name, "recipe"),
        )
    # Nobody knows from which weights an attached engine answers.
    if (engine.url is not None or not (kind.caps.lora or kind.caps.heads)) and not words:
        raise Invalid(
            f"engine '{look.task.engine}' cannot serve adapters, so task '{look.name}' cannot learn on it",
            'use an engine of kind "llamacpp"',
            where=settings.place("tasks", look.name, "engine"),
        )
    if engine.model != look.task.base:
        raise Invalid(
            f"task '{look.name}' has base '{look.task.base}', its engine '{look.task.engine}' serves '{engine.model}'",
            "make the two equal",
            where=settings.place("tasks", look.name, "base"),
        )
    return kind.base(engine)
