"""The objects of OpenAI's Responses API: the response itself, its output items, its usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

_ENDED = {"length": "max_output_tokens", "content_filter": "content_filter"}


def outcome(finish_reason: object) -> tuple[str, str | None]:
    """Status of a response and why it is incomplete, from a chat choice's finish reason."""
    reason = _ENDED.get(finish_reason) if isinstance(finish_reason, str) else None
    return ("completed", None) if reason is None else ("incomplete", reason)


def frame(
    identity: str, at: datetime, model: str, chat: Mapping[str, Any], asked: Mapping[str, Any], status: str,
    reason: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A response without output. `asked` are the client's own fields, `chat` is what became of them."""
    reasoning = asked.get("reasoning")
    return {
        "id": f"resp_{identity.replace('-', '')}",
        "object": "response",
        "created_at": at.timestamp(),
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None if reason is None else {"reason": reason},
        "instructions": _instructions(chat),
        "max_output_tokens": asked.get("max_output_tokens"),
        "metadata": asked.get("metadata") or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": asked.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "reasoning": reasoning if isinstance(reasoning, dict) else {"effort": None, "summary": None},
        "store": False,
        "temperature": asked.get("temperature"),
        "text": asked.get("text") or {"format": {"type": "text"}},
        "tool_choice": asked.get("tool_choice") or "auto",
        "tools": asked.get("tools") or [],
        "top_p": asked.get("top_p"),
        "truncation": asked.get("truncation") or "disabled",
        "usage": None,
    }


def _instructions(chat: Mapping[str, Any]) -> str | None:
    first = chat["messages"][0]
    return first["content"] if first["role"] == "system" and isinstance(first["content"], str) else None


def message_item(
    identity: str, place: int, text: str, refusal: object, status: str, logprobs: Sequence[Any] = ()
) -> dict[str, Any]:
    """What the assistant said. `place` is the item's index in the output."""
    content: list[dict[str, Any]] = []
    if text or not refusal:
        content.append(text_part(text, logprobs))
    if isinstance(refusal, str) and refusal:
        content.append({"type": "refusal", "refusal": refusal})
    named = _id("msg", identity, place)
    return {"id": named, "type": "message", "status": status, "role": "assistant", "content": content}


def text_part(text: str, logprobs: Sequence[Any] = ()) -> dict[str, Any]:
    """Text as a part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def reasoning_item(identity: str, place: int, text: str, status: str = "completed") -> dict[str, Any]:
    """What the model thought before it said anything."""
    content = [{"type": "reasoning_text", "text": text}]
    named = _id("rs", identity, place)
    return {"id": named, "type": "reasoning", "status": status, "summary": [], "content": content}


def call_item(
    identity: str, place: int, call: object, name: object, arguments: object, status: str = "completed"
) -> dict[str, Any]:
    """A call of a function that the caller is to make."""
    named = _id("fc", identity, place)
    call = call if isinstance(call, str) and call else named
    return {
        "id": named, "type": "function_call", "status": status, "call_id": call, "name": name or "",
        "arguments": arguments if isinstance(arguments, str) else "",
    }  # fmt: skip


def reasoning_of(message: Mapping[str, Any]) -> str:
    """What an engine puts beside a message as its reasoning, under either of the usual names."""
    found = message.get("reasoning_content") or message.get("reasoning")
    return found if isinstance(found, str) else ""


def usage_of(usage: object, counted: tuple[int, int]) -> dict[str, Any]:
    """Token counts: the engine's details, and the totals as the record has them."""
    found = usage if isinstance(usage, dict) else {}
    prompt, completion = counted
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": _detail(found, "prompt_tokens_details", "cached_tokens"),
            "cache_write_tokens": _detail(found, "prompt_tokens_details", "cache_write_tokens"),
        },
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": _detail(found, "completion_tokens_details", "reasoning_tokens")},
        "total_tokens": prompt + completion,
    }


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int:
    found = usage.get(group)
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, int) else 0


def _id(kind: str, identity: str, place: int) -> str:
    return f"{kind}_{identity.replace('-', '')}{place:02x}"
