"""The stage `adapter`: the task's recipe is carried out on the features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from pydantic import JsonValue

from noria import environment
from noria.stage import Look, Work
from noria.training.base import base_of
from noria.training.recipes import dpo, encoder, few_shot, full, lora, prompt, qlora
from noria.training.search import Bench, measured
from noria.training.study import tuned
from noria.training.weights import pairs_of


class Recipe(Protocol):
    """One way to make a candidate; the modules of `noria.training.recipes` are such."""

    def check(self, look: Look) -> None:
        """Raise Invalid for what cannot succeed, before anything takes time; no stage has run yet."""

    def observes(self, look: Look) -> JsonValue:
        """Mutable state that changes the product, such as the adapter to go on from."""

    def make(self, work: Work) -> Mapping[str, JsonValue]:
        """Write the adapter's folder; returns what was measured."""


class Search(Protocol):
    """A way to find words that help: as `Recipe`, but it is given where words can be tried."""

    def check(self, look: Look) -> None:
        """As of a recipe."""

    def observes(self, look: Look) -> JsonValue:
        """As of a recipe."""

    def make(self, work: Work, bench: Bench) -> Mapping[str, JsonValue]:
        """As of a recipe."""


RECIPES: dict[str, Recipe] = {"lora": lora, "qlora": qlora, "full": full, "dpo": dpo, "encoder": encoder}
"""By the kind in the task's table."""
SEARCHES: dict[str, Search] = {"few-shot": few_shot, "prompt": prompt}
"""Those that need to try what they make."""


def check(look: Look) -> None:
    """Refuse before anything takes time what the recipe cannot do; raises Invalid."""
    _of(look).check(look)


def params(look: Look) -> JsonValue:
    """The recipe, with what a study found for it, and the base model; pairs that it learns; what a search goes by."""
    look = tuned(look)
    base, _ = base_of(look)
    told: dict[str, JsonValue] = {"recipe": look.task.recipe.model_dump(mode="json"), "base": str(base)}
    if pairs := pairs_of(look):
        told["pairs"] = pairs
    return {**told, **measured(look)} if look.task.recipe.kind in SEARCHES else told


def observes(look: Look) -> JsonValue:
    """What the recipe goes on from."""
    look = tuned(look)
    return _of(look).observes(look)


Opened = Callable[[Work], AbstractContextManager[Bench]]


def work(work: Work, opened: Opened | None = None) -> Mapping[str, JsonValue]:
    """Carry out the recipe, with what a study found for it; what made it, and where, is told with what was measured.

    A search tries its words at the bench that `opened` opens.
    """
    work = tuned(work)
    recipe = work.task.recipe
    told: dict[str, JsonValue] = {
        "recipe": recipe.model_dump(mode="json"), "environment": environment.recorded(),
    }  # fmt: skip
    return {**_carried_out(work, opened), **told}


def _carried_out(work: Work, opened: Opened | None) -> Mapping[str, JsonValue]:
    kind = work.task.recipe.kind
    if kind not in SEARCHES:
        return RECIPES[kind].make(work)
    if opened is None:
        raise TypeError(f"recipe '{kind}' has nowhere to try what it makes")
    with opened(work) as bench:
        return SEARCHES[kind].make(work, bench)


def _of(look: Look) -> Recipe | Search:
    kind = look.task.recipe.kind
    return SEARCHES[kind] if kind in SEARCHES else RECIPES[kind]


def afresh(work: Work, opened: Opened | None = None) -> Mapping[str, JsonValue]:
    """Carry out the recipe as it stands, going on from what is there now."""
    look = Look(work.platform, work.name, work.task, work.inputs)
    return _carried_out(replace(work, observed=_of(look).observes(look)), opened)
