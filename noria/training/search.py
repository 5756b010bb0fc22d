"""Which words stand before a question is found by trying: on held-out training rows, by successive halving."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow.parquet as pq
from pydantic import JsonValue

from noria import adapters, prompts
from noria.errors import Invalid
from noria.settings import WordingRecipe
from noria.stage import Look, Work
from noria.training.base import base_of
from noria.types import Example, Message, Wording

OWN_SLICES = ("task", "traffic")
"""Slices that are the task itself; the others only guard it."""
LEAST = 8
"""Training rows of the task's own below which there is nothing to choose from and by."""
FIRST = 4
"""Fewest rows that a wording is judged by."""
USUAL = 0.95
"""Share of the rows that must fit into `max_length` beside a wording."""


class Bench(Protocol):
    """Where words are tried (`noria.evaluation.trying`)."""

    def value(self, wording: Wording | None, rows: Sequence[Example], label: str) -> float:
        """The task's metric of the answers to these rows with this wording before them; more is better."""

    def told(self, value: float) -> float:
        """The metric itself, of what `value` gave."""

    def ask(self, messages: Sequence[Message]) -> str:
        """The engine's own answer to messages as they are."""


@dataclass(frozen=True, slots=True)
class Option:
    """A wording to try, and how it was found."""

    how: str
    wording: Wording


@dataclass(slots=True)
class Tried:
    """How an option did on the first `rows` of the validation rows."""

    option: Option
    rows: int = 0
    value: float = -math.inf


@dataclass(frozen=True, slots=True)
class Rows:
    """The task's own training rows, apart: `pool` to take from, `validation` to try on, in the order of trying.

    No conversation is on both sides. `usual` and `longest` are tokens of a prompt with its answer.
    """

    pool: tuple[Example, ...]
    validation: tuple[Example, ...]
    usual: int
    longest: int


def check(look: Look) -> None:
    """Raise Invalid where prompts of `max_length` tokens would not fit into the engine's context."""
    base_of(look)
    recipe, engine = recipe_of(look), look.platform.settings.engines[look.task.engine]
    if engine.url is None and recipe.max_length + look.task.max_tokens > engine.context:
        raise Invalid(
            f"prompts of '{recipe.max_length}' tokens and answers of {look.task.max_tokens} do not fit into the "
            f"{engine.context} tokens of engine '{look.task.engine}'",
            "lower max_length of the recipe, or raise context of the engine",
            where=look.platform.settings.place("tasks", look.name, "recipe"),
        )


def measured(look: Look) -> dict[str, JsonValue]:
    """What words are chosen by, beside the recipe."""
    engine, task = look.platform.settings.engines[look.task.engine], look.task
    return {"metric": task.gate.metric, "max_tokens": task.max_tokens, "window": engine.context, "url": engine.url}


def recipe_of(look: Look | Work) -> WordingRecipe:
    """The recipe's table."""
    assert isinstance(look.task.recipe, WordingRecipe)
    return look.task.recipe


def rows_of(work: Work) -> Rows:
    """Training rows that the features hold, apart by conversation; raises Invalid where there are too few."""
    recipe = recipe_of(work)
    table = pq.read_table(work.folder("features") / "features.parquet", columns=["id", "tokens"])
    tokens = dict(zip(table["id"].to_pylist(), table["tokens"].to_pylist(), strict=True))
    dataset = next(ref for ref in work.inputs["features"].parents if ref.kind == "dataset")
    own = [
        Example.model_validate({**row, "messages": json.loads(row["messages"])})
        for row in pq.read_table(work.platform.lake.path(dataset) / "train.parquet").to_pylist()
        if row["id"] in tokens and row["slice"] in OWN_SLICES and row["target"]
    ]
    place = work.platform.settings.place("tasks", work.name, "sources")
    if len(own) < LEAST:
        raise Invalid(
            f"task '{work.name}' has {len(own)} training rows; recipe '{recipe.kind}' needs {LEAST} to choose by",
            "add examples, or give them feedback",
            where=place,
        )
    pool, validation = _apart(own, recipe)
    if len(validation) < FIRST or not pool:
        raise Invalid(
            f"the {len(own)} training rows of '{work.name}' belong to too few conversations to try words on",
            "add examples of other conversations",
            where=place,
        )
    lengths = sorted(tokens[row.id] for row in own)
    return Rows(pool, validation, lengths[math.ceil(USUAL * len(lengths)) - 1], lengths[-1])


def _apart(rows: Sequence[Example], recipe: WordingRecipe) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    chosen = random.Random(recipe.seed)
    talks: dict[str, list[Example]] = {}
    for row in sorted(rows, key=lambda row: row.id):
        talks.setdefault(row.conversation, []).append(row)
    names = sorted(talks)
    chosen.shuffle(names)
    wanted = min(recipe.rows, max(FIRST, round(recipe.validation * len(rows))))
    validation: list[Example] = []
    pool: list[Example] = []
    for name in names:
        fits = len(validation) + len(talks[name]) <= max(wanted, FIRST) and len(validation) < wanted
        (validation if fits else pool).extend(talks[name])
    return tuple(pool), tuple(validation)


class Room:
    """How many tokens a wording takes, and whether that leaves room for a question and its answer."""

    def __init__(self, work: Work, rows: Rows) -> None:
        engine = work.platform.settings.engines[work.task.engine]
        self._tokenizer = work.platform.tokenizer(work.platform.model(work.task.base))
        self._system = work.task.system
        self._probe = [Message(role="user", content="?")]
        self._bare = self._tokens(None)
        self.left = recipe_of(work).max_length - rows.usual
        """Tokens that a wording may take beyond the task's own system prompt."""
        if engine.url is None:
            self.left = min(self.left, engine.context - work.task.max_tokens - rows.longest)

    def takes(self, wording: Wording) -> int:
        """Tokens beyond those of the task's own system prompt."""
        return self._tokens(wording) - self._bare

    def _tokens(self, wording: Wording | None) -> int:
        return len(self._tokenizer.prompt(prompts.render(self._system, self._probe, None, prompts.worded(wording))))


def best(options: Sequence[Option], rows: Sequence[Example], bench: Bench) -> list[Tried]:
    """Try the options; the winner comes first, then the others by how far they came and how they did.

    Successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
    Optimization", 2016): all are tried on few rows, the better half of them on twice as many, until two are tried on
    all rows. Of equals the earlier one wins.
    """
    tried = [Tried(option) for option in options]
    alive, out = list(tried), list[Tried]()
    rounds = max(1, math.ceil(math.log2(len(tried))))
    for number in range(1, rounds + 1):
        count = min(len(rows), max(FIRST, math.ceil(len(rows) / 2 ** (rounds - number))))
        for place, each in enumerate(alive, 1):
            label = f"round {number} of {rounds}, {place} of {len(alive)}: {each.option.how}"
            each.value, each.rows = bench.value(each.option.wording, rows[:count], label), count
        alive.sort(key=lambda each: -each.value)
        keep = 1 if number == rounds else math.ceil(len(alive) / 2)
        out = [*alive[keep:], *out]
        alive = alive[:keep]
    return [*alive, *out]


def made(work: Work, rows: Rows, options: Sequence[Option], bench: Bench) -> dict[str, JsonValue]:
    """Try the options, write the best one into the adapter's folder with what was tried; returns what was measured."""
    plain = bench.value(None, rows.validation, "as it is")
    tried = best(options, rows.validation, bench)
    first = tried[0]
    told: list[JsonValue] = [
        {
            "how": each.option.how,
            "rows": each.rows,
            "value": round(bench.told(each.value), 6),
            **_words(each.option.wording),
        }
        for each in tried
    ]
    measured: dict[str, JsonValue] = {
        "metric": work.task.gate.metric,
        "value": round(bench.told(first.value), 6),
        "as_it_is": round(bench.told(plain), 6),
        "how": first.option.how,
        "tried": len(options),
        "validation": len(rows.validation),
        "rows": len(rows.pool) + len(rows.validation),
    }
    adapters.write_wording(work.out, first.option.wording)
    (work.out / "tried.json").write_text(
        json.dumps({**measured, "wordings": told}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    _track(work, measured, [bench.told(each.value) for each in tried])
    return {**measured, **_words(first.option.wording)}


def _words(wording: Wording) -> dict[str, JsonValue]:
    return {"system": wording.system, "shots": [shot.id for shot in wording.shots]}


def _track(work: Work, measured: Mapping[str, JsonValue], values: Sequence[float]) -> None:
    told: dict[str, JsonValue] = {
        "task": work.name,
        "cycle": work.cycle,
        **{f"recipe.{name}": value for name, value in work.task.recipe.model_dump(mode="json").items()},
        **measured,
    }
    # The rows' own texts stay in the lake, where they can be forgotten.
    files = [work.out / "tried.json"]
    work.platform.tracking.log(work.name, f"adapter {work.cycle[:8]}", told, {"tried": values}, files)
