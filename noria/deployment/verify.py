"""Whether an engine that has just started really answers with its adapters: not to is the commonest silent fault."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from noria.errors import Unavailable
from noria.ports import Engine
from noria.types import Caps, Form, Message, Ref

PROMPTS: Final = (
    "How long does delivery take?",
    "What is the capital of France?",
    "Write one sentence about water.",
    "Who are you?",
)
TOKENS: Final = ((1, 314, 1592, 653), (7, 77, 777, 1777), (42, 1000, 99, 5), (300, 200, 100, 400))
"""Token ids that every vocabulary has; it does not matter what they say."""
WORDS: Final = 8


def present(engine: Engine, adapters: Collection[Ref], caps: Caps) -> None:
    """Raise Unavailable for an adapter with which the engine answers just as its base does.

    Compared are the next token's log-probabilities where the engine gives them, else short answers. One difference
    in `PROMPTS` is enough; an adapter without any has not been loaded, or has learned nothing.
    """
    if not adapters:
        return
    places = range(len(PROMPTS))
    base: dict[int, object] = {}
    for ref in sorted(adapters, key=str):
        for place in places:
            if place not in base:
                base[place] = _said(engine, None, caps, place)
            if _said(engine, ref, caps, place) != base[place]:
                break
        else:
            raise Unavailable(
                f"with adapter '{ref}' the engine answers as without it: it was not loaded",
                "look at the engine's log: noria engines logs",
            )


def _said(engine: Engine, adapter: Ref | None, caps: Caps, place: int) -> object:
    if caps.exact_tokens:
        return engine.next_token(TOKENS[place], adapter)
    messages = [Message(role="user", content=PROMPTS[place])]
    form = Form() if caps.heads else Form(choices=1)
    found = engine.answer(messages, adapter, WORDS, (), form)
    return found.text, found.tokens
