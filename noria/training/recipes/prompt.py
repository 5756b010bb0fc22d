"""Recipe `prompt`: the best system prompt of those that the user gives and those that the engine proposes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from noria.errors import Invalid
from noria.settings import PromptRecipe
from noria.stage import Look, Work
from noria.training import search
from noria.training.search import Bench, Option, Room, Rows
from noria.types import Example, Message, Wording

SHOWN = 5
"""Training rows that a proposal is made from."""
_ASK = (
    "Below are questions with the answers that were wanted. Write the instruction for an assistant that gives such "
    "answers: what it is for, how long its answers are, in which tone and form. Write the instruction only, in at most "
    "three sentences."
)


def check(look: Look) -> None:
    """Raise Invalid where there is nothing to try, or prompts would not fit."""
    recipe = _recipe(look)
    if not recipe.systems and not recipe.proposals:
        raise Invalid(
            "recipe 'prompt' has no system prompt to try",
            'systems = ["You answer in one sentence."], or proposals = 4 to ask the engine for some',
            where=look.platform.settings.place("tasks", look.name, "recipe"),
        )
    search.check(look)


def observes(look: Look) -> JsonValue:
    """Nothing: it begins anew."""
    return None


def make(work: Work, bench: Bench) -> Mapping[str, JsonValue]:
    """Try them; write the best."""
    recipe = _recipe(work)
    rows = search.rows_of(work)
    room = Room(work, rows)
    options: list[Option] = []
    for number, system in enumerate(dict.fromkeys(recipe.systems), 1):
        option = Option(f"systems[{number}]", Wording(system=system))
        if (takes := room.takes(option.wording)) > room.left:
            raise Invalid(
                f"the system prompt '{system[:60]}…' takes {takes} tokens beyond the task's own; {room.left} are left",
                "shorten it, or raise max_length of the recipe and context of the engine",
                where=work.platform.settings.place("tasks", work.name, "recipe"),
            )
        options.append(option)
    options += [each for each in _proposed(work, rows, bench, recipe) if room.takes(each.wording) <= room.left]
    if not options:
        raise Invalid(
            f"engine '{work.task.engine}' proposed nothing that could be tried",
            'give wordings yourself: systems = ["…"]',
            where=work.platform.settings.place("tasks", work.name, "recipe"),
        )
    return search.made(work, rows, options[: recipe.trials], bench)


def _proposed(work: Work, rows: Rows, bench: Bench, recipe: PromptRecipe) -> list[Option]:
    """What the engine answers when it is shown rows and asked for the instruction behind them, each text once.

    Zhou et al., "Large Language Models Are Human-Level Prompt Engineers", 2022. Answers are greedy, so that other rows
    make another proposal.
    """
    choose, found = random.Random(recipe.seed), dict[str, None]()
    for number in range(1, recipe.proposals + 1):
        shown = choose.sample(rows.pool, min(SHOWN, len(rows.pool)))
        work.progress.update("asking for wordings", number, recipe.proposals)
        found[" ".join(bench.ask([Message(role="user", content=_asking(shown))]).split())] = None
    found.pop("", None)
    return [Option(f"proposal {number}", Wording(system=text)) for number, text in enumerate(found, 1)]


def _asking(shown: Sequence[Example]) -> str:
    pairs = "\n\n".join(f"Question: {row.messages[-1].content}\nAnswer: {row.target}" for row in shown)
    return f"{_ASK}\n\n{pairs}\n\nInstruction:"


def _recipe(look: Look | Work) -> PromptRecipe:
    assert isinstance(look.task.recipe, PromptRecipe)
    return look.task.recipe
