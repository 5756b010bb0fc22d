"""Does an adapter change what an engine computes? Asked of the engine, since status 200 says nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final

from noria.adapters import PROBES
from noria.errors import Invalid
from noria.ports import Engine
from noria.types import Caps, Form, Message, Ref

CHANGED_BY: Final = 1e-3
"""Nats by which some log-probability must move: what the base answers twice differs by less."""
QUESTIONS: Final = ("Hello! Who are you?", "Name a river.", "List three things that you can do.")
TOKENS: Final = 8
MOST: Final = 4
"""Probes that are asked."""


def changes(engine: Engine, adapter: Ref, folder: Path, caps: Caps) -> bool:
    """Whether some token or log-probability differs from the base's.

    The prefixes that the trainer has noted are asked first: they are of the kind that the adapter has learned.
    Raises Invalid for notes that cannot be read.
    """
    if caps.exact_tokens and any(
        _moved([engine.next_token(tokens, None)], [engine.next_token(tokens, adapter)])
        for tokens in _noted(adapter, folder)
    ):
        return True
    how = Form(choices=1) if caps.logprobs else Form()
    for question in QUESTIONS:
        asked = [Message(role="user", content=question)]
        base, tuned = (engine.answer(asked, which, TOKENS, (), how) for which in (None, adapter))
        if base.text != tuned.text or _moved([each[0] for each in base.tokens], [each[0] for each in tuned.tokens]):
            return True
    return False


def _noted(adapter: Ref, folder: Path) -> list[list[int]]:
    file = folder / PROBES
    if not file.is_file():
        return []
    try:
        noted = [[int(token) for token in each["prefix"]] for each in json.loads(file.read_text()) if "prefix" in each]
    except (OSError, ValueError, TypeError) as error:
        raise Invalid(
            f"adapter '{adapter}' has no readable '{PROBES}'", f"train it again; it is in {folder}"
        ) from error
    return noted[:MOST]


def _moved(before: Sequence[tuple[object, float]], after: Sequence[tuple[object, float]]) -> bool:
    return any(
        one is None or other is None or one[0] != other[0] or abs(one[1] - other[1]) > CHANGED_BY
        for one, other in zip_longest(before, after)
    )
