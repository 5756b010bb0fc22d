"""A model's own tokenizer and chat template, without the weight of transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from noria.errors import Invalid, Unavailable
from noria.types import Message


class ChatTokenizer:
    """Port `Tokenizer` over a folder in Hugging Face's layout (tokenizer.json and a chat template)."""

    def __init__(self, folder: Path) -> None:
        try:
            from jinja2.sandbox import ImmutableSandboxedEnvironment
            from tokenizers import Tokenizer
        except ModuleNotFoundError as error:
            raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[train]'") from error
        config = json.loads((folder / "tokenizer_config.json").read_text())
        separate = folder / "chat_template.jinja"
        template = separate.read_text() if separate.is_file() else config.get("chat_template")
        if not isinstance(template, str):
            raise Invalid(f"the tokenizer in '{folder.name}' has no chat template", "use an instruction-tuned model")
        # The settings under which Hugging Face templates are written (transformers, chat_template_utils).
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        self._template = environment.from_string(template)
        self._special = {name: _text(config.get(name)) for name in ("bos_token", "eos_token", "pad_token")}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        end = self._special["eos_token"]
        known = self._tokenizer.token_to_id(end) if end else None
        if known is None:
            raise Invalid(f"the tokenizer in '{folder.name}' names no end token", "use an instruction-tuned model")
        self._end: int = known
        content = (folder / "tokenizer.json").read_bytes() + template.encode()
        self.digest = hashlib.sha256(content).hexdigest()[:16]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation as the engine is given it, up to where the answer starts."""
        turns = [message.model_dump() for message in messages]
        text = self._template.render(messages=turns, add_generation_prompt=True, **self._special)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def answer(self, text: str) -> list[int]:
        """Token ids of an answer, with the model's own end token."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [*ids, self._end]


def _text(token: object) -> str:
    if isinstance(token, dict):
        return str(token.get("content", ""))
    return str(token or "")
