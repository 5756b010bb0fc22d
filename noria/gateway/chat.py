"""POST /v1/chat/completions: from the client's request to the engine's answer, logged before it is complete."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from noria import prompts
from noria.errors import NoriaError, NotFound, Unavailable
from noria.gateway.ask import Ask, Prepared, parse, prepare
from noria.gateway.client import Pool, Reply, UpstreamError
from noria.gateway.events import AnswerStream, usage_of
from noria.gateway.inflight import Inflight
from noria.gateway.record import GONE, Journal, Turn, pseudonym
from noria.gateway.snapshot import Live, SnapshotFile
from noria.gateway.wire import (
    INTERNAL,
    JSON,
    ClientGone,
    EngineFault,
    Header,
    Receive,
    Send,
    answer,
    error_body,
    error_headers,
    read_body,
    read_object,
)

PAUSES = (0.0, 0.2, 0.6, 1.2)
"""Seconds before each try: two seconds in all, in which an engine can be replaced or come back."""

_EVENTS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class Chat:
    """Serves chat requests. `secret` keys the pseudonyms of users."""

    def __init__(
        self, snapshots: SnapshotFile, pool: Pool, journal: Journal, inflight: Inflight, secret: bytes
    ) -> None:
        self._snapshots = snapshots
        self._pool = pool
        self._journal = journal
        self._inflight = inflight
        self._secret = secret

    async def serve(self, turn: Turn, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        """Serve one request of an authenticated client. However it ends, its record is written before it has."""
        watcher: asyncio.Task[dict[str, Any]] | None = None
        try:
            body = await read_body(headers, receive)
            watcher = _watch(turn, receive)
            ask = self._read(turn, body, headers)
            reply, first = await self._engine(turn, ask)
            if ask.stream:
                await self._stream(turn, ask, reply, first, send)
            else:
                await self._plain(turn, reply, send)
        except NoriaError as error:
            await self._refuse(turn, error, send)
        except ClientGone:
            _leave(turn)
        except asyncio.CancelledError:
            # Either the client left, or the server gives up on what it could not drain.
            if not turn.gone:
                turn.ended(503, "the gateway was stopped")
                raise
            _leave(turn)
        except Exception:
            # The server logs the fault; the client gets it in the shape that it can read.
            with suppress(Unavailable):
                self._journal.finish(turn)
            if not turn.started:
                turn.started = True
                await answer(send, 500, INTERNAL, [JSON, *_named(turn)])
            raise
        finally:
            self._inflight.leave(turn.id)
            with suppress(Unavailable):
                self._journal.finish(turn)
            if watcher is not None and not watcher.done():
                watcher.cancel()

    def _read(self, turn: Turn, body: bytes, headers: Mapping[bytes, bytes]) -> Ask:
        """Check the request; what can be known of it is noted for the record first, also where it is refused."""
        found = read_object(body)
        messages = found.get("messages")
        turn.messages = [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []
        task = found.get("model")
        turn.task = task if isinstance(task, str) else ""
        turn.stream = found.get("stream") is True
        turn.trainable = found.get("store") is not False and headers.get(b"x-noria-train", b"").lower() != b"no"
        user, metadata = found.get("user"), found.get("metadata")
        if isinstance(user, str) and user:
            turn.user = pseudonym(self._secret, user)
        if isinstance(metadata, dict) and isinstance(metadata.get("conversation"), str):
            turn.conversation = metadata["conversation"] or turn.id
        self._route(turn)
        return parse(found)

    def _route(self, turn: Turn) -> Live:
        live = self._snapshots.current.live
        found = live.get(turn.task)
        if found is None:
            raise NotFound(f"there is no model '{turn.task}'", f"known are: {', '.join(sorted(live)) or 'none'}")
        turn.known = True
        return found

    async def _engine(self, turn: Turn, ask: Ask) -> tuple[Reply, bytes]:
        """An engine's answer with status 200 and, of a stream, its first piece.

        As long as the client has seen nothing, a try that failed costs it only time: each one takes the route that is
        current then, so that an engine that is replaced or restarted drops nothing.
        """
        prepared: tuple[Live, Prepared] | None = None
        fault: NoriaError = Unavailable("the engine cannot be reached", "try again in a moment")
        for pause in PAUSES:
            if pause:
                await asyncio.sleep(pause)
            live = self._route(turn)
            if prepared is None or prepared[0] is not live:
                prepared = live, prepare(live, ask)
            turn.served_by, turn.context = live.route.served_by, prepared[1].context
            self._inflight.enter(turn.id, live.route.url)
            try:
                reply = await self._pool.post(live.target, prepared[1].body, stream=ask.stream)
                if reply.status == 200:
                    return reply, await reply.more() if ask.stream else b""
                fault = _engine_fault(reply, await reply.read())
            except UpstreamError as error:
                if error.slow:
                    raise EngineFault(504, f"the engine gave no answer: {error}") from error
                fault = Unavailable(f"the engine cannot be reached: {error}", "try again in a moment")
            self._inflight.leave(turn.id)
            if fault.status != 503:
                break
        raise fault

    async def _plain(self, turn: Turn, reply: Reply, send: Send) -> None:
        try:
            document = orjson.loads(reply.body or b"")
            message = document["choices"][0]["message"]
            content, reason = message["content"], document["choices"][0].get("finish_reason")
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
            raise EngineFault(502, "the engine's answer is not a chat completion") from error
        if isinstance(content, str):
            message["content"] = turn.answer = prompts.answer_of(content)
        turn.finish_reason = reason if isinstance(reason, str) else None
        turn.prompt_tokens, turn.completion_tokens = usage_of(document)
        document["model"] = turn.task
        body = orjson.dumps(document)
        turn.ended(200, None)
        self._finish(turn)
        turn.started = True
        await answer(send, 200, body, [JSON, *_named(turn)])

    async def _stream(self, turn: Turn, ask: Ask, reply: Reply, first: bytes, send: Send) -> None:
        stream = AnswerStream(turn.task, ask.usage)
        piece = first
        try:
            while piece and not stream.done and stream.error is None:
                out = stream.feed(piece)
                if stream.begun and turn.first_token_seconds is None:
                    turn.first_token_seconds = turn.elapsed()
                if out:
                    await self._start(turn, send)
                    await send({"type": "http.response.body", "body": out, "more_body": True})
                if not stream.done:
                    piece = await reply.more()
        except UpstreamError as error:
            # After the finish reason nothing is missing but the usage.
            if not stream.complete:
                status = 504 if error.slow else 502
                raise EngineFault(status, f"the engine's answer broke off: {error}") from error
        finally:
            turn.answer, turn.finish_reason = prompts.answer_of(stream.text), stream.finish_reason
            turn.prompt_tokens, turn.completion_tokens = stream.prompt_tokens, stream.completion_tokens
            (reply.finish if stream.done else reply.close)()
        if not stream.complete:
            raise EngineFault(502, stream.error or "the engine's answer broke off")
        turn.ended(200, None)
        self._finish(turn)
        await self._start(turn, send)
        await send({"type": "http.response.body", "body": stream.tail})

    async def _start(self, turn: Turn, send: Send) -> None:
        if not turn.started:
            turn.started = True
            await send({"type": "http.response.start", "status": 200, "headers": [*_EVENTS, *_named(turn)]})

    async def _refuse(self, turn: Turn, error: NoriaError, send: Send) -> None:
        """Tell the client of an error, inside the stream when that has begun."""
        if not turn.recorded:
            turn.ended(error.status, error.fact)
            try:
                self._finish(turn)
            except Unavailable as unlogged:
                error = unlogged
        if turn.started:
            await send({"type": "http.response.body", "body": b"data: %b\n\n" % error_body(error)})
        else:
            names = _named(turn) if turn.logged else []
            await answer(send, error.status, error_body(error), [*error_headers(error), *names])

    def _finish(self, turn: Turn) -> None:
        """Write the record; the request no longer counts as in flight and can no longer be given up."""
        self._journal.finish(turn)
        self._inflight.leave(turn.id)


def _leave(turn: Turn) -> None:
    if not turn.recorded:
        turn.ended(GONE, "the client left")


def _watch(turn: Turn, receive: Receive) -> asyncio.Task[dict[str, Any]]:
    """Cancel the request when its client leaves before the record is written."""
    serving = asyncio.current_task()

    def left(watcher: asyncio.Task[dict[str, Any]]) -> None:
        if not watcher.cancelled() and not turn.recorded and serving is not None:
            turn.gone = True
            serving.cancel()

    watcher = asyncio.ensure_future(receive())
    watcher.add_done_callback(left)
    return watcher


def _named(turn: Turn) -> list[Header]:
    named = [(b"x-noria-interaction", turn.id.encode())]
    if turn.served_by:
        named.append((b"x-noria-served-by", turn.served_by.encode("ascii", "replace")))
    return named


def _engine_fault(reply: Reply, body: bytes) -> NoriaError:
    """The engine's own status and message."""
    status = reply.status
    if status in (401, 403, 404):
        # These would tell the client that its own key or model is wrong.
        return EngineFault(502, f"the engine refused the gateway with status {status}: {_said(body)[0]}")
    if status < 400:
        return EngineFault(502, f"the engine answered with status {status}")
    message, kind = _said(body)
    return EngineFault(status, message, kind)


def _said(body: bytes) -> tuple[str, str]:
    """Message and type in an engine's error, in whichever of the usual shapes it has."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:500].decode(errors="replace").strip() or "the engine gave no reason", "engine_error"
    if isinstance(found, dict):
        inner = found.get("error", found)
        if isinstance(inner, str):
            return inner, "engine_error"
        if isinstance(inner, dict):
            kind = inner.get("type")
            message = inner.get("message") or inner.get("detail") or "the engine gave no reason"
            return str(message), kind if isinstance(kind, str) else "engine_error"
    return str(found)[:500], "engine_error"
