"""The socket's side of the gateway: an HTTP/1.1 protocol for uvicorn's server (RFC 9110, RFC 9112; ASGI 3 above it).

uvicorn's own protocol costs more for a request than nginx does for all of it, and sets no bound to heads and trailers
and no time for a request to arrive or an answer to be taken. This one does no more than the data plane needs: no web
sockets, no upgrades, one look at the clock a second for all connections together.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

import httptools
import orjson

from noria.gateway.client import bound
from noria.gateway.wire import CALLER, INTERNAL, Header, read_body

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

HEAD_BYTES: Final = 64 * 1024
"""Most bytes of a request that are not its body: request line, headers, trailers."""
FRAMING: Final = 8
"""Bytes that a chunked body may have on the wire for each of its own, as when it comes byte by byte."""
AHEAD_BYTES: Final = 64 * 1024
"""Bytes of a body that are taken in before anybody asks for them."""
BEHIND_BYTES: Final = 256 * 1024
"""Bytes of an answer that the kernel holds for a client: more would hide that it takes none."""
HEAD_SECONDS: Final = 30.0
BODY_SECONDS: Final = 300.0
BODY_RATE: Final = 64 * 1024
"""Bytes a second for which a body may take longer than that: a file of many megabytes."""
LINGER_SECONDS: Final = 2.0
"""How long a client whose request was not read to its end has to take the answer."""
IDLE_SECONDS: Final = 75.0
"""How long a connection is kept between two requests."""
STALL_SECONDS: Final = 60.0
"""How long a client may take nothing of an answer that waits for it."""
_IDLE, _HEAD, _BODY = range(3)
_STATUS: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}


class Edge(asyncio.Protocol):
    """One connection of a client. `check` must be called every second or so, with the loop's time."""

    __slots__ = (
        "_app", "_closing", "_defaults", "_defaults_of", "_expect", "_got", "_headers", "_held", "_loop", "_parser",
        "_phase", "_pipeline", "_raw", "_receiving", "_running", "_since", "_stalled", "_state",
        "_transport", "_url", "_used", "room",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: object,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn calls it for every connection."""
        self._app: Any = config.loaded_app
        self._loop = _loop or asyncio.get_running_loop()
        self._state = server_state
        # httptools has no types.
        self._parser: Any = httptools.HttpRequestParser(self)
        # A request that ends the connection is answered, whatever comes behind it.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._pipeline: deque[Cycle] = deque()
        self._running: Cycle | None = None
        self._receiving: Cycle | None = None
        self.room: asyncio.Future[None] | None = None
        """Done when the client has taken enough of what was sent; None when it has."""
        self._stalled: float | None = None
        self._phase = _IDLE
        self._raw = self._got = 0
        self._closing = self._held = self._used = False
        self._defaults_of: object = None
        self._defaults = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        bound(self._transport, socket.SO_SNDBUF, BEHIND_BYTES)
        self._since = self._loop.time()
        # uvicorn's server only calls `shutdown` on what stands here.
        self._state.connections.add(self)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        """Of asyncio.Protocol."""
        if self._closing:
            return
        self._raw += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # It is answered as if it had not asked for another protocol; what follows is not HTTP any more.
            self._closing = True
            if self._receiving is not None:
                self._receiving.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(400, "Invalid HTTP request received.")
            return
        if self._raw > HEAD_BYTES and self._raw > HEAD_BYTES + FRAMING * self._got and not self._transport.is_closing():
            self._refuse(431, "the head of the request is too long")

    def eof_received(self) -> None:
        """Of asyncio.Protocol: whoever ends its side has left."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio.Protocol."""
        self._state.connections.discard(self)
        self._closing = True
        self._pipeline.clear()
        if self._running is not None:
            self._running.leave()
        self._make_room()
        # They refer to this object: kept here, they would wait for the garbage collector.
        self._parser = self._running = self._receiving = None

    def pause_writing(self) -> None:
        """Of asyncio.Protocol."""
        self._stalled = self._loop.time()
        self.room = self._loop.create_future()

    def resume_writing(self) -> None:
        """Of asyncio.Protocol."""
        self._stalled = None
        self._make_room()

    def shutdown(self) -> None:
        """Of uvicorn: end when what is being answered is."""
        self._closing = True
        self._pipeline.clear()
        if self._running is None:
            self._transport.close()
        else:
            self._running.keep_alive = False

    def check(self, now: float) -> None:
        """Close the connection of a client that keeps it without using it."""
        waited = now - self._since
        if self._stalled is not None:
            gone = now - self._stalled > STALL_SECONDS
        elif self._phase == _BODY:
            gone = waited > BODY_SECONDS + self._got / BODY_RATE
        elif self._phase == _HEAD or not self._used:
            gone = waited > HEAD_SECONDS
        else:
            gone = self._running is None and waited > IDLE_SECONDS
        if gone:
            self._transport.abort()

    def on_message_begin(self) -> None:
        """Of httptools."""
        self._url = b""
        self._headers: list[Header] = []
        self._expect = False
        self._phase = _HEAD
        self._since = self._loop.time()

    def on_url(self, url: bytes) -> None:
        """Of httptools."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of httptools. Trailers are dropped: they come too late to say anything of the request."""
        if self._phase == _HEAD:
            name = name.lower()
            self._headers.append((name, value))
            if name == b"expect" and value.lower() == b"100-continue":
                self._expect = True

    def on_headers_complete(self) -> None:
        """Of httptools: the request can be begun with."""
        self._phase = _BODY
        self._used = True
        url = self._url
        if url[:1] == b"/" and b"%" not in url and b"#" not in url:
            path, _, query = url.partition(b"?")
            name = path.decode("ascii")
        else:
            parsed = httptools.parse_url(url)
            path, query = parsed.path, parsed.query or b""
            name = unquote(path.decode("ascii"))
        parser = self._parser
        version = parser.get_http_version()
        method = parser.get_method().decode("ascii")
        scope = {
            "type": "http", "http_version": version, "method": method, "path": name, "raw_path": path,
            "query_string": query, "headers": self._headers,
        }  # fmt: skip
        cycle = self._receiving = Cycle(self, self._transport, scope)
        scope["extensions"] = {CALLER: cycle}
        cycle.keep_alive = version != "1.0" and parser.should_keep_alive()
        cycle.expect = self._expect
        if self._running is None:
            self._start(cycle)
        else:
            self.hold()
            self._pipeline.append(cycle)

    def on_body(self, body: bytes) -> None:
        """Of httptools."""
        self._got += len(body)
        if self._receiving is not None and not self._receiving.complete:
            self._receiving.take(body)

    def on_message_complete(self) -> None:
        """Of httptools."""
        self._phase = _IDLE
        self._raw = self._got = 0
        if self._receiving is not None:
            self._receiving.whole()
            if not self._receiving.keep_alive:
                self._closing = True

    def hold(self) -> None:
        """Take nothing more in for now."""
        if not self._held:
            self._held = True
            self._transport.pause_reading()

    def awaited(self) -> None:
        """The request that is worked on waits for more, or for its client to leave."""
        if not self._pipeline:
            self._go_on()

    def defaults(self) -> bytes:
        """Headers that every answer has, such as the date, as the server renews them every second."""
        found = self._state.default_headers
        if found is not self._defaults_of:
            self._defaults_of = found
            self._defaults = b"".join(b"%b: %b\r\n" % each for each in found)
        return self._defaults

    def answered(self, keep_alive: bool) -> None:
        """The request that was worked on has its whole answer."""
        self._running = None
        self._state.total_requests += 1
        if not keep_alive:
            if self._phase == _IDLE:
                self._transport.close()
            else:
                self._part()
            return
        self._go_on()
        if self._pipeline:
            self._start(self._pipeline.popleft())
        elif self._phase == _IDLE:
            self._since = self._loop.time()

    def ended(self, task: asyncio.Task[None]) -> None:
        """The application has returned."""
        self._state.tasks.discard(task)

    def _start(self, cycle: Cycle) -> None:
        self._running = cycle
        task = self._loop.create_task(cycle.run(self._app), name="request")
        cycle.task = task
        # uvicorn's server cancels these when it gives up on draining.
        self._state.tasks.add(task)

    def _go_on(self) -> None:
        if self._held and not self._transport.is_closing():
            self._held = False
            self._transport.resume_reading()

    def _make_room(self) -> None:
        room, self.room = self.room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _refuse(self, status: int, fact: str) -> None:
        self._closing = True
        running = self._running
        if running is not None and (running.started or not running.more):
            # What is written now would be taken for the answer to that request, or a part of it.
            self._transport.abort()
            return
        error = {"message": fact, "type": "invalid_request_error", "param": None, "code": "invalid_request_error"}
        body = orjson.dumps({"error": error})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self._transport.write(_STATUS[status] + head + body)
        self._transport.close()

    def _part(self) -> None:
        """Close, but later: with bytes left that nobody has read it would be a reset, and the answer be lost."""
        self._closing = True
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
            self._go_on()
            self._loop.call_later(LINGER_SECONDS, self._transport.abort)
        else:
            self._transport.close()


class Cycle:
    """One request and its answer: as ASGI's `receive` and `send`, or as `wire.Caller`, which costs half of that."""

    __slots__ = (
        "_chunked", "_edge", "_gone", "_head", "_left", "_parts", "_silent", "_size", "_transport", "_waiter",
        "complete", "expect", "keep_alive", "left", "more", "scope", "started", "task",
    )  # fmt: skip

    def __init__(self, edge: Edge, transport: asyncio.Transport, scope: dict[str, Any]) -> None:
        self._edge = edge
        self._transport = transport
        self.scope = scope
        self.keep_alive = self.more = True
        self.expect = self.started = self.complete = self._gone = self._chunked = False
        self._silent = scope["method"] == "HEAD"
        self._parts: list[bytes] = []
        self._size = self._left = 0
        self._head = b""
        self._waiter: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.left: Callable[[], None] | None = None

    async def run(self, app: Any) -> None:
        """Have the application answer; what it fails to answer is a 500, or a broken connection.

        What it raises ends in the loop's log.
        """
        # It refers to this object: kept here, each request would wait for the garbage collector.
        scope, self.scope = self.scope, {}
        try:
            await app(scope, self.receive, self.send)
        finally:
            if self.task is not None:
                self._edge.ended(self.task)
            if not self.complete and not self._gone:
                self._give_up()

    def take(self, part: bytes) -> None:
        """More of the body."""
        self._parts.append(part)
        self._size += len(part)
        if self._size > AHEAD_BYTES:
            self._edge.hold()
        self._wake()

    def whole(self) -> None:
        """The body is at its end."""
        self.more = False
        self._wake()

    def leave(self) -> None:
        """The client has left."""
        self._gone = True
        self._wake()
        if self.left is not None and not self.complete:
            self.left()

    @property
    def room(self) -> Awaitable[None] | None:
        """Of `Caller`."""
        room = self._edge.room
        return None if room is None else asyncio.shield(room)

    async def body(self, headers: Mapping[bytes, bytes], most: int) -> bytes:
        """Of `Caller`."""
        if self.more or self._gone or self._size > most:
            return await read_body(headers, self.receive, most)
        parts, self._size = self._parts, -1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def answer(self, status: int, body: bytes, headers: Sequence[Header]) -> None:
        """Of `Caller`."""
        if self._gone or self.complete:
            return
        self.started = True
        head = self._lines(status, headers)
        self._transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        self._finish()

    def begin(self, headers: Sequence[Header]) -> None:
        """Of `Caller`. The head is sent with the first piece."""
        self._head = self._lines(200, headers) + b"transfer-encoding: chunked\r\n\r\n"

    def write(self, piece: bytes) -> None:
        """Of `Caller`."""
        if not (self._gone or self.complete):
            head, self._head, self.started = self._head, b"", True
            self._transport.write(b"%b%x\r\n%b\r\n" % (head, len(piece), piece))

    def end(self, piece: bytes) -> None:
        """Of `Caller`."""
        if not (self._gone or self.complete):
            head, self._head, self.started = self._head, b"", True
            self._transport.write(b"%b%x\r\n%b\r\n0\r\n\r\n" % (head, len(piece), piece))
            self._finish()

    async def receive(self) -> dict[str, Any]:
        """Of ASGI."""
        if self.more and self.expect:
            self.expect = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # With the body taken, the only thing left to hear of is that the client leaves.
        while not (self._gone or self.complete or self._parts or (not self.more and self._size >= 0)):
            self._edge.awaited()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._gone or self.complete:
            return {"type": "http.disconnect"}
        parts, self._parts = self._parts, []
        self._size = 0 if self.more else -1
        return {
            "type": "http.request",
            "body": parts[0] if len(parts) == 1 else b"".join(parts),
            "more_body": self.more,
        }

    async def send(self, message: dict[str, Any]) -> None:
        """Of ASGI."""
        room = self._edge.room
        if room is not None and not self._gone:
            await asyncio.shield(room)
        if self._gone or self.complete:
            return
        if message["type"] == "http.response.start":
            self._begin(message["status"], message.get("headers", ()))
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._silent:
            body = b""
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        else:
            self._left -= len(body)
        if self._head:
            head, self._head = self._head, b""
            body = head + body
        if body:
            self.started = True
            self._transport.write(body)
        if not more:
            self._finish()

    def _begin(self, status: int, headers: Sequence[Header]) -> None:
        """The head is sent with the first piece of the body: one system call instead of two."""
        self._chunked = not self._silent
        for name, value in headers:
            if name == b"content-length":
                self._left, self._chunked = int(value), False
        self._head = self._lines(status, headers) + (
            b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"
        )

    def _lines(self, status: int, headers: Sequence[Header]) -> bytes:
        """The head but for its end."""
        if self.more:
            # What is left of the body is not worth reading; the client must know that nothing else is read either.
            self.keep_alive = False
        lines = b"".join([b"%b: %b\r\n" % each for each in headers])
        close = b"" if self.keep_alive else b"connection: close\r\n"
        return b"%b%b%b%b" % (_STATUS[status], self._edge.defaults(), lines, close)

    def _finish(self) -> None:
        self.complete = True
        if self._left and not self._silent:
            # The client would take the next answer for the rest of this one.
            self._transport.abort()
            return
        self._wake()
        self._edge.answered(self.keep_alive)

    def _give_up(self) -> None:
        if self.started:
            self._transport.abort()
            return
        self.keep_alive = False
        length = b"%d" % len(INTERNAL)
        self._begin(500, ((b"content-type", b"application/json"), (b"content-length", length)))
        self._transport.write(self._head + (b"" if self._silent else INTERNAL))
        self.complete = True
        self._edge.answered(False)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
