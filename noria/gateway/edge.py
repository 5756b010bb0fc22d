"""The socket's side of the gateway: what a client may cost before its request is understood.

uvicorn's parser sets no bound to heads and trailers and no time for a request to arrive or an answer to be taken.
"""

from __future__ import annotations

import asyncio
from typing import Final

import orjson
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

HEAD_BYTES: Final = 64 * 1024
"""Most bytes of a request that are not its body: request line, headers, trailers."""
FRAMING: Final = 8
"""Bytes that a chunked body may have on the wire for each of its own, as when it comes byte by byte."""
HEAD_SECONDS: Final = 30.0
BODY_SECONDS: Final = 300.0
BODY_RATE: Final = 64 * 1024
"""Bytes a second for which a body may take longer than that: a file of many megabytes."""
STALL_SECONDS: Final = 60.0
"""How long a client may take nothing of an answer that waits for it."""


class Edge(HttpToolsProtocol):
    """One connection of a client. `check` must be called every second or so, with the loop's time."""

    _head = True
    _raw = _got = 0
    _since = 0.0
    _stalled: float | None = None
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Of asyncio.Protocol."""
        super().connection_made(transport)
        self._since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Of asyncio.Protocol."""
        if not self._raw:
            self._since = self.loop.time()
        self._raw += len(data)
        super().data_received(data)
        if self._raw > HEAD_BYTES and self._raw > HEAD_BYTES + FRAMING * self._got and not self.transport.is_closing():
            self._refuse(431, "the head of the request is too long")

    def on_headers_complete(self) -> None:
        """Of httptools."""
        self._head = False
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of httptools. Trailers are dropped: they come too late to say anything of the request."""
        if self._head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Of httptools."""
        self._got += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Of httptools."""
        self._head = True
        self._raw = self._got = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Of uvicorn."""
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio.Protocol. uvicorn tells only the last one of several requests that wait on a connection."""
        running, self._running = self._running, None
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Of asyncio.Protocol."""
        self._stalled = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Of asyncio.Protocol."""
        self._stalled = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Of uvicorn: bytes that are no HTTP request."""
        self._refuse(400, msg)

    def check(self, now: float) -> None:
        """Close the connection of a client that keeps it without using it."""
        waited = now - self._since
        if self._stalled is not None:
            if now - self._stalled > STALL_SECONDS:
                self.transport.abort()
        elif not self._head:
            if waited > BODY_SECONDS + self._got / BODY_RATE:
                self.transport.abort()
        elif waited > HEAD_SECONDS and (self.cycle is None or (self._raw and self.cycle.response_complete)):
            self.transport.abort()

    def _refuse(self, status: int, fact: str) -> None:
        running = self._running
        busy = running is not None and not running.response_complete
        if running is not None and busy and (running.response_started or not running.more_body):
            # What is written now would be taken for the answer to that request, or a part of it.
            self.transport.abort()
            return
        error = {"message": fact, "type": "invalid_request_error", "param": None, "code": "invalid_request_error"}
        body = orjson.dumps({"error": error})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
