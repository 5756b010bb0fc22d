"""The gateway's own HTTP/1.1 client: pooled connections, one request at a time on each, nothing copied twice.

httpx and aiohttp cost more per request than all the rest of the gateway together, so the transport is written here on
asyncio's protocols and httptools' parser.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

from noria.errors import Invalid

PAUSE_PARTS = 64
"""Unread pieces of a body after which the upstream is made to wait."""
AHEAD_BYTES = 64 * 1024
"""Bytes that the kernel takes from an upstream before they are read: as many as come at once, while others wait."""
LONGEST_BODY = 64 * 1024 * 1024
"""Bytes of an answer that is read whole."""
LEFTOVER_SECONDS = 1.0
"""How long the end of an answer that nobody reads any more may take before the connection is given up."""


class UpstreamError(Exception):
    """No usable answer came from the upstream. `answered` tells whether any byte of one did."""

    def __init__(self, message: str, *, answered: bool = False, slow: bool = False) -> None:
        super().__init__(message)
        self.answered = answered
        self.slow = slow
        """It connected, but was silent for too long: asking again would only double its load."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that an upstream may take."""

    connect: float = 2.0
    first_byte: float = 300.0
    """Up to the first byte of the answer; a plain answer is generated whole before that."""
    idle: float = 120.0
    """Between two pieces of an answer."""

    @property
    def shortest(self) -> float:
        """How often a connection looks at the time."""
        return min(self.first_byte, self.idle)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes; `head` is everything before the value of content-length."""

    host: str
    port: int
    secure: bool
    head: bytes


def target(url: str, key: str, path: str) -> Target:
    """The target `url` + `path` with a bearer key; raises Invalid for what is not an http or https address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(f"'{url}' is not an http address", "write http://HOST:PORT/v1")
    if any(ord(sign) < 0x21 or ord(sign) > 0x7E for sign in f"{url}{key}"):
        raise Invalid(f"the address '{url}' or its key holds a character that no HTTP header may hold", "remove it")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    head = (
        f"POST {parts.path.rstrip('/')}{path} HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\n"
        f"authorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: "
    )
    return Target(parts.hostname, port, secure, head.encode())


@dataclass(slots=True)
class Reply:
    """The head of an answer, and its body: whole, or still to be read with `more`."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | None
    connection: Connection = field(repr=False)

    def header(self, name: bytes) -> bytes | None:
        """The first header of this lower-case name."""
        return next((value for each, value in self.headers if each.lower() == name), None)

    def more(self) -> Awaitable[bytes]:
        """The next piece of the body, empty at its end; raises UpstreamError when it breaks off."""
        return self.connection.more()

    def pump(self, sink: Callable[[bytes], bool]) -> Awaitable[bool]:
        """Give the pieces of the body to `sink` as they come, until it returns False or the body is at its end.

        Returns whether it is; raises UpstreamError when it breaks off.
        """
        return self.connection.pump(sink)

    async def read(self) -> bytes:
        """The whole body; raises UpstreamError when it breaks off or is longer than LONGEST_BODY."""
        if self.body is None:
            parts, size = [], 0
            while piece := await self.more():
                parts.append(piece)
                size += len(piece)
                if size > LONGEST_BODY:
                    self.connection.abort()
                    raise UpstreamError("the answer is too long", answered=True)
            self.body = b"".join(parts)
        return self.body

    def close(self) -> None:
        """Stop reading. An answer that is not at its end is aborted, which stops the generation upstream."""
        self.connection.leave(0.0)

    def finish(self) -> None:
        """Stop reading an answer of which all that matters has come; the connection lives on if the rest is short."""
        self.connection.leave(LEFTOVER_SECONDS)


class Pool:
    """Keep-alive connections by upstream. One per gateway; used from one event loop."""

    def __init__(self, limits: Limits | None = None, idle_connections: int = 512) -> None:
        """`idle_connections` is the most that are kept open for one upstream between requests."""
        self.limits = limits or Limits()
        self._most = idle_connections
        self._idle: defaultdict[tuple[str, int, bool], list[Connection]] = defaultdict(list)
        self._open: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None

    async def post(self, to: Target, body: bytes, *, stream: bool, trace: str | None = None) -> Reply:
        """Send one request. With `stream` the reply comes with its head, otherwise when the body is whole.

        `trace` is a value of the header traceparent (W3C Trace Context).

        Only a pooled connection that turns out to be closed is tried again here. Raises UpstreamError. Cancelling
        the caller closes the connection.
        """
        key = (to.host, to.port, to.secure)
        if trace is None:
            head = b"%b%d\r\n\r\n" % (to.head, len(body))
        else:
            head = b"%b%d\r\ntraceparent: %b\r\n\r\n" % (to.head, len(body), trace.encode())
        idle = self._idle[key]
        if idle:
            try:
                return await idle.pop().ask(head, body, stream)
            except UpstreamError as error:
                if error.answered or error.slow:
                    raise
        return await (await self._connect(to, key)).ask(head, body, stream)

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()

    async def _connect(self, to: Target, key: tuple[str, int, bool]) -> Connection:
        if to.secure and self._tls is None:
            self._tls = ssl.create_default_context()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.connect):
                _, connection = await loop.create_connection(
                    lambda: Connection(self, key, loop), to.host, to.port, ssl=self._tls if to.secure else None
                )
        except (OSError, TimeoutError) as error:
            raise UpstreamError(f"no connection to {to.host}:{to.port}") from error
        return connection

    def opened(self, connection: Connection) -> None:
        """A connection was made."""
        self._open.add(connection)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close it when there are enough."""
        idle = self._idle[connection.key]
        if len(idle) < self._most:
            idle.append(connection)
        else:
            connection.abort()

    def forget(self, connection: Connection) -> None:
        """A connection was lost; it may have been an idle one."""
        self._open.discard(connection)
        idle = self._idle.get(connection.key, [])
        if connection in idle:
            idle.remove(connection)


class Connection(asyncio.Protocol):
    """One connection. `busy` from the request until the end of its answer was seen or it was given up.

    `complete` (the answer's end was seen) and `lost` (the socket is gone) are kept apart: a socket lost while nobody
    was reading must not make a truncated answer look whole.
    """

    __slots__ = (
        "_active", "_closing", "_headers", "_headers_done", "_left", "_loop", "_parser", "_parts", "_paused", "_pool",
        "_reply", "_seen", "_sink", "_size", "_stream", "_timer", "_transport", "_waiter", "busy", "complete", "key",
        "lost",
    )  # fmt: skip

    def __init__(self, pool: Pool, key: tuple[str, int, bool], loop: asyncio.AbstractEventLoop) -> None:
        self.key = key
        self.busy = self.complete = False
        self.lost: UpstreamError | None = None
        self._pool = pool
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._reply: asyncio.Future[Reply] | None = None
        """Done with the answer, or with its head; None once it is, so that an idle connection holds no answer."""
        self._sink: Callable[[bytes], bool] | None = None
        # httptools has no types.
        self._parser: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        bound(self._transport, socket.SO_RCVBUF, AHEAD_BYTES)
        self._pool.opened(self)

    async def ask(self, head: bytes, body: bytes, stream: bool) -> Reply:
        """Send a request and wait for its answer: the head of it with `stream`, else all of it."""
        if self._transport.is_closing():
            raise UpstreamError("the connection is closed")
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._stream, self.busy = stream, True
        self.complete = self._paused = self._seen = self._headers_done = self._left = False
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self._reply = reply
        self._active = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._pool.limits.shortest, self._check_time)
        self._transport.writelines((head, body))
        try:
            return await reply
        except asyncio.CancelledError:
            self.abort()
            raise

    async def more(self) -> bytes:
        """The next piece of the body, empty at its end."""
        while True:
            if self._parts:
                return self._taken()
            if self.complete:
                self._release()
                return b""
            if self.lost is not None:
                raise self.lost
            if not self.busy:
                return b""
            await self._wait()

    async def pump(self, sink: Callable[[bytes], bool]) -> bool:
        """As `Reply.pump`. What comes meanwhile goes to `sink` at once, without a turn of the event loop."""
        while True:
            if self._parts and not sink(self._taken()):
                return False
            if self.complete:
                self._release()
                return True
            if self.lost is not None:
                raise self.lost
            if not self.busy:
                return True
            self._sink = sink
            try:
                await self._wait()
                if self._sink is None:
                    return False
            finally:
                self._sink = None

    def leave(self, patience: float) -> None:
        """Give up the rest of the answer; wait `patience` seconds for its end before the connection is closed."""
        if not self.busy:
            return
        self._parts = []
        if self.complete:
            self._release()
        elif patience and self.lost is None:
            self._left = True
            self._stop_timer()
            self._timer = self._loop.call_later(patience, self.abort)
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        self.busy = False
        self._stop_timer()
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Of asyncio.Protocol."""
        if not self.busy or self.complete:
            # Nobody asked: what comes here could be taken for the next request's answer.
            self._fail("bytes that no request asked for")
            return
        self._seen = True
        self._active = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"not an HTTP answer ({error})")
            return
        if self._left:
            self._parts = []
        elif self._sink is not None:
            if self._parts and not self._sink(self._taken()):
                self._sink = None
                self._wake()
        elif self._waiter is not None and (self._parts or self.complete):
            self._wake()
        elif self._stream and not self._paused and not self.complete and len(self._parts) > PAUSE_PARTS:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Of asyncio.Protocol."""
        self._pool.forget(self)
        if self.busy and error is None and self._headers_done and not self.complete and self._ends_with_connection():
            self._finish()
        self._stop_timer()
        if self.busy and not self.complete:
            self._fail("the connection was lost")
        # They refer to each other.
        self._parser = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of httptools."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Of httptools."""
        if self._parser.get_status_code() < 200:
            return
        self._headers_done = True
        if self._stream:
            self._answer(Reply(self._parser.get_status_code(), self._headers, None, self))

    def on_body(self, piece: bytes) -> None:
        """Of httptools."""
        self._parts.append(piece)
        self._size += len(piece)
        if not self._stream and self._size > LONGEST_BODY:
            self._fail("the answer is too long")

    def on_message_complete(self) -> None:
        """Of httptools."""
        if not self._headers_done:
            # An interim answer (1xx): the real one follows.
            self._headers = []
            return
        self._finish()

    def _finish(self) -> None:
        self.complete = True
        if self._left:
            self._release()
        elif self._stream:
            self._wake()
        else:
            # The reply is put together before the connection can carry another request.
            reply = Reply(self._parser.get_status_code(), self._headers, b"".join(self._parts), self)
            self._parts = []
            self._release()
            self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        waiting, self._reply = self._reply, None
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def _release(self) -> None:
        if not self.busy:
            return
        self.busy = False
        if self._left:
            self._stop_timer()
        if not self._transport.is_closing() and self._parser.should_keep_alive():
            self._pool.give_back(self)
        else:
            self._transport.close()

    def _ends_with_connection(self) -> bool:
        names = {name.lower() for name, _ in self._headers}
        return not names & {b"content-length", b"transfer-encoding"}

    def _fail(self, message: str, *, slow: bool = False) -> None:
        fault = UpstreamError(message, answered=self.busy and self._seen, slow=slow)
        self.lost = fault
        if self.busy and self._reply is not None and not self._reply.done():
            self._reply.set_exception(fault)
            self.busy = False
        self._stop_timer()
        self._wake()
        self._pool.forget(self)
        self._transport.abort()

    def _taken(self) -> bytes:
        """What has come of the body, joined."""
        piece = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        if self._paused:
            self._paused = False
            self._active = self._loop.time()
            self._transport.resume_reading()
        return piece

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.abort()
            raise

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_time(self) -> None:
        """One timer per connection, which outlives requests: cheaper than a new one for each."""
        limits = self._pool.limits
        self._timer = None
        if not self.busy:
            return
        allowed = limits.idle if self._seen else limits.first_byte
        left = self._active + allowed - self._loop.time()
        if self._paused or left > 0:
            # While the client is the slow one, the upstream may not be blamed.
            pause = limits.shortest if self._paused else min(left, limits.shortest)
            self._timer = self._loop.call_later(pause, self._check_time)
        else:
            self._fail(f"nothing came for {allowed:g} s", slow=True)


def bound(transport: asyncio.Transport, option: int, most: int) -> None:
    """Keep a buffer of a socket (SO_RCVBUF, SO_SNDBUF) from growing beyond `most` bytes."""
    found = transport.get_extra_info("socket")
    if found is not None:
        found.setsockopt(socket.SOL_SOCKET, option, most)
