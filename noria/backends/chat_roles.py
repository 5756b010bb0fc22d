"""Which roles and habits a model takes, told by its chat template before anything is asked of an engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from noria.backends.gguf_header import header_of
from noria.errors import Invalid

_MARK: Final = "zqxj"
"""A word that no template has of its own."""
_TOOL: Final[Mapping[str, Any]] = {
    "type": "function",
    "function": {
        "name": f"{_MARK}_tool",
        "description": "A tool.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_SPECIAL: Final = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True, slots=True)
class Roles:
    """What a chat template does with a conversation.

    A role is taken where its text reaches the prompt; some templates raise instead, some leave it out in silence.
    `tools` says whether definitions of tools reach it, `repeats` whether two messages of one role may follow each
    other, `continues` whether the conversation may begin with the assistant.
    """

    system: bool
    tool: bool
    tools: bool
    repeats: bool
    continues: bool


def roles_of(template: str, special: Mapping[str, str]) -> Roles:
    """Found by rendering; `special` are the tokenizer's special tokens. Raises Invalid for what is no template."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals.update(raise_exception=_refuse, strftime_now=lambda form: "")
    try:
        shape = environment.from_string(template)
    except TemplateError as error:
        raise Invalid(f"the chat template cannot be read: {error}", "take it from the model's own page") from error

    def reaches(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> bool:
        try:
            text = shape.render(messages=messages, tools=tools, add_generation_prompt=True, **special)
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError):
            return False
        return _MARK in text

    user, marked = {"role": "user", "content": "Hello"}, {"content": f"{_MARK} text"}
    if not reaches([{"role": "user", **marked}]):
        raise Invalid("the chat template does not put the user's message into the prompt", "is it this model's own?")
    call = {"id": "call00000", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    called = {"role": "assistant", "content": "", "tool_calls": [call]}
    return Roles(
        system=reaches([{"role": "system", **marked}, user]),
        tool=reaches([user, called, {"role": "tool", "name": "weather", "tool_call_id": "call00000", **marked}]),
        tools=reaches([user], [_TOOL]),
        repeats=reaches([user, {"role": "user", **marked}]),
        continues=reaches([{"role": "assistant", "content": "Hello"}, {"role": "user", **marked}]),
    )


def template_of(model: Path) -> tuple[str, dict[str, str]]:
    """A model's chat template and its special tokens by their name; raises Invalid where it has none."""
    template, special = _of_folder(model) if model.is_dir() else _of_gguf(model)
    if not isinstance(template, str):
        raise Invalid(f"'{model.name}' has no chat template", "use an instruction-tuned model")
    return template, special


def _of_folder(model: Path) -> tuple[object, dict[str, str]]:
    file = model / "tokenizer_config.json"
    config = json.loads(file.read_text()) if file.is_file() else {}
    separate = model / "chat_template.jinja"
    template = separate.read_text() if separate.is_file() else config.get("chat_template")
    if isinstance(template, list):
        # Several by name; the default is for conversations.
        template = next((each["template"] for each in template if each.get("name") == "default"), None)
    special = {name: config.get(name) for name in _SPECIAL}
    return template, {
        name: value["content"] if isinstance(value, dict) else str(value) for name, value in special.items() if value
    }


def _of_gguf(model: Path) -> tuple[object, dict[str, str]]:
    fields = header_of(model, "give a model's file or folder").fields
    # Its special tokens are ids into an array that is not read; their text does not matter here.
    return fields.get("tokenizer.chat_template"), {name: f"<{name}>" for name in _SPECIAL}


def _refuse(message: str) -> str:
    raise ValueError(message)
