"""Those that a comparison compares, and the words that name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from noria import adapters, prompts
from noria.errors import Invalid, NotFound
from noria.evaluation import history
from noria.ports import Platform
from noria.settings import TaskSettings, known
from noria.types import Candidate, Ref


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that are compared: the word that named it, the candidate, and what kind it is of.

    The kind is the recipe's for a candidate with an adapter, else `base`, or `attached` for a server of somebody's.
    """

    word: str
    candidate: Candidate
    kind: str

    @property
    def ref(self) -> str:
        """The candidate's ref."""
        return str(self.candidate.ref)


def sides_of(
    platform: Platform, name: str, words: Sequence[str], candidates: Mapping[str, Candidate], dataset: Ref
) -> list[Side]:
    """What the words of a command line name.

    A word is `champion`, `base`, `engine:NAME` or an engine's name, `candidate:…@…`, or `report:…@…` for the candidate
    that it is on. `candidates` are those that reports know; `dataset` gives engines their context.

    Raises Invalid for fewer than two sides and for one that is named twice, NotFound for a word that names nothing.
    """
    if len(words) < 2:
        raise Invalid("a comparison takes two sides at the least", "noria compare champion engine:NAME")
    sides = [side_of(platform, name, word, candidates, dataset) for word in words]
    for number, side in enumerate(sides):
        for other in sides[:number]:
            if other.ref == side.ref:
                raise Invalid(f"'{other.word}' and '{side.word}' are the same candidate '{side.ref}'", "name another")
    return sides


def barred(platform: Platform, task: TaskSettings, candidate: Candidate) -> str | None:
    """Why a candidate cannot be asked as it was measured; None where it can."""
    if candidate.engine not in platform.settings.engines:
        return f"its engine '{candidate.engine}' is not in noria.toml any more"
    engine = platform.settings.engines[candidate.engine]
    if platform.engines[engine.kind].base(engine)[0] != candidate.base:
        return f"its engine '{candidate.engine}' has another base model now"
    needed = [ref for ref in (candidate.adapter, candidate.index) if ref is not None]
    if gone := [ref for ref in needed if not platform.lake.has(ref)]:
        return f"'{gone[0]}' is not in the lake any more"
    if candidate.prompt != prompts.definition(task.system, adapters.wording_of(platform.lake, candidate.adapter)):
        return "the task's prompt is another now"
    return None


def side_of(platform: Platform, name: str, word: str, candidates: Mapping[str, Candidate], dataset: Ref) -> Side:
    """What one word names; as `sides_of`."""
    task, engines = platform.settings.tasks[name], platform.settings.engines
    if word == "champion":
        live = platform.deployments.current(name)
        champion = live.champion if live else None
        return _told(platform, word, champion or plain(platform, name, task.engine, dataset))
    engine = task.engine if word == "base" else word.removeprefix("engine:")
    if engine in engines:
        return _told(platform, word, plain(platform, name, engine, dataset))
    if ":" not in word or word.startswith("engine:"):
        names = ["champion", "base", *(f"engine:{each}" for each in engines)]
        raise NotFound(f"there is nothing called '{word}' to compare", known(word, names), where="noria.toml")
    try:
        ref = Ref.parse(word)
    except ValueError as error:
        raise Invalid(str(error), "champion, base, engine:NAME, candidate:… or report:…") from error
    if ref.kind == "report":
        return _told(platform, word, history.read(platform, ref).candidate)
    if word not in candidates:
        raise NotFound(f"no report of '{name}' knows '{word}'", "list them: noria evaluate list")
    return _told(platform, word, candidates[word])


def plain(platform: Platform, name: str, engine: str, dataset: Ref) -> Candidate:
    """An engine's base model with the task's present prompt and context, without an adapter."""
    task, settings = platform.settings.tasks[name], platform.settings.engines[engine]
    base, quantization = platform.engines[settings.kind].base(settings)
    return Candidate(
        task=name, base=base, adapter=None, engine=engine, quantization=quantization,
        prompt=prompts.definition(task.system), index=dataset if task.context else None,
    )  # fmt: skip


def kind_of(platform: Platform, candidate: Candidate) -> str:
    """The kind of the recipe that made a candidate, or of how it was shrunk; else `base`, or `attached`."""
    settings = platform.settings.engines.get(candidate.engine)
    if candidate.adapter is None:
        return "attached" if settings is not None and settings.url is not None else "base"
    made = platform.runs.artifact(candidate.adapter)
    noted = made.meta.get("recipe") if made is not None else None
    if isinstance(noted, dict):
        return str(noted["kind"])
    shrunk = made.meta.get("shrunk") if made is not None else None
    if isinstance(shrunk, dict):
        return str(shrunk["kind"])
    recipe = platform.settings.tasks[candidate.task].recipe
    if not platform.lake.has(candidate.adapter):
        return recipe.kind
    # What was made elsewhere, or before recipes left their name.
    wording = adapters.wording_of(platform.lake, candidate.adapter)
    if wording is not None:
        return "few-shot" if wording.shots else "prompt"
    held = adapters.kind_of(platform.lake.path(candidate.adapter))
    return {"lora": "lora", "model": "full", "head": "encoder"}.get(held, recipe.kind)


def _told(platform: Platform, word: str, candidate: Candidate) -> Side:
    return Side(word, candidate, kind_of(platform, candidate))
