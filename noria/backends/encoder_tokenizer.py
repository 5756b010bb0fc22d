"""An encoder's own tokenizer, as the stage `features` uses it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from noria import prompts
from noria.backends.encoder_model import open_tokenizer
from noria.errors import Invalid
from noria.types import Message


class EncoderTokenizer:
    """Port `Tokenizer` over the folder of an encoder: the text without a prompt, between the marks at both ends."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = open_tokenizer(folder)
        self.digest = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()[:16]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of what a conversation says, as the engine reads it."""
        return list(self._tokenizer.encode(prompts.plain(messages)).ids)

    def answer(self, text: str) -> list[int]:
        """Not offered; always raises Invalid."""
        raise Invalid("an encoder writes no answer", 'use recipe = { kind = "encoder" } with it')
