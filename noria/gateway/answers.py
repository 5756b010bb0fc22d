"""What an engine said, as far as the record needs it: texts, end, usage, log-probabilities, tool calls, reasoning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from noria import prompts
from noria.gateway.wire import EngineFault

SAID = ("reasoning", "reasoning_content", "refusal")
"""Fields of a message, beside its content, that are text for the user."""
Filter = Callable[[str, str | None], str]
"""Makes of more of a named text what may be sent of it, and of None, at its end, what is left."""
_BESIDE = ("tool_calls", "reasoning", "reasoning_content", "refusal", "audio", "annotations", "function_call")
"""Fields of a message that are output too."""


@dataclass(slots=True)
class Heard:
    """What was said so far. `choices` is how many answers there are to one request."""

    choices: int = 1
    texts: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    pieces: int = 0
    """Pieces of a stream that had any output: about one a token."""
    beside: dict[int, dict[str, Any]] = field(default_factory=dict)
    _logprob: float = 0.0
    _counted: int = 0
    _parts: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.texts = [""] * self.choices
        self._parts = [[] for _ in range(self.choices)]

    def text(self, number: int, text: str, sent: str | None = None) -> None:
        """More text of a choice, and what of it is sent where a guard changed it."""
        if text:
            self.pieces += 1
            self._parts[number].append(text if sent is None else sent)
            self.texts[number] = self.texts[number] or text

    def rest(self, number: int, sent: str) -> None:
        """What a guard lets go at the end of a choice's text."""
        self._parts[number].append(sent)

    def other(self, number: int, message: Mapping[str, Any]) -> None:
        """Output beside the text, in a message or in a piece of one."""
        for name in _BESIDE:
            value = message.get(name)
            if value:
                self.pieces += 1
                found = self.beside.setdefault(number, {})
                found[name] = _joined(found.get(name), value)

    def usage(self, document: Mapping[str, Any]) -> None:
        """Token counts in an answer or a chunk, wherever the engine puts them."""
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
    def begun(self) -> bool:
        """Whether any output has come."""
        return self.pieces > 0

    @property
    def answer(self) -> str:
        """The first choice's text."""
        return "".join(self._parts[0])

    @property
    def logprob(self) -> float | None:
        """Mean log-probability of the tokens, in nats; None where the engine gave none."""
        return self._logprob / self._counted if self._counted else None

    def output(self) -> list[dict[str, Any]] | None:
        """All choices, where they are more than one plain text."""
        if self.choices == 1 and not self.beside:
            return None
        return [{"text": "".join(parts), **self.beside.get(number, {})} for number, parts in enumerate(self._parts)]


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
            holder, name = (message, "content") if isinstance(message, dict) else (choice, "text")
            text = holder[name] if name == "text" else holder.get(name)
            number = min(place, heard.choices - 1)
            if isinstance(text, str):
                said = prompts.answer_of(text) if strip else text
                holder[name] = said if filtered is None else whole(filtered, f"{place}", said)
                heard.text(number, said, holder[name])
            if isinstance(message, dict):
                if filtered is not None:
                    screen(message, partial(_beside, filtered, place))
                heard.other(number, message)
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


def whole(filtered: Filter, name: str, text: str) -> str:
    """A text that is there as a whole, filtered as its stream would be."""
    return filtered(name, text) + filtered(name, None)


def _beside(filtered: Filter, place: int, name: str, text: str) -> str:
    return whole(filtered, f"{place}.{name}", text)


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
