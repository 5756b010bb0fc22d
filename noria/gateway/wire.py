"""HTTP as the gateway speaks it: reading a request's body, answering in JSON, errors in OpenAI's shape."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from noria.errors import Invalid, NoriaError

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

CALLER = "noria.caller"
"""The ASGI extension by which the application gets the `Caller`."""


class Caller(Protocol):
    """Who asks: one request's body in, one answer or stream out. Writing never waits; `room` says when one should."""

    left: Callable[[], None] | None
    """Called when the client leaves before the end of its answer."""

    async def body(self, headers: Mapping[bytes, bytes], most: int) -> bytes:
        """The whole body, of `most` bytes; raises TooLarge or ClientGone."""

    def answer(self, status: int, body: bytes, headers: Sequence[Header]) -> None:
        """Send one whole answer."""

    def begin(self, headers: Sequence[Header]) -> None:
        """Begin a stream."""

    def write(self, piece: bytes) -> None:
        """Send a piece of a stream."""

    def end(self, piece: bytes) -> None:
        """Send the last piece of a stream, which is not empty."""

    @property
    def room(self) -> Awaitable[None] | None:
        """Done when the client has taken enough of what was sent; None when it has."""


INTERNAL = b'{"error":{"message":"the gateway failed","type":"internal_error","param":null,"code":"internal_error"}}'
NESTING = 200
SHORT_BYTES = 4096
JSON: Header = (b"content-type", b"application/json")


class TooLarge(Invalid):
    """The request is longer than the gateway takes."""

    status = 413


class WrongMethod(Invalid):
    """The path exists, but not for this method; `allow` names those that it takes."""

    status = 405

    def __init__(self, fact: str, hint: str = "", *, allow: str = "POST") -> None:
        super().__init__(fact, hint)
        self.allow = allow


class EngineFault(NoriaError):
    """The engine refused or failed; status and message are its own, or 502 and 504 where it has none to give."""

    code = "engine_error"

    def __init__(self, status: int, fact: str, kind: str = "engine_error") -> None:
        super().__init__(fact)
        self.status = status
        self.code = kind
        self.passing = False
        """Whether the engine itself said 502, 503 or 504: another one, or the same a little later, may answer."""


class ClientGone(Exception):
    """The client left before its request was whole."""


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, most: int) -> bytes:
    """The whole body of a request, of `most` bytes; raises TooLarge or ClientGone."""
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > most:
        raise too_large(int(length), most)
    parts: list[bytes] = []
    size = 0
    async for part in pieces(receive):
        parts.append(part)
        size += len(part)
        if size > most:
            raise too_large(size, most)
    return b"".join(parts)


async def pieces(receive: Receive) -> AsyncIterator[bytes]:
    """The body of a request as it comes; raises ClientGone."""
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        more = event.get("more_body", False)
        yield event.get("body", b"")


def read_object(body: bytes) -> dict[str, Any]:
    """A request's body as a JSON object; raises Invalid."""
    try:
        found = orjson.loads(body)
        if _may_be_deep(body):
            # orjson reads four times as deep as it writes, and what cannot be written cannot be passed on or logged.
            orjson.dumps([[[[found]]]])
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}", "send one JSON object") from error
    except TypeError as error:
        raise Invalid("the body is nested too deep", f"send at most {NESTING} levels") from error
    if not isinstance(found, dict):
        raise Invalid("the body is JSON, but not an object", 'send {"model": …, "messages": […]}')
    return found


def _may_be_deep(body: bytes) -> bool:
    """Whether there are more brackets than levels are allowed."""
    if len(body) < SHORT_BYTES:
        return body.count(b"[") + body.count(b"{") > NESTING
    # To find is vectorised, to count is not: in a long text of few brackets that is thirty times as fast.
    left = NESTING
    for bracket in (b"[", b"{"):
        at = body.find(bracket)
        while at >= 0 and left >= 0:
            left -= 1
            at = body.find(bracket, at + 1)
    return left < 0


async def answer(send: Send, status: int, body: bytes, headers: Sequence[Header] = (JSON,)) -> None:
    """Send one whole answer."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def error_body(error: NoriaError) -> bytes:
    """An error in OpenAI's shape, with the hint after the fact."""
    message = f"{error.fact}; {error.hint}" if error.hint else error.fact
    return orjson.dumps({"error": {"message": message, "type": error.code, "param": None, "code": error.code}})


def error_event(error: NoriaError) -> bytes:
    """An error as one event of a stream."""
    return b"data: %b\n\n" % error_body(error)


def error_headers(error: NoriaError) -> list[Header]:
    """The headers that belong to an error."""
    headers = [JSON]
    if error.status in (429, 503):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(getattr(error, "wait", 1.0)))))
    if limit := getattr(error, "limit", None):
        headers.append((b"x-noria-limit", limit.encode()))
    return headers


def too_large(size: int, most: int) -> TooLarge:
    """The error for a body of `size` bytes."""
    return TooLarge(f"the body has {size} bytes; the most is {most}", "send less, or raise [gateway] body_bytes")
