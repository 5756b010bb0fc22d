"""One request from the client's words to the engine's answer, logged before it is complete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import orjson

from noria.errors import Denied, Invalid, NoriaError, NotFound, Unavailable
from noria.gateway.answers import Heard, read
from noria.gateway.ask import Api, Ask
from noria.gateway.client import Pool, Reply, UpstreamError
from noria.gateway.events import AnswerStream
from noria.gateway.faults import engine_fault
from noria.gateway.guard import Guards
from noria.gateway.inflight import Inflight
from noria.gateway.limits import Ledger
from noria.gateway.metrics import cause_of
from noria.gateway.record import GONE, Journal, Turn, pseudonym
from noria.gateway.routing import Live, LiveArm, Replica, pick
from noria.gateway.shadow import Shadows
from noria.gateway.snapshot import Holder, SnapshotFile
from noria.gateway.spans import Tracing
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
from noria.ports import Clock

PAUSES = (0.0, 0.2, 0.6, 1.2)
"""Seconds before each round of tries: two seconds in all, in which an engine can be replaced or come back."""

_EVENTS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_TEMPORARY = (502, 503, 504)


class Exchange:
    """Serves inference requests of every kind. `secret` keys the pseudonyms of users."""

    def __init__(
        self,
        snapshots: SnapshotFile,
        pool: Pool,
        journal: Journal,
        limits: Ledger,
        guards: Guards,
        clock: Clock,
        secret: bytes,
        tracing: Tracing,
    ) -> None:
        self.inflight = Inflight()
        self.shadows = Shadows(pool, journal)
        self._snapshots = snapshots
        self._pool = pool
        self._journal = journal
        self._limits = limits
        self._guards = guards
        self._clock = clock
        self._secret = secret
        self._tracing = tracing

    async def serve(
        self, turn: Turn, api: Api, holder: Holder, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        """Serve one request of an authenticated client. However it ends, its record is written before it has."""
        try:
            body = await read_body(headers, receive, self._snapshots.current.rules.body_bytes)
            self.inflight.enter(turn, receive)
            ask = self._admit(turn, api, holder, body, headers)
            reply, first = await self._engine(turn, ask)
            if ask.stream:
                await self._stream(turn, ask, reply, first, send)
            else:
                await self._plain(turn, ask, reply, send)
        except NoriaError as error:
            await self._refuse(turn, error, send)
        except ClientGone:
            _leave(turn)
        except asyncio.CancelledError:
            if turn.late:
                await self._refuse(turn, EngineFault(504, "the deadline of the request has passed", "timeout"), send)
            elif turn.gone:
                _leave(turn)
            else:
                # The server gives up on what it could not drain.
                turn.ended(503, "the gateway was stopped", "stopped")
                raise
        except Exception:
            # The server logs the fault; the client gets it in the shape that it can read.
            with suppress(Unavailable):
                self._finish(turn)
            if not turn.started:
                turn.started = True
                await answer(send, 500, INTERNAL, [JSON, *_named(turn)])
            raise
        finally:
            with suppress(Unavailable):
                self._finish(turn)

    def _admit(self, turn: Turn, api: Api, holder: Holder, body: bytes, headers: Mapping[bytes, bytes]) -> Ask:
        """Check the request; what can be known of it is noted for the record first, also where it is refused."""
        found = read_object(body)
        self._note(turn, found, headers)
        view = self._snapshots.current
        live = self._route(turn, holder)
        turn.deadline = turn.began + _deadline(headers, view.rules.deadline)
        ask = api.parse(found, view.rules, len(body))
        turn.stream = ask.stream
        if ask.choices != 1:
            turn.heard = Heard(ask.choices)
        task = view.tasks.get(turn.model)
        subjects = (holder.subject,) if task is None else (holder.subject, task)
        if live.task is not None and live.task.guards.input:
            turn.findings += self._guards.admit(ask.texts, live.task.guards.input)
        arm = live.choose(turn.user if live.task is None or live.task.sticky == "user" else turn.conversation)
        tokens = ask.tokens(live)
        turn.reservation = self._limits.reserve(subjects, tokens, arm.cost(tokens, 0), self._clock.now().timestamp())
        turn.arm = arm
        return ask

    def _note(self, turn: Turn, found: dict[str, Any], headers: Mapping[bytes, bytes]) -> None:
        messages = found.get("messages")
        if isinstance(messages, list):
            turn.messages = [each for each in messages if isinstance(each, dict)]
        turn.request = {name: value for name, value in found.items() if name not in ("messages", "user")}
        model = found.get("model")
        turn.model = model if isinstance(model, str) else ""
        turn.stream = found.get("stream") is True
        turn.trainable = found.get("store") is not False and headers.get(b"x-noria-train", b"").lower() != b"no"
        user, metadata = found.get("user"), found.get("metadata")
        if isinstance(user, str) and user:
            turn.user = pseudonym(self._secret, user)
        if isinstance(metadata, dict) and isinstance(metadata.get("conversation"), str):
            turn.conversation = metadata["conversation"] or turn.id

    def _route(self, turn: Turn, holder: Holder | None = None) -> Live:
        view = self._snapshots.current
        found = view.live.get(turn.model)
        if found is None:
            raise NotFound(f"there is no model '{turn.model}'", f"known are: {', '.join(sorted(view.live)) or 'none'}")
        turn.live = found
        if holder is not None:
            grant = holder.grant
            if grant.models and turn.model not in grant.models:
                raise Denied(f"key '{grant.name}' may not ask '{turn.model}'", f"it may ask: {', '.join(grant.models)}")
            if found.task is None and grant.role == "user":
                raise Denied(f"a key of role 'user' may ask tasks only, not '{turn.model}'", "use a developer's key")
        return found

    async def _engine(self, turn: Turn, ask: Ask) -> tuple[Reply, bytes]:
        """An engine's answer with status 200 and, of a stream, its first piece.

        As long as the client has seen nothing, a try that failed costs it only time: each round takes the route that
        is current then, so that an engine that is replaced or restarted drops nothing.
        """
        fault: NoriaError = Unavailable("the engine is not answering", "try again in a moment")
        for pause in PAUSES:
            if pause:
                await asyncio.sleep(pause)
            live = self._route(turn)
            first = live.choose(turn.user if live.task is None or live.task.sticky == "user" else turn.conversation)
            for arm in (first, *live.fallbacks):
                found = await self._arm(turn, ask, live, arm, last=pause == PAUSES[-1])
                if isinstance(found, tuple):
                    return found
                fault = found or fault
            if fault.status != 503:
                break
        raise fault

    async def _arm(
        self, turn: Turn, ask: Ask, live: Live, arm: LiveArm, last: bool
    ) -> tuple[Reply, bytes] | NoriaError | None:
        """An answer of one of the arm's replicas, or why there is none; None when all of them are left alone.

        Raises what no other engine would answer better.
        """
        fault: NoriaError | None = None
        tried: list[Replica] = []
        prepared = None
        while (replica := pick(arm.replicas, ask.prefix, tried, last)) is not None:
            tried.append(replica)
            if prepared is None:
                prepared = ask.api.prepare(live, arm, ask)
                turn.arm, turn.context = arm, prepared.context
                self.shadows.mirror(turn, ask, live)
            try:
                return await self._ask(turn, ask, replica, prepared.body)
            except UpstreamError as error:
                if error.slow:
                    fault = EngineFault(504, f"the engine gave no answer: {error}", "timeout")
                else:
                    fault = Unavailable(f"the engine cannot be reached: {error}", "try again in a moment")
            except EngineFault as error:
                if error.status not in _TEMPORARY:
                    raise
                fault = error
        return fault

    async def _ask(self, turn: Turn, ask: Ask, replica: Replica, body: bytes) -> tuple[Reply, bytes]:
        breaker = replica.breaker
        breaker.sent()
        replica.outstanding += 1
        turn.replica = replica
        trace = turn.trace if turn.span is None else self._tracing.asked(turn.span, replica)
        try:
            reply = await self._pool.post(replica.target(ask.api.path), body, stream=ask.stream, trace=trace)
            if reply.status == 200:
                first = await reply.more() if ask.stream else b""
                breaker.succeeded()
                return reply, first
            fault = engine_fault(reply.status, await reply.read())
        except UpstreamError as error:
            breaker.failed(error.slow)
            _release(turn)
            raise
        except asyncio.CancelledError:
            if turn.late:
                breaker.failed(hung=True)
            else:
                breaker.dropped()
            raise
        (breaker.failed if reply.status >= 500 else breaker.succeeded)()
        _release(turn)
        raise fault

    async def _plain(self, turn: Turn, ask: Ask, reply: Reply, send: Send) -> None:
        body = reply.body or b""
        if ask.api.generates:
            tasked = turn.live is not None and turn.live.task is not None
            document = read(
                body, turn.heard, turn.model, tasked and ask.api.name == "chat", ask.logprobs, self._outgoing(turn)
            )
            body = orjson.dumps(document)
        else:
            turn.heard.usage(_object(body))
        turn.ended(200, None)
        self._finish(turn)
        turn.started = True
        await answer(send, 200, body, [JSON, *_named(turn)])

    async def _stream(self, turn: Turn, ask: Ask, reply: Reply, first: bytes, send: Send) -> None:
        tasked = turn.live is not None and turn.live.task is not None
        stream = AnswerStream(
            turn.heard, turn.model, ask.usage, strip=tasked and ask.api.name == "chat", logprobs=ask.logprobs
        )
        piece = first
        try:
            while piece and not stream.done and stream.error is None:
                out = stream.feed(piece)
                if turn.first_token_seconds is None and turn.heard.begun:
                    turn.first_token_seconds = turn.elapsed()
                if out:
                    if not turn.started:
                        await self._start(turn, send)
                    await send({"type": "http.response.body", "body": out, "more_body": True})
                if not stream.done:
                    piece = await reply.more()
        except UpstreamError as error:
            if turn.replica is not None:
                turn.replica.breaker.failed(error.slow)
            # After the finish reason nothing is missing but the usage.
            if not stream.complete:
                status = 504 if error.slow else 502
                raise EngineFault(status, f"the engine's answer broke off: {error}") from error
        finally:
            (reply.finish if stream.done else reply.close)()
        if not stream.complete:
            raise EngineFault(502, stream.error or "the engine's answer broke off")
        turn.ended(200, None)
        self._finish(turn)
        await self._start(turn, send)
        await send({"type": "http.response.body", "body": stream.tail()})

    def _outgoing(self, turn: Turn) -> Callable[[int, str], str] | None:
        rules = turn.live.task.guards.output if turn.live is not None and turn.live.task is not None else {}
        if not rules:
            return None

        def filtered(number: int, text: str) -> str:
            said, findings = self._guards.release(text, rules)
            turn.findings += findings
            return said

        return filtered

    async def _start(self, turn: Turn, send: Send) -> None:
        if not turn.started:
            turn.started = True
            await send({"type": "http.response.start", "status": 200, "headers": [*_EVENTS, *_named(turn)]})

    async def _refuse(self, turn: Turn, error: NoriaError, send: Send) -> None:
        """Tell the client of an error, inside the stream when that has begun."""
        if not turn.recorded:
            turn.ended(error.status, error.fact, cause_of(error))
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
        """Write the record and settle; the request no longer counts as in flight and can no longer be given up."""
        try:
            self._journal.finish(turn)
        finally:
            self.inflight.leave(turn)
            _release(turn)
            if turn.reservation is not None and turn.reservation.open:
                self._limits.settle(turn.reservation, sum(turn.tokens), turn.cost() or 0.0)


def _leave(turn: Turn) -> None:
    if not turn.recorded:
        turn.ended(GONE, "the client left", "client_left")


def _release(turn: Turn) -> None:
    replica, turn.replica = turn.replica, None
    if replica is not None:
        replica.outstanding -= 1


def _named(turn: Turn) -> list[Header]:
    named = [(b"x-noria-interaction", turn.id.encode())]
    if turn.arm is not None:
        named.append((b"x-noria-served-by", turn.served_by.encode("ascii", "replace")))
    if turn.light is not None:
        named.append((b"x-noria-light", turn.light.encode()))
    return named


def _deadline(headers: Mapping[bytes, bytes], most: float) -> float:
    wanted = headers.get(b"x-noria-timeout")
    if wanted is None:
        return most
    try:
        seconds = float(wanted)
    except ValueError:
        seconds = 0.0
    if not seconds > 0.0:
        raise Invalid(f"'x-noria-timeout' is '{wanted.decode(errors='replace')}'", "send seconds, such as 30")
    return min(seconds, most)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise EngineFault(502, "the engine's answer is not JSON") from error
    return found if isinstance(found, dict) else {}
