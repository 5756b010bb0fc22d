"""OpenAI's Responses API, stateless, over chat: its requests as chat requests, chat answers as its responses.

Nothing is kept between requests. `store: true`, which clients send by default, is accepted and ignored, and every
response says `"store": false`; what would need a kept response is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from noria.errors import Invalid
from noria.gateway.answers import Filter
from noria.gateway.ask import Ask, Chat, longest
from noria.gateway.record import Turn
from noria.gateway.response_stream import ResponseStream
from noria.gateway.response_wire import call_item, frame, message_item, outcome, reasoning_item, reasoning_of, usage_of
from noria.settings import GatewaySettings

_STATEFUL: Final = ("previous_response_id", "conversation", "background", "prompt")
_OURS: Final = frozenset((
    *_STATEFUL, "input", "instructions", "tools", "tool_choice", "text", "reasoning", "max_output_tokens", "include",
    "max_tool_calls", "truncation", "stream_options", "n", "messages", "max_tokens", "max_completion_tokens",
    "response_format", "functions", "logprobs", "prompt_cache_options", "prompt_cache_retention",
))  # fmt: skip
"""Fields that are given to chat under another name or not at all."""
_ROLES: Final = ("user", "assistant", "system", "developer")
_LOGPROBS: Final = "message.output_text.logprobs"


class Responses(Chat):
    """`POST /v1/responses`."""

    told = ("input", "instructions")

    def __init__(self) -> None:
        super().__init__("responses")

    def parse(self, body: Mapping[str, Any], rules: GatewaySettings, size: int) -> Ask:
        """As `Api.parse`; the body of what is returned is that of a chat request."""
        for name in _STATEFUL:
            if body.get(name):
                raise Invalid(
                    f"'{name}' needs responses that are kept, and none are kept here",
                    "send the whole conversation as 'input'",
                )
        chat = {name: value for name, value in body.items() if name not in _OURS}
        chat["messages"] = _messages(body)
        most = longest(body, rules.max_tokens, ("max_output_tokens",))
        if most is not None:
            chat["max_tokens"] = most
        _tools(chat, body)
        _text(chat, body.get("text"))
        reasoning = body.get("reasoning")
        if isinstance(reasoning, dict) and reasoning.get("effort") is not None:
            chat["reasoning_effort"] = reasoning["effort"]
        include = body.get("include")
        if body.get("top_logprobs") is not None or (isinstance(include, list) and _LOGPROBS in include):
            chat["logprobs"] = True
        ask = super().parse(chat, rules, size)
        # A response always tells its usage.
        ask.usage = ask.stream
        return ask

    def render(self, document: dict[str, Any], ask: Ask, turn: Turn) -> Mapping[str, Any]:
        """A chat completion as a response."""
        choice = document["choices"][0]
        message = choice.get("message") or {}
        status, reason = outcome(choice.get("finish_reason"))
        output: list[dict[str, Any]] = []
        if thought := reasoning_of(message):
            output.append(reasoning_item(turn.id, len(output), thought))
        calls = [each for each in message.get("tool_calls") or () if isinstance(each, dict)]
        text, refusal = message.get("content"), message.get("refusal")
        if text or refusal or not calls:
            said = text if isinstance(text, str) else ""
            logprobs = (choice.get("logprobs") or {}).get("content") or []
            output.append(message_item(turn.id, len(output), said, refusal, status, logprobs))
        for call in calls:
            function = call.get("function") or {}
            output.append(
                call_item(turn.id, len(output), call.get("id"), function.get("name"), function.get("arguments"))
            )
        done = frame(turn.id, turn.at, turn.model, ask.body, turn.request, status, reason)
        done["output"] = output
        turn.count()
        done["usage"] = usage_of(document.get("usage"), turn.tokens)
        return done

    def stream(
        self, ask: Ask, turn: Turn, strip: bool, logprobs: bool, filtered: Filter | None = None
    ) -> ResponseStream:
        """As `Api.stream`."""
        return ResponseStream(ask, turn, strip, logprobs, filtered)


RESPONSES: Final = Responses()


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = body.get("input")
    messages: list[dict[str, Any]] = []
    instructions = body.get("instructions")
    if isinstance(instructions, str):
        if instructions:
            messages.append({"role": "system", "content": instructions})
    elif isinstance(instructions, list):
        _converse(messages, "instructions", instructions)
    elif instructions is not None:
        raise Invalid("'instructions' is neither text nor a list of items", 'send "instructions": "…"')
    if isinstance(found, str) and found:
        messages.append({"role": "user", "content": found})
    elif isinstance(found, list) and found:
        _converse(messages, "input", found)
    else:
        raise Invalid("'input' is missing or empty", 'send "input": "…" or a list of items')
    return messages


def _converse(messages: list[dict[str, Any]], where: str, items: Sequence[Any]) -> None:
    """Append items as messages: what belongs to one turn of the assistant becomes one message."""
    thought = ""
    for number, item in enumerate(items):
        place = f"{where}.{number}"
        if not isinstance(item, dict):
            raise Invalid(f"'{place}' is not an object", 'send {"role": "user", "content": "…"}')
        kind = item.get("type") or "message"
        if kind == "reasoning":
            thought += _thought(item)
            continue
        if kind == "function_call":
            _call(messages, place, item)
        elif kind == "function_call_output":
            identity = _string(item, "call_id", place)
            messages.append({"role": "tool", "tool_call_id": identity, "content": _content(place, item, "output")})
        elif kind == "message":
            if item.get("role") not in _ROLES:
                raise Invalid(f"'{place}.role' is '{item.get('role')}'", f"one of: {', '.join(_ROLES)}")
            messages.append({"role": item["role"], "content": _content(place, item, "content")})
        else:
            raise Invalid(
                f"'{place}.type' is '{kind}', which needs what is not here",
                "one of: message, function_call, function_call_output, reasoning",
            )
        if thought and messages[-1]["role"] == "assistant":
            messages[-1]["reasoning_content"] = thought
        thought = ""


def _call(messages: list[dict[str, Any]], place: str, item: Mapping[str, Any]) -> None:
    function = {"name": _string(item, "name", place), "arguments": _string(item, "arguments", place)}
    call = {"id": _string(item, "call_id", place), "type": "function", "function": function}
    if messages and messages[-1]["role"] == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _string(item: Mapping[str, Any], name: str, place: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise Invalid(f"'{place}.{name}' is missing or no text", f"send {name}")
    return value


def _thought(item: Mapping[str, Any]) -> str:
    groups = [group for name in ("content", "summary") if isinstance(group := item.get(name), list)]
    parts = [part for group in groups for part in group if isinstance(part, dict)]
    return "".join(text for part in parts if isinstance(text := part.get("text"), str))


def _content(place: str, item: Mapping[str, Any], name: str) -> object:
    found = item.get(name)
    if isinstance(found, str):
        return found
    if not isinstance(found, list):
        raise Invalid(f"'{place}.{name}' is neither text nor a list of parts", "send a string")
    parts = [_part(f"{place}.{name}.{number}", part) for number, part in enumerate(found)]
    if all(part["type"] == "text" for part in parts):
        # Many chat templates take nothing but a string.
        return "".join(part["text"] for part in parts)
    return parts


def _part(place: str, part: object) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        raise Invalid(f"'{place}' is not a part of a message", 'send {"type": "input_text", "text": "…"}')
    if kind in ("input_text", "output_text", "text", "refusal"):
        return {"type": "text", "text": _string(part, "refusal" if kind == "refusal" else "text", place)}
    if kind == "input_image":
        image = {"url": _string(part, "image_url", place)}
        if isinstance(part.get("detail"), str):
            image["detail"] = part["detail"]
        return {"type": "image_url", "image_url": image}
    if kind == "input_file" and isinstance(part.get("file_data"), str):
        return {"type": "file", "file": {name: part[name] for name in ("file_data", "filename") if name in part}}
    if kind == "input_audio":
        return dict(part)
    raise Invalid(f"'{place}.type' is '{kind}'", "send input_text, or input_image and input_file with their data")


def _tools(chat: dict[str, Any], body: Mapping[str, Any]) -> None:
    tools = body.get("tools")
    if tools:
        if not isinstance(tools, list):
            raise Invalid("'tools' is not a list", 'send [{"type": "function", "name": "…", "parameters": {…}}]')
        chat["tools"] = [_tool(number, tool) for number, tool in enumerate(tools)]
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else None
    if choice is None:
        return
    if isinstance(choice, str):
        chat["tool_choice"] = choice
    elif kind == "function":
        chat["tool_choice"] = {"type": "function", "function": {"name": _string(choice, "name", "tool_choice")}}
    elif kind == "allowed_tools" and isinstance(choice.get("tools"), list):
        allowed = [each.get("name") for each in choice["tools"] if isinstance(each, dict)]
        chat["tools"] = [tool for tool in chat.get("tools", ()) if tool["function"]["name"] in allowed]
        chat["tool_choice"] = choice.get("mode") or "auto"
    else:
        raise Invalid(f"'tool_choice' is '{kind or choice}'", "one of: auto, none, required, or a function")


def _tool(number: int, tool: object) -> dict[str, Any]:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or kind != "function":
        raise Invalid(f"'tools.{number}.type' is '{kind}'; only functions can be called here", 'send "function"')
    _string(tool, "name", f"tools.{number}")
    function = {
        name: tool[name] for name in ("name", "description", "parameters", "strict") if tool.get(name) is not None
    }
    return {"type": "function", "function": function}


def _text(chat: dict[str, Any], text: object) -> None:
    if text is None:
        return
    shape = text.get("format") if isinstance(text, dict) else text
    kind = shape.get("type") if isinstance(shape, dict) else None
    if not isinstance(text, dict) or (shape is not None and kind not in ("text", "json_object", "json_schema")):
        raise Invalid(f"'text.format' is '{kind or shape}'", "one of the types: text, json_object, json_schema")
    if isinstance(shape, dict) and kind == "json_schema":
        schema = {name: value for name, value in shape.items() if name != "type" and value is not None}
        chat["response_format"] = {"type": kind, "json_schema": schema}
    elif kind == "json_object":
        chat["response_format"] = {"type": kind}
    if text.get("verbosity") is not None:
        chat["verbosity"] = text["verbosity"]
