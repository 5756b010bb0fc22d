"""What a client asks for: the body of a chat request, checked, and the body that the engine is given for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from noria import prompts
from noria.errors import Invalid
from noria.gateway.snapshot import Live
from noria.types import Message

MOST_MESSAGES = 512
_OURS = ("metadata", "store", "user", "max_completion_tokens")
"""Fields that are for noria or renamed, and are not sent on."""
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


@dataclass(frozen=True, slots=True)
class Ask:
    """A checked chat request. `body` is the client's own, `messages` its conversation as text."""

    body: Mapping[str, Any]
    messages: tuple[Message, ...]
    stream: bool
    usage: bool
    """Whether the client asked for the usage chunk at the end of a stream."""
    max_tokens: int | None
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one engine is sent: the request body, and the context that went into it."""

    body: bytes
    context: str | None


def parse(body: Mapping[str, Any]) -> Ask:
    """Check a chat request; raises Invalid with the field that is wrong."""
    stream = _flag(body, "stream")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise Invalid("'stream_options' is not an object", 'send {"include_usage": true}')
    for field in ("tools", "functions"):
        if body.get(field):
            raise Invalid(f"'{field}' is not served yet", f"leave out {field}")
    if body.get("n") not in (None, 1):
        raise Invalid(f"'n' is '{body['n']}'; one answer is given per request", "leave out n, or send 1")
    return Ask(
        body=body,
        messages=_messages(body.get("messages")),
        stream=stream,
        usage=bool(options.get("include_usage")),
        max_tokens=_max_tokens(body),
        stop=_stop(body.get("stop")),
    )


def prepare(live: Live, ask: Ask) -> Prepared:
    """The body for the engine behind a route; raises Invalid when the conversation does not end with the user."""
    route = live.route
    context = None
    if live.index is not None and ask.messages[-1].role == "user":
        context = prompts.nearest(live.index.search, ask.messages[-1].content, route.k, route.context_chars)
    messages = prompts.render(route.system, ask.messages, context)
    body = {name: value for name, value in ask.body.items() if name not in _OURS}
    body["messages"] = [{"role": message.role, "content": message.content} for message in messages]
    body["model"] = route.model
    body["stop"] = [*ask.stop, prompts.STOP]
    body["max_tokens"] = ask.max_tokens or route.max_tokens
    if body.get("temperature") is None:
        body["temperature"] = 0.0
    if ask.stream:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    else:
        body.pop("stream_options", None)
    body.update(route.extra)
    return Prepared(orjson.dumps(body), context)


def _messages(found: object) -> tuple[Message, ...]:
    if not isinstance(found, list) or not found:
        raise Invalid("'messages' is missing, empty or not a list", 'send [{"role": "user", "content": "…"}]')
    if len(found) > MOST_MESSAGES:
        raise Invalid(f"there are {len(found)} messages; the most is {MOST_MESSAGES}", "send the latest ones")
    return tuple(_message(message, number) for number, message in enumerate(found))


def _message(found: object, number: int) -> Message:
    if not isinstance(found, dict):
        raise Invalid(f"'messages.{number}' is not an object", 'send {"role": "user", "content": "…"}')
    role = found.get("role")
    if role in ("tool", "function") or found.get("tool_calls") or found.get("function_call"):
        raise Invalid(f"'messages.{number}' is part of a tool call; tool calls are not served yet", "leave out tools")
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise Invalid(f"'messages.{number}.role' is '{role}'", "one of: system, developer, user, assistant")
    return Message(role=known, content=prompts.text_of(found.get("content")))


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Invalid(f"'{name}' is '{value}', not true or false", f"send true or false for {name}")
    return bool(value)


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise Invalid(f"'{name}' is '{value}'", "send a whole number of at least 1")
        return value
    return None


def _stop(found: object) -> tuple[str, ...]:
    if found is None:
        return ()
    if isinstance(found, str):
        return (found,)
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return tuple(found)
    raise Invalid("'stop' is neither a string nor a list of strings", 'send "stop": ["…"]')
