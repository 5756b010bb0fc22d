"""A model's own tokenizer and chat template, without the weight of transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from noria.errors import Invalid, Unavailable
from noria.ports import Encode
from noria.types import Message


class ChatTokenizer:
    """Port `Tokenizer` over a folder in Hugging Face's layout (tokenizer.json and a chat template)."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        separate = folder / "chat_template.jinja"
        template = separate.read_text() if separate.is_file() else config.get("chat_template")
        if not isinstance(template, str):
            raise Invalid(f"the tokenizer in '{folder.name}' has no chat template", "use an instruction-tuned model")
        content = (folder / "tokenizer.json").read_bytes()
        special = {name: _text(config.get(name)) for name in ("bos_token", "eos_token", "pad_token")}
        self._sent = _opener(content.decode(), template, special)
        try:
            encode = self._sent()
        except ModuleNotFoundError as error:
            raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[train]'") from error
        if encode is None:
            raise Invalid(f"the tokenizer in '{folder.name}' names no end token", "use an instruction-tuned model")
        self._encode: Encode = encode
        self.digest = hashlib.sha256(content + template.encode()).hexdigest()[:16]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation as the engine is given it, up to where the answer starts."""
        return self._encode([[message.model_dump() for message in messages]], [])[0][0]

    def answer(self, text: str) -> list[int]:
        """Token ids of an answer, with the model's own end token."""
        return self._encode([], [text])[1][0]

    def sent(self) -> Callable[[], Encode]:
        """The same for a worker, which needs the packages tokenizers and jinja2."""
        sent = self._sent

        def opened() -> Encode:
            encode = sent()
            assert encode is not None
            return encode

        return opened


def _opener(content: str, template: str, special: Mapping[str, str]) -> Callable[[], Encode | None]:
    """Opens a tokenizer from the text of tokenizer.json; None where the model has no end token.

    Workers get it by value: it uses nothing of noria.
    """

    def opened() -> Encode | None:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
        from tokenizers import Tokenizer

        # The settings under which Hugging Face templates are written (transformers, chat_template_utils).
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        shape = environment.from_string(template)
        tokenizer = Tokenizer.from_str(content)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        end = tokenizer.token_to_id(special["eos_token"]) if special["eos_token"] else None
        if end is None:
            return None

        def ids(texts: Sequence[str]) -> list[list[int]]:
            return [each.ids for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

        def encode(
            conversations: Sequence[Sequence[Mapping[str, Any]]], answers: Sequence[str]
        ) -> tuple[list[list[int]], list[list[int]]]:
            asked = [
                shape.render(messages=list(turns), add_generation_prompt=True, **special) for turns in conversations
            ]
            return ids(asked), [[*each, end] for each in ids(answers)]

        return encode

    return opened


def _text(token: object) -> str:
    if isinstance(token, dict):
        return str(token.get("content", ""))
    return str(token or "")
