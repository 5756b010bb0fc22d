"""What `noria bench` asks: its own scenarios, lines of a file, or what users have asked."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from noria.errors import Invalid, NotFound
from noria.messages import Message
from noria.settings import known

LESSON: Final = "Tell a fairy tale and write Python code about it"
TIMES: Final = 200
"""The lesson's prompt is said so often, joined without a space: 9,600 characters."""
SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where the needle lies in its text."""
LENGTHS: Final = (250, 500, 1000)
"""Words of the text around the needle."""
TEXTS: Final = 256
BATCH: Final = 32
TRAFFIC: Final = 32
"""Logged questions at the most."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: a conversation, or `texts` to embed. A right answer holds `expects`; `place` names a needle's."""

    messages: tuple[Message, ...] = ()
    expects: str = ""
    place: str = ""
    texts: tuple[str, ...] = ()

    @property
    def characters(self) -> int:
        """Length of all it says."""
        return sum(len(each.content) for each in self.messages) + max(map(len, self.texts), default=0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Requests with the most tokens of an answer, and how many are sent at once where nobody says otherwise."""

    name: str
    asks: tuple[Ask, ...]
    max_tokens: int
    concurrency: tuple[int, ...]

    @property
    def embeds(self) -> bool:
        """Whether vectors are asked for, not texts."""
        return bool(self.asks[0].texts)


def named(name: str) -> tuple[Scenario, ...]:
    """The shipped scenario of this name, or that of a `.jsonl` file; raises NotFound, Invalid."""
    if name.endswith(".jsonl"):
        return (of_file(Path(name)),)
    if name not in SHIPPED:
        raise NotFound(f"there is no scenario '{name}'", known(name, [*SHIPPED, "traffic"]))
    return SHIPPED[name](_told().get(name, {}))


def of_file(file: Path) -> Scenario:
    """A scenario of a JSONL file: {"prompt": …} or {"messages": […]}, and "expects" where an answer must hold it.

    Raises NotFound, and Invalid for a line that is none.
    """
    if not file.is_file():
        raise NotFound(f"there is no file '{file}'", 'a JSONL file whose lines are {"prompt": "…"}')
    lines = file.read_text(encoding="utf-8").splitlines()
    asks = [_line(line, f"{file.name}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not asks:
        raise Invalid(f"'{file.name}' holds no prompt", '{"prompt": "…"}, one a line')
    return Scenario(file.stem, tuple(asks), 128, (1,))


def of_traffic(asked: Iterable[Sequence[Mapping[str, Any]]]) -> Scenario:
    """The latest questions that users have asked, each once; raises NotFound where there are none of plain text."""
    found: dict[tuple[Message, ...], None] = {}
    for talk in asked:
        try:
            messages = tuple(Message(role=each["role"], content=each["content"]) for each in talk)
        except (KeyError, ValidationError):
            # Pictures and tool calls are not replayed.
            continue
        if messages:
            found.pop(messages, None)
            found[messages] = None
    if not found:
        raise NotFound(
            "no questions were logged in this project", "serve some first: noria up, or take another scenario"
        )
    return Scenario("traffic", tuple(Ask(each) for each in [*found][-TRAFFIC:]), 128, (1, 4))


def sent(scenario: Scenario, requests: int | None, concurrency: int) -> list[Ask]:
    """The requests of one round: each once, or so many, in turn; at least as many as are sent at once."""
    return [*islice(cycle(scenario.asks), requests or max(len(scenario.asks), concurrency))]


def _line(line: str, where: str) -> Ask:
    try:
        told = json.loads(line)
        if "messages" in told:
            messages = tuple(Message(role=each["role"], content=each["content"]) for each in told["messages"])
        else:
            messages = (Message(role="user", content=told["prompt"]),)
        return Ask(messages, str(told.get("expects", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"'{line[:60]}' is no prompt", '{"prompt": "…", "expects": "…"}', where=where) from error


def _told() -> dict[str, Any]:
    return tomllib.loads((files("noria.evaluation") / "scenarios.toml").read_text(encoding="utf-8"))


def _asked(text: str) -> Ask:
    return Ask((Message(role="user", content=text),))


def _lab(told: Mapping[str, Any]) -> tuple[Scenario, ...]:
    return (Scenario("lab", tuple(map(_asked, told["prompts"])), 128, (1,)),)


def _lesson(_: Mapping[str, Any]) -> tuple[Scenario, ...]:
    """Equal prompts flatter a cache of prefixes: seven that differ from their first word on come along."""
    topics = _told()["varied"]["topics"]
    varied = [_asked(f"Number {number}: tell of {each}. " * TIMES) for number, each in enumerate(topics, 1)]
    cut = tuple(_asked(each.messages[0].content[: len(LESSON) * TIMES]) for each in varied)
    equal = tuple(_asked(LESSON * TIMES) for _ in topics)
    return Scenario("lesson", equal, 64, (len(topics),)), Scenario("lesson-varied", cut, 64, (len(topics),))


def _chat(told: Mapping[str, Any]) -> tuple[Scenario, ...]:
    asks = []
    for talk in told["talks"]:
        turns = [Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(talk)]
        asks.append(Ask((Message(role="system", content=told["system"]), *turns)))
    return (Scenario("chat", tuple(asks), 96, (1, 4, 8)),)


def _needle(told: Mapping[str, Any]) -> tuple[Scenario, ...]:
    asks = []
    for number, (words, share) in enumerate(product(LENGTHS, SHARES)):
        secret = str(41017 + 1009 * number)
        # Each text begins otherwise: none is another's prefix.
        filler = cycle([*told["filler"][number % 8 :], *told["filler"][: number % 8]])
        lines: list[str] = []
        while sum(len(line.split()) for line in lines) < words:
            lines.append(next(filler))
        lines.insert(round(share * len(lines)), told["fact"].format(number=secret))
        text = f"{' '.join(lines)}\n\n{told['question']}"
        asks.append(Ask((Message(role="user", content=text),), secret, f"{words} words, at {share:.0%}"))
    return (Scenario("needle", tuple(asks), 24, (1,)),)


def _embeddings(told: Mapping[str, Any]) -> tuple[Scenario, ...]:
    parts = product(told["subjects"], told["verbs"], told["ends"])
    texts = [f"{subject} {verb} {end}." for subject, verb, end in parts][:TEXTS]
    single = tuple(Ask(texts=(text,)) for text in texts)
    batch = tuple(Ask(texts=tuple(texts[start : start + BATCH])) for start in range(0, len(texts), BATCH))
    return Scenario("embeddings-single", single, 0, (1,)), Scenario("embeddings-batch", batch, 0, (1,))


SHIPPED: Final[Mapping[str, Callable[[Mapping[str, Any]], tuple[Scenario, ...]]]] = {
    "lab": _lab, "lesson": _lesson, "chat": _chat, "needle": _needle, "embeddings": _embeddings,
}  # fmt: skip
