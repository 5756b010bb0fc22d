"""The stage `adapter`: the task's recipe is carried out on the features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from pydantic import JsonValue

from noria.stage import Look, Work
from noria.training.base import base_of
from noria.training.recipes import dpo, full, lora, qlora
from noria.training.study import tuned


class Recipe(Protocol):
    """One way to make a candidate; the modules of `noria.training.recipes` are such."""

    def check(self, look: Look) -> None:
        """Raise Invalid for what cannot succeed, before anything takes time; no stage has run yet."""

    def observes(self, look: Look) -> JsonValue:
        """Mutable state that changes the product, such as the adapter to go on from."""

    def make(self, work: Work) -> Mapping[str, JsonValue]:
        """Write the adapter's folder; returns what was measured."""


RECIPES: dict[str, Recipe] = {"lora": lora, "qlora": qlora, "full": full, "dpo": dpo}
"""By the kind in the task's table."""


def check(look: Look) -> None:
    """Refuse before anything takes time what the recipe cannot do; raises Invalid."""
    RECIPES[look.task.recipe.kind].check(look)


def params(look: Look) -> JsonValue:
    """The recipe, with what a study found for it, and the base model."""
    look = tuned(look)
    base, _ = base_of(look)
    return {"recipe": look.task.recipe.model_dump(mode="json"), "base": str(base)}


def observes(look: Look) -> JsonValue:
    """What the recipe goes on from."""
    look = tuned(look)
    return RECIPES[look.task.recipe.kind].observes(look)


def work(work: Work) -> Mapping[str, JsonValue]:
    """Carry out the recipe, with what a study found for it."""
    work = tuned(work)
    return RECIPES[work.task.recipe.kind].make(work)


def afresh(work: Work) -> Mapping[str, JsonValue]:
    """Carry out the recipe as it stands, going on from what is there now."""
    recipe = RECIPES[work.task.recipe.kind]
    return recipe.make(replace(work, observed=recipe.observes(Look(work.platform, work.name, work.task, work.inputs))))
