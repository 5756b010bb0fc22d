"""Distributed tracing (W3C Trace Context, OpenTelemetry's GenAI semantic conventions), where a collector is set.

A request costs the making of a few identifiers and one entry in a queue; spans are built and sent by the exporter, in
a thread of its own. Without a collector a caller's traceparent goes to the engine as it came.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from noria.gateway.record import BATCH, Turn
from noria.gateway.routing import Replica
from noria.settings import GatewaySettings

CONTENT_CHARS: Final = 32_768
"""Longest text of one attribute; longer ones are cut."""
_OPERATIONS: Final = {"chat": "chat", "completions": "text_completion", "embeddings": "embeddings"}
_REQUEST: Final = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
}

Attributes = dict[str, Any]
"""Attribute name to a text, a number, a truth value or a list of texts."""


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span: identifiers as hexadecimal text, times in nanoseconds since 1970.

    `client` tells a call of another server from a request that was served; `error` is empty for success.
    """

    name: str
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    attributes: Attributes
    client: bool = False
    error: str = ""


class Exporter(Protocol):
    """Sends spans to a collector."""

    def send(self, make: Callable[[], Sequence[Span]], size: int) -> bool:
        """Send later what `make` gives, of about `size` bytes; False when too much is waiting and it was given up."""

    def close(self) -> None:
        """Send what is waiting, for a few seconds at the most."""


@dataclass(slots=True)
class Call:
    """One try to get an answer from an engine; `began` by the clock of `Turn.began`."""

    id: str
    began: float
    url: str


@dataclass(slots=True)
class Trace:
    """Identifiers of a request that is being traced, and its tries."""

    id: str
    parent: str
    span: str
    calls: list[Call] = field(default_factory=list)


class Tracing:
    """Traces requests while there is an exporter. `dropped` is told how many spans were given up."""

    def __init__(self, open_exporter: Callable[[str], Exporter], dropped: Callable[[int], None]) -> None:
        self.on = False
        self._open = open_exporter
        self._dropped = dropped
        self._exporter: Exporter | None = None
        self._address: str | None = None
        self._content = False

    def follow(self, rules: GatewaySettings) -> None:
        """Take over [gateway] otlp and content_in_spans; may take a second. Raises Unavailable without the extra."""
        self._content = rules.content_in_spans
        if rules.otlp == self._address:
            return
        former, self._exporter = self._exporter, None
        self.on = False
        if former is not None:
            former.close()
        # Noted before it is tried: what cannot be opened is told once.
        self._address = rules.otlp
        if rules.otlp is not None:
            self._exporter = self._open(rules.otlp)
            self.on = True

    def close(self) -> None:
        """Send what is waiting."""
        self.on = False
        if self._exporter is not None:
            self._exporter.close()

    def begin(self, turn: Turn) -> None:
        """Trace a request, unless its caller's traceparent says that nobody looks at this trace."""
        given = turn.trace
        if given is None:
            turn.span = Trace(os.urandom(16).hex(), "", os.urandom(8).hex())
        elif int(given[53:55], 16) & 1:
            turn.span = Trace(given[3:35], given[36:52], os.urandom(8).hex())
        else:
            return
        turn.trace = f"00-{turn.span.id}-{turn.span.span}-01"

    def asked(self, trace: Trace, replica: Replica) -> str:
        """An engine is about to be asked; returns the traceparent for it."""
        call = Call(os.urandom(8).hex(), time.perf_counter(), replica.endpoint.url)
        trace.calls.append(call)
        return f"00-{trace.id}-{call.id}-01"

    def ended(self, turn: Turn, seconds: float) -> None:
        """A traced request has ended."""
        trace, exporter = turn.span, self._exporter
        if trace is None or exporter is None:
            return
        content = self._content
        size = 1024 + (len(turn.heard.answer) + sum(len(str(each)) for each in turn.messages) if content else 0)
        if not exporter.send(lambda: spans_of(turn, trace, seconds, content), size):
            self._dropped(1 + len(trace.calls))


def spans_of(turn: Turn, trace: Trace, seconds: float, content: bool) -> list[Span]:
    """The spans of an ended request: the request itself, and each call of an engine."""
    origin = int(turn.at.timestamp() * 1e9)
    end = origin + int(seconds * 1e9)
    failed = turn.status >= 500
    served: Attributes = {
        "http.request.method": "POST",
        "http.route": turn.route,
        "http.response.status_code": turn.status,
        "noria.interaction": turn.id,
        "noria.arm": turn.arm.arm.name if turn.arm is not None else "",
        "noria.served_by": turn.served_by,
        "user.id": turn.user,
    }
    if turn.error is not None:
        served["error.type"] = turn.cause
    name = f"POST {turn.route}"
    spans = [
        Span(name, trace.id, trace.span, trace.parent, origin, end, served, error=turn.error or "" if failed else "")
    ]
    api = turn.api.removeprefix(BATCH)
    operation = _OPERATIONS.get(api, api)
    for number, call in enumerate(trace.calls):
        began = origin + int((call.began - turn.began) * 1e9)
        last = number + 1 == len(trace.calls)
        over = end if last else origin + int((trace.calls[number + 1].began - turn.began) * 1e9)
        attributes: Attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": turn.model,
            **_server(call.url),
        }
        error = "" if last and turn.error is None else (turn.error or "another try followed")
        if last:
            attributes |= _generation(turn)
            if content:
                attributes |= _content(turn)
        if error:
            attributes["error.type"] = turn.cause if last else "unavailable"
        span = Span(f"{operation} {turn.model}", trace.id, call.id, trace.span, began, over, attributes, True, error)
        spans.append(span)
    return spans


def _server(url: str) -> Attributes:
    host, _, port = url.partition("//")[2].partition("/")[0].rpartition(":")
    return {"server.address": host or port, **({"server.port": int(port)} if host and port.isdigit() else {})}


def _generation(turn: Turn) -> Attributes:
    prompt, completion = turn.tokens
    found: Attributes = {
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.output_tokens": completion,
        "gen_ai.conversation.id": turn.conversation,
        "gen_ai.request.stream": turn.stream,
    }
    if turn.arm is not None:
        found["gen_ai.response.model"] = turn.arm.arm.upstreams[0].model
    if turn.heard.finish_reason is not None:
        found["gen_ai.response.finish_reasons"] = [turn.heard.finish_reason]
    if turn.first_token_seconds is not None:
        found["gen_ai.response.time_to_first_chunk"] = turn.first_token_seconds
    for name, attribute in _REQUEST.items():
        value = turn.request.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[attribute] = value
    stop = turn.request.get("stop")
    if isinstance(stop, str):
        stop = [stop]
    if isinstance(stop, list) and all(isinstance(each, str) for each in stop):
        found["gen_ai.request.stop_sequences"] = stop
    return found


def _content(turn: Turn) -> Attributes:
    asked = [{"role": each.get("role"), "parts": _parts(each.get("content"))} for each in turn.messages]
    said = {"role": "assistant", "parts": _parts(turn.heard.answer), "finish_reason": turn.heard.finish_reason or ""}
    return {
        "gen_ai.input.messages": orjson.dumps(asked).decode()[:CONTENT_CHARS],
        "gen_ai.output.messages": orjson.dumps([said]).decode()[:CONTENT_CHARS],
    }


def _parts(content: object) -> list[dict[str, object]]:
    return [{"type": "text", "content": content if isinstance(content, str) else orjson.dumps(content).decode()}]
