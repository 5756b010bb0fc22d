"""A chat stream as the typed events of OpenAI's Responses API, its completing events held back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from noria.errors import NoriaError
from noria.gateway.answers import Filter
from noria.gateway.ask import Ask
from noria.gateway.events import AnswerStream
from noria.gateway.record import Turn
from noria.gateway.response_wire import (
    call_item,
    frame,
    message_item,
    outcome,
    reasoning_item,
    reasoning_of,
    text_part,
    usage_of,
)
from noria.gateway.wire import error_body


@dataclass(slots=True)
class _Item:
    """An output item in the making. `kind` is text, refusal, reasoning or call; `index` is a call's own."""

    kind: str
    place: int
    made: dict[str, Any]
    index: int = 0
    parts: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    open: bool = True

    @property
    def text(self) -> str:
        return "".join(self.parts)


class ResponseStream(AnswerStream):
    """As AnswerStream, but what the client gets are events of a response, numbered from 0.

    An item is closed when the next one begins; the last one, and with it the response, only in `tail`.
    """

    def __init__(self, ask: Ask, turn: Turn, strip: bool, logprobs: bool, filtered: Filter | None = None) -> None:
        super().__init__(turn.heard, turn.model, True, strip, logprobs, filtered)
        self._quick = False
        self._ask = ask
        self._turn = turn
        self._number = 0
        self._items: list[_Item] = []
        self._counted: object = None

    def tail(self, noria: Mapping[str, Any] | None = None) -> bytes:
        """What was held back, and the events that complete the response, of which `noria` becomes a field."""
        out = [*self._tail, *self._begin()]
        if not self._items:
            out += self._said("text", "")
        out += self._close()
        status, reason = outcome(self.heard.finish_reason)
        response = self._frame(status, reason)
        response["output"] = [item.made for item in self._items]
        self._turn.count()
        response["usage"] = usage_of(self._counted, self._turn.tokens)
        if noria is not None:
            response["noria"] = noria
        out.append(self._event_of(f"response.{status}", response=response))
        return b"".join(out)

    def cut_off(self) -> bytes:
        """As `AnswerStream.cut_off`: the event `error`, which follows, ends a response."""
        return b""

    def broken(self, error: NoriaError) -> bytes:
        """As `AnswerStream.broken`.

        Beside the fields of the event `error` stands OpenAI's error object, for which its client raises: a client
        that looks for texts only must not take what it has for a whole answer.
        """
        told = orjson.loads(error_body(error))["error"]
        return self._event_of("error", code=told["code"], message=told["message"], param=None, error=told)

    def _named(self, event: bytes, chunk: dict[str, Any], changed: bool) -> bytes:
        if chunk.get("usage"):
            self._counted = chunk["usage"]
        out = self._begin()
        for choice in chunk.get("choices") or ():
            if isinstance(choice, dict):
                out += self._deltas(choice)
        return b"".join(out)

    def _deltas(self, choice: Mapping[str, Any]) -> list[bytes]:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return []
        out: list[bytes] = []
        if thought := reasoning_of(delta):
            out += self._said("reasoning", thought)
        text, refusal = delta.get("content"), delta.get("refusal")
        if isinstance(text, str) and text:
            out += self._said("text", text, (choice.get("logprobs") or {}).get("content") or [])
        if isinstance(refusal, str) and refusal:
            out += self._said("refusal", refusal)
        for call in delta.get("tool_calls") or ():
            if isinstance(call, dict):
                out += self._called(call)
        return out

    def _said(self, kind: str, text: str, logprobs: list[Any] | None = None) -> list[bytes]:
        """More text of the item that is being written, or the first of a new one."""
        out: list[bytes] = []
        item = self._items[-1] if self._items else None
        if item is None or item.kind != kind or not item.open:
            out += self._close()
            identity, place = self._turn.id, len(self._items)
            made = (
                reasoning_item(identity, place, "", "in_progress")
                if kind == "reasoning"
                else message_item(identity, place, "", None, "in_progress")
            )
            item = _Item(kind, place, {**made, "content": []})
            self._items.append(item)
            out += (
                self._event_of("response.output_item.added", output_index=place, item=item.made),
                self._part_of("response.content_part.added", item, part=_part(kind, "", [])),
            )
        item.parts.append(text)
        if text:
            beside = {}
            if kind == "text":
                beside["logprobs"] = logprobs or []
                item.logprobs += logprobs or []
            out.append(self._part_of(f"response.{_EVENTS[kind]}.delta", item, delta=text, **beside))
        return out

    def _called(self, call: Mapping[str, Any]) -> list[bytes]:
        """A call, or more of its arguments; calls are told apart by their index."""
        function = call.get("function") or {}
        more = function.get("arguments") or ""
        index = call.get("index")
        out: list[bytes] = []
        found = [item for item in self._items if item.kind == "call"]
        number = index if isinstance(index, int) else len(found)
        item = next((item for item in found if item.index == number), None)
        if item is None:
            out += self._close()
            place = len(self._items)
            made = call_item(self._turn.id, place, call.get("id"), function.get("name"), "", "in_progress")
            item = _Item("call", place, made, number)
            self._items.append(item)
            out.append(self._event_of("response.output_item.added", output_index=place, item=made))
        if more:
            item.parts.append(more)
            out.append(
                self._event_of(
                    "response.function_call_arguments.delta",
                    item_id=item.made["id"], output_index=item.place, delta=more,
                )
            )  # fmt: skip
        return out

    def _close(self) -> list[bytes]:
        """The events that end the item that is being written."""
        item = self._items[-1] if self._items else None
        if item is None or not item.open:
            return []
        item.open = False
        text, made = item.text, item.made
        cut = item.kind == "text" and outcome(self.heard.finish_reason)[0] == "incomplete"
        if item.kind == "call":
            item.made = {**made, "arguments": text, "status": "completed"}
            out = [
                self._event_of(
                    "response.function_call_arguments.done",
                    item_id=made["id"], output_index=item.place, name=made["name"], arguments=text,
                )
            ]  # fmt: skip
        else:
            part = _part(item.kind, text, item.logprobs)
            item.made = {**made, "status": "incomplete" if cut else "completed", "content": [part]}
            name = "refusal" if item.kind == "refusal" else "text"
            beside = {"logprobs": item.logprobs} if item.kind == "text" else {}
            out = [
                self._part_of(f"response.{_EVENTS[item.kind]}.done", item, **{name: text}, **beside),
                self._part_of("response.content_part.done", item, part=part),
            ]
        return [*out, self._event_of("response.output_item.done", output_index=item.place, item=item.made)]

    def _begin(self) -> list[bytes]:
        if self._number:
            return []
        response = self._frame("in_progress")
        return [
            self._event_of("response.created", response=response),
            self._event_of("response.in_progress", response=response),
        ]

    def _frame(self, status: str, reason: str | None = None) -> dict[str, Any]:
        turn = self._turn
        return frame(turn.id, turn.at, turn.model, self._ask.body, turn.request, status, reason)

    def _part_of(self, kind: str, item: _Item, **fields: Any) -> bytes:
        return self._event_of(kind, item_id=item.made["id"], output_index=item.place, content_index=0, **fields)

    def _event_of(self, kind: str, **fields: Any) -> bytes:
        data = orjson.dumps({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


_EVENTS = {"text": "output_text", "refusal": "refusal", "reasoning": "reasoning_text"}


def _part(kind: str, text: str, logprobs: list[Any]) -> dict[str, Any]:
    if kind == "text":
        return text_part(text, logprobs)
    return {"type": "refusal", "refusal": text} if kind == "refusal" else {"type": "reasoning_text", "text": text}
