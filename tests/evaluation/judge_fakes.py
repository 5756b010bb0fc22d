"""Judges whose opinion is a function of what they are shown."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from noria.evaluation.judges.bench import Bench
from noria.evaluation.judges.judge import Judge, judge_of
from noria.settings import JudgeSettings
from noria.types import Choices, Endpoint, Form, Generation, Message, Ref

MODEL = Ref(kind="base", name="scripted", digest="5" * 16)
TAG = re.compile(r"<(question|context|wanted|answer|A|B)>(.*?)</\1>", re.DOTALL)
Opinion = Callable[[dict[str, str]], dict[str, JsonValue]]


class Silence:
    """Port `Progress` that says nothing."""

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        return


@dataclass
class Scripted:
    """Port `Engine` that answers what `opinion` makes of the tags of the last message."""

    opinion: Opinion
    chances: dict[str, float] = field(default_factory=dict)
    """Probabilities of tokens at the place of a score; without them the opinion is sure."""
    cut: bool = False
    asked: list[tuple[Sequence[Message], Form]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(url="http://127.0.0.1:1/v1", key="", model="scripted")

    def extra(self, adapter: Ref | None) -> dict[str, JsonValue]:
        return {}

    def answer(
        self, messages: Sequence[Message], adapter: Ref | None, max_tokens: int, stop: Sequence[str], how: Form = Form()
    ) -> Generation:
        with self._lock:
            self.asked.append((messages, how))
        names = (how.schema or {}).get("properties")
        said: dict[str, JsonValue] = {"steps": ["1. Read it.", "2. Score it."]}
        if not (isinstance(names, dict) and "steps" in names):
            said = self.opinion(dict(TAG.findall(messages[-1].content)))
        text = json.dumps(said)
        tokens = tuple(self._choices(each, place) for place, each in enumerate(text)) if how.choices else ()
        return Generation(text[:9] if self.cut else text, "length" if self.cut else "stop", 100, 10, tokens)

    def next_token(self, tokens: Sequence[int], adapter: Ref | None) -> tuple[int, float]:
        raise NotImplementedError

    def alive(self) -> bool:
        return True

    def close(self) -> None:
        return

    def _choices(self, letter: str, place: int) -> Choices:
        chances = self.chances if letter.isdigit() and self.chances else {letter: 1.0}
        told = tuple((token, math.log(chance)) for token, chance in chances.items())
        return ((letter, math.log(chances.get(letter, 1e-9))), *told)


def scored(score: Callable[[dict[str, str]], float]) -> Opinion:
    return lambda shown: {"reason": "because", "score": int(score(shown))}


def preferred(better: Callable[[dict[str, str]], str]) -> Opinion:
    return lambda shown: {"reason": "because", "better": better(shown)}


def judge(method: str = "score", **more: object) -> Judge:
    settings = {"engine": "local", "method": method, "criteria": "clarity", **more}
    return judge_of("quality", JudgeSettings.model_validate(settings), MODEL)


def bench(of: Judge, engine: Scripted, slots: int = 4) -> Bench:
    return Bench(of, lambda: engine, slots)
