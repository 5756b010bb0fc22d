"""What an engine said, as far as the record needs it: texts, end, usage, log-probabilities, tool calls, reasoning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import orjson

from noria import prompts
from noria.gateway.wire import EngineFault

SAID = ("reasoning", "reasoning_content", "refusal")
"""Fields of a message, beside its content, that are text for the user."""
PARTS = 512
"""Most pieces of a text that are kept apart: as a piece, a token takes more than ten times its own bytes."""
Filter = Callable[[str, str | None], str]
"""Makes of more of a named text what may be sent of it, and of None, at its end, what is left."""
_MESSAGE = frozenset(("role", "content"))
CHOICE = frozenset(("index", "message", "delta", "text", "finish_reason", "logprobs"))
DOCUMENT = frozenset((
    "id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier", "timings",
))  # fmt: skip
"""Fields that the record has in places of their own, or that say nothing of the answer; any other is output."""
_PIECEMEAL = frozenset(("arguments", "data", "transcript"))
"""Fields of objects that a stream brings in pieces."""


class Heard:
    """What was said so far. `choices` is how many answers there are to one request."""

    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    pieces = 0
    """Pieces of a stream that had any output: about one a token."""
    beside: Mapping[int, dict[str, Any]] = MappingProxyType({})
    """Output of a choice that is not its text."""
    whole: Any = None
    """The engine's whole answer, where it is not made of choices."""
    _logprob = 0.0
    _counted = 0

    def __init__(self, choices: int = 1) -> None:
        self.choices = choices
        self._parts: list[list[str]] = [[] for _ in range(choices)] if choices > 1 else [[]]

    def text(self, number: int, text: str, sent: str | None = None) -> None:
        """More text of a choice, and what of it is sent where a guard changed it."""
        if text:
            self.pieces += 1
            parts = self._parts[number]
            parts.append(text if sent is None else sent)
            if len(parts) > PARTS:
                parts[:] = ["".join(parts)]

    def rest(self, number: int, sent: str) -> None:
        """What a guard lets go at the end of a choice's text."""
        self._parts[number].append(sent)

    def other(self, number: int, message: Mapping[str, Any]) -> None:
        """Output beside the text, in a message or in a piece of one; fields that nobody here knows are output too."""
        found = {name: value for name, value in message.items() if value and name not in _MESSAGE}
        content = message.get("content")
        if content and not isinstance(content, str):
            found["content"] = content
        if found:
            self.pieces += 1
            before = self.beside.get(number, {})
            self._add(number, {name: _joined(before.get(name), value) for name, value in found.items()})

    def around(self, number: int, choice: Mapping[str, Any]) -> None:
        """What an engine says of a choice beside its message."""
        if not choice.keys() <= CHOICE:
            self._add(
                number, {name: value for name, value in choice.items() if name not in CHOICE and value is not None}
            )

    def usage(self, document: Mapping[str, Any]) -> None:
        """Token counts in an answer or a chunk, wherever the engine puts them, and fields that nobody here knows."""
        if "choices" in document and not document.keys() <= DOCUMENT:
            self._add(
                0, {name: value for name, value in document.items() if name not in DOCUMENT and value is not None}
            )
        usage = document.get("usage")
        if isinstance(usage, dict):
            prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if isinstance(prompt, int):
                self.prompt_tokens = prompt
            elif isinstance(total := usage.get("total_tokens"), int) and self.prompt_tokens is None:
                self.prompt_tokens = total
            if isinstance(completion, int):
                self.completion_tokens = completion

    def logprobs(self, found: object) -> None:
        """Log-probabilities of chosen tokens, in the chat form or in that of completions."""
        if not isinstance(found, dict):
            return
        content = found.get("content")
        if isinstance(content, list):
            values = [each.get("logprob") for each in content if isinstance(each, dict)]
        else:
            values = found.get("token_logprobs") or []
        for value in values:
            if isinstance(value, int | float):
                self._logprob += value
                self._counted += 1

    @property
    def texts(self) -> list[str]:
        """The text of each choice."""
        return ["".join(parts) for parts in self._parts]

    def begun_by(self, number: int) -> bool:
        """Whether a choice has any text yet."""
        return bool(self._parts[number])

    @property
    def begun(self) -> bool:
        """Whether any output has come."""
        return self.pieces > 0

    @property
    def answer(self) -> str:
        """The first choice's text."""
        parts = self._parts[0]
        return parts[0] if len(parts) == 1 else "".join(parts)

    @property
    def logprob(self) -> float | None:
        """Mean log-probability of the tokens, in nats; None where the engine gave none."""
        return self._logprob / self._counted if self._counted else None

    def output(self) -> Any:
        """All choices, where they are more than one plain text; or the whole answer, where it has none."""
        if self.whole is not None:
            return self.whole
        if self.choices == 1 and not self.beside:
            return None
        return [{"text": "".join(parts), **self.beside.get(number, {})} for number, parts in enumerate(self._parts)]

    def _add(self, number: int, found: Mapping[str, Any]) -> None:
        if found:
            self.beside = {**self.beside, number: {**self.beside.get(number, {}), **found}}


def read(body: bytes, heard: Heard, model: str, strip: bool, logprobs: bool, filtered: Filter | None) -> dict[str, Any]:
    """A whole chat or text completion as the client may see it; raises EngineFault for anything else.

    `strip` takes the terminator and the white space around an answer away; `filtered` makes of each text of a choice,
    which it is given by name, the text that may be sent, and of None what is left of it.
    """
    try:
        document = orjson.loads(body)
        choices = document["choices"]
        heard.usage(document)
        for place, choice in enumerate(choices):
            message = choice.get("message")
            index = choice.get("index")
            number = index if isinstance(index, int) and 0 <= index < heard.choices else min(place, heard.choices - 1)
            if message is None:
                choice["text"] = _passed(choice["text"], number, heard, strip, filtered)
            else:
                content = message.get("content")
                message["content"] = _passed(content, number, heard, strip, filtered)
                if filtered is not None:
                    screen(message, partial(_beside, filtered, number))
                if not (type(content) is str and message.keys() <= _MESSAGE):
                    heard.other(number, message)
            heard.around(number, choice)
            if choice.get("logprobs") is not None:
                heard.logprobs(choice["logprobs"])
                if not logprobs:
                    choice["logprobs"] = None
        reason = choices[0].get("finish_reason")
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise EngineFault(502, "the engine's answer is not a completion") from error
    heard.finish_reason = reason if isinstance(reason, str) else None
    document["model"] = model
    return document  # type: ignore[no-any-return]


def _passed(text: object, number: int, heard: Heard, strip: bool, filtered: Filter | None) -> object:
    if not isinstance(text, str):
        return text
    said = prompts.answer_of(text) if strip else text
    sent = said if filtered is None else whole(filtered, f"{number}", said)
    heard.text(number, said, sent)
    return sent


def whole(filtered: Filter, name: str, text: str) -> str:
    """A text that is there as a whole, filtered as its stream would be."""
    return filtered(name, text) + filtered(name, None)


def _beside(filtered: Filter, number: int, name: str, text: str) -> str:
    return whole(filtered, f"{number}.{name}", text)


def screen(message: dict[str, Any], through: Callable[[str, str], str]) -> bool:
    """Put the texts beside the content through a filter: reasoning, and the arguments of tool calls.

    Returns whether one of them was changed. Names are the same in a whole message and in the pieces of a stream.
    """
    changed = False
    for name in SAID:
        value = message.get(name)
        if isinstance(value, str) and value:
            message[name] = through(name, value)
            changed |= message[name] != value
    calls = message.get("tool_calls")
    for place, call in enumerate(calls if isinstance(calls, list) else []):
        function = call.get("function") if isinstance(call, dict) else None
        value = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(function, dict) and isinstance(value, str) and value:
            index = call.get("index")
            function["arguments"] = through(f"tool_calls.{index if isinstance(index, int) else place}", value)
            changed |= function["arguments"] != value
    return changed


def _joined(before: Any, value: Any) -> Any:
    """A field of a message put together from the pieces of a stream."""
    if before is None:
        return value
    if isinstance(before, str) and isinstance(value, str):
        return before + value
    if isinstance(before, list) and isinstance(value, list):
        return _calls(before, value)
    if isinstance(before, dict) and isinstance(value, dict):
        return {
            **before,
            **{
                name: f"{before[name]}{more}" if name in _PIECEMEAL and isinstance(before.get(name), str) else more
                for name, more in value.items()
            },
        }
    return value


def _calls(before: list[Any], value: list[Any]) -> list[Any]:
    """Tool calls of which each piece brings more arguments, told apart by their index."""
    found = list(before)
    for each in value:
        index = each.get("index") if isinstance(each, dict) else None
        if not isinstance(index, int) or index >= len(found) or not isinstance(found[index], dict):
            found.append(each)
            continue
        call = dict(found[index])
        function = dict(call.get("function") or {})
        more = each.get("function") or {}
        function["arguments"] = f"{function.get('arguments') or ''}{more.get('arguments') or ''}"
        if more.get("name"):
            function["name"] = more["name"]
        found[index] = {**call, "function": function}
    return found
