"""Recipe `few-shot`: training rows stand in the prompt as worked examples, the set of them that helps most."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from noria.errors import Invalid
from noria.settings import FewShotRecipe
from noria.stage import Look, Work
from noria.training import search, shots
from noria.training.search import Bench, Option, Room, Rows
from noria.types import Example, Shot, Wording


def check(look: Look) -> None:
    """Raise Invalid where prompts would not fit."""
    search.check(look)


def observes(look: Look) -> JsonValue:
    """Nothing: it begins anew."""
    return None


def make(work: Work, bench: Bench) -> Mapping[str, JsonValue]:
    """Try sets of examples; write the best."""
    rows = search.rows_of(work)
    return search.made(work, rows, _options(work, rows), bench)


def _options(work: Work, rows: Rows) -> list[Option]:
    recipe = work.task.recipe
    assert isinstance(recipe, FewShotRecipe)
    room = Room(work, rows)
    takes: dict[str, int] = {}

    def fits(chosen: list[Example], more: Example) -> bool:
        for row in (*chosen, more):
            takes.setdefault(row.id, room.takes(_wording([row])))
        return sum(takes[row.id] for row in (*chosen, more)) <= room.left

    options: dict[Wording, Option] = {}
    for how, chosen in shots.sets(rows.pool, recipe.shots, recipe.trials, recipe.seed, fits):
        option = Option(how, _wording(chosen))
        options.setdefault(option.wording, option)
    if not options:
        least = min(takes.values(), default=0)
        raise Invalid(
            f"no example of '{work.name}' fits beside its questions: the shortest that was looked at takes {least} "
            f"tokens, and {max(0, room.left)} of max_length = {recipe.max_length} are left",
            "raise max_length of the recipe and context of the engine, or lower context_chars and answer_chars",
            where=work.platform.settings.place("tasks", work.name, "recipe"),
        )
    return [*options.values()]


def _wording(rows: list[Example]) -> Wording:
    return Wording(
        shots=tuple(Shot(id=row.id, messages=row.messages, context=row.context, target=row.target) for row in rows)
    )
