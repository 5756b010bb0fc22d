"""One request from the client's words to the engine's answer, logged before it is complete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import orjson

from noria.errors import Invalid, NoriaError, NotFound, Unavailable
from noria.gateway.admission import unanswered
from noria.gateway.answers import Filter, Heard, read
from noria.gateway.ask import Api, Ask, Prepared
from noria.gateway.client import Pool, Reply, UpstreamError
from noria.gateway.demand import Demand
from noria.gateway.events import AnswerStream
from noria.gateway.guard import Guards, Refused
from noria.gateway.inflight import SWEEP_SECONDS, Inflight
from noria.gateway.limits import Ledger
from noria.gateway.meaning import meant
from noria.gateway.metrics import cause_of
from noria.gateway.record import GONE, Journal, Turn, pseudonym
from noria.gateway.routing import LiveArm, Replica, pick
from noria.gateway.shadow import Shadows
from noria.gateway.snapshot import Holder, SnapshotFile, View
from noria.gateway.spans import Tracing
from noria.gateway.wire import (
    INTERNAL,
    JSON,
    Caller,
    ClientGone,
    EngineFault,
    Header,
    error_body,
    error_headers,
)

PAUSES = (0.0, 0.2, 0.6, 1.2)
"""Seconds before each round of tries: two seconds in all, in which an engine can be replaced or come back."""

_EVENTS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_OBJECTS = {dict}
_LACKING = 501
"""An engine that lacks an endpoint is in good health."""


class Exchange:
    """Serves inference requests of every kind. `secret` keys the pseudonyms of users."""

    def __init__(
        self,
        snapshots: SnapshotFile,
        pool: Pool,
        journal: Journal,
        limits: Ledger,
        guards: Guards,
        secret: bytes,
        tracing: Tracing,
    ) -> None:
        self.inflight = Inflight()
        self.demand = Demand()
        self.shadows = Shadows(pool, journal)
        self._snapshots = snapshots
        self._pool = pool
        self._journal = journal
        self._limits = limits
        self._guards = guards
        self._secret = secret
        self._tracing = tracing

    async def serve(self, turn: Turn, api: Api, holder: Holder, headers: Mapping[bytes, bytes], caller: Caller) -> None:
        """Serve one request of an authenticated client. However it ends, its record is written before it has."""
        try:
            view = self._snapshots.current
            body = await caller.body(headers, view.rules.body_bytes)
            self.inflight.enter(turn, caller)
            ask = self._admit(turn, api, holder, body, headers, view)
            reply, first = await self._engine(turn, ask)
            if ask.stream:
                await self._stream(turn, ask, reply, first, caller)
            else:
                self._plain(turn, ask, reply, caller)
        except NoriaError as error:
            self._refuse(turn, error, caller)
        except ClientGone:
            _leave(turn)
        except asyncio.CancelledError:
            if turn.late:
                self._refuse(turn, EngineFault(504, "the deadline of the request has passed", "timeout"), caller)
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
                caller.answer(500, INTERNAL, [JSON, *_named(turn)])
            raise
        finally:
            if not turn.recorded:
                with suppress(Unavailable):
                    self._finish(turn)

    def _admit(
        self, turn: Turn, api: Api, holder: Holder, body: bytes, headers: Mapping[bytes, bytes], view: View
    ) -> Ask:
        """Check the request; what can be known of it is noted for the record first, also where it is refused."""
        found = api.read(body, turn.query)
        self._note(turn, found, headers)
        if not turn.model:
            turn.model = api.unnamed([each for each in view.open_to(holder) if view.live[each].task is not None])
        live = turn.live = view.live.get(turn.model)
        if live is None or not holder.may_ask(live):
            raise unanswered(turn.model, holder, view)
        turn.deadline = turn.began + view.rules.deadline
        if b"x-noria-timeout" in headers:
            turn.deadline = turn.began + min(_seconds(headers[b"x-noria-timeout"]), view.rules.deadline)
        ask = api.parse(found, view.rules, len(body))
        turn.stream = ask.stream
        if api.told:
            turn.messages = ask.messages or turn.messages
        if api.told and turn.messages:
            turn.request = {name: value for name, value in found.items() if name not in api.told}
        if ask.choices != 1:
            turn.heard = Heard(ask.choices)
        if live.inputs is not None:
            turn.findings = seen = list(turn.findings)
            self._guards.admit(api.texts(ask), live.inputs, seen)
        arm = turn.arm = live.choose(turn.user if live.by_user else turn.conversation)
        task = view.tasks.get(turn.model) if view.tasks else None
        if holder.subject.limited or task is not None:
            prompt, completion = ask.tokens(live)
            cost = arm.cost(prompt, completion)
            subjects = (holder.subject,) if task is None else (holder.subject, task)
            turn.reservation = self._limits.reserve(subjects, prompt + completion, cost, turn.seconds)
        return ask

    def _note(self, turn: Turn, found: dict[str, Any], headers: Mapping[bytes, bytes]) -> None:
        messages = found.get("messages")
        if isinstance(messages, list) and {*map(type, messages)} <= _OBJECTS:
            turn.messages = messages
        turn.request = found
        model = found.get("model")
        if isinstance(model, str):
            turn.model = model
        turn.stream = found.get("stream") is True
        if found.get("store") is False or (b"x-noria-train" in headers and headers[b"x-noria-train"].lower() == b"no"):
            turn.trainable = False
        user, metadata = found.get("user"), found.get("metadata")
        if isinstance(user, str) and user:
            turn.user = pseudonym(self._secret, user)
        if isinstance(metadata, dict) and isinstance(metadata.get("conversation"), str):
            turn.conversation = metadata["conversation"] or turn.id

    async def _engine(self, turn: Turn, ask: Ask) -> tuple[Reply, bytes]:
        """An engine's answer with status 200 and, of a stream, its first piece.

        As long as the client has seen nothing, a try that failed costs it only time. Of a fault that another engine
        may not have, the next one is asked; of any other, the client is told.
        """
        fault: NoriaError | None = None
        await meant(self._pool, turn, ask)
        for pause in PAUSES:
            if pause:
                await asyncio.sleep(pause)
            if pause or turn.arm is None or not turn.arm.replicas:
                await self.demand.met(turn, self._snapshots)
            for arm, replica, prepared in self._round(turn, ask, last=pause == PAUSES[-1]):
                turn.arm, turn.replica = arm, replica
                turn.context, turn.sources = prepared.context, prepared.sources
                replica.outstanding += 1
                breaker = replica.breaker
                breaker.sent()
                trace = turn.trace if turn.span is None else self._tracing.asked(turn.span, replica)
                try:
                    reply = await self._pool.post(
                        replica.target(ask.api.path), prepared.body, stream=ask.stream, trace=trace
                    )
                    if reply.status == 200:
                        first = await reply.more() if ask.stream else b""
                        breaker.succeeded()
                        return reply, first
                    fault = ask.api.fault(reply.status, await reply.read(), turn.engine)
                    (breaker.failed if reply.status >= 500 and reply.status != _LACKING else breaker.succeeded)()
                    if not fault.passing:
                        raise fault
                except UpstreamError as error:
                    breaker.failed(error.slow)
                    fault = _unreachable(error)
                except asyncio.CancelledError:
                    if turn.late:
                        breaker.failed(hung=True)
                    else:
                        breaker.dropped()
                    raise
                _release(turn)
            if fault is not None and fault.status != 503:
                break
        raise fault or Unavailable("the engine is not answering", "try again in a moment")

    def _round(self, turn: Turn, ask: Ask, last: bool) -> Iterator[tuple[LiveArm, Replica, Prepared]]:
        """What to try, one after the other: replicas of the arm, then those of the fallbacks.

        Each round takes the route that is current then, so that an engine that is replaced or restarted drops nothing.
        """
        live = self._snapshots.current.live.get(turn.model)
        if live is None:
            raise NotFound(f"model '{turn.model}' is gone", "ask for one that GET /v1/models names")
        turn.live = live
        for arm in (live.choose(turn.user if live.by_user else turn.conversation), *live.fallbacks):
            tried: list[Replica] = []
            prepared = None
            self.demand.asked[arm.arm.engine] = turn.seconds
            while (replica := pick(arm.replicas, ask.prefix, tried, last)) is not None:
                tried.append(replica)
                if prepared is None:
                    prepared = ask.api.prepare(live, arm, ask)
                    if live.shadows:
                        self.shadows.mirror(turn, ask, live)
                yield arm, replica, prepared

    def _plain(self, turn: Turn, ask: Ask, reply: Reply, caller: Caller) -> None:
        body = reply.body or b""
        if ask.api.generates:
            tasked = turn.live is not None and turn.live.task is not None
            filtered = self._outgoing(turn)
            document = read(body, turn.heard, turn.model, tasked and ask.api.chats, _open(ask, filtered), filtered)
            told = ask.api.render(document, ask, turn)
            noria = self._light(turn, ask)
            body = orjson.dumps(told if noria is None else {**told, "noria": noria})
        else:
            body = ask.api.relay(body, ask, turn)
        turn.ended(200, None)
        self._finish(turn)
        turn.started = True
        caller.answer(200, body, [JSON, *_named(turn)])

    async def _stream(self, turn: Turn, ask: Ask, reply: Reply, first: bytes, caller: Caller) -> None:
        tasked = turn.live is not None and turn.live.task is not None
        filtered = self._outgoing(turn)
        stream = ask.api.stream(ask, turn, tasked and ask.api.chats, _open(ask, filtered), filtered)
        turn.broken = stream.broken
        pass_on = self._sink(turn, stream, caller)
        try:
            pass_on(first)
            while not stream.over:
                if (room := caller.room) is not None:
                    await room
                if await reply.pump(pass_on):
                    break
        except UpstreamError as error:
            if turn.replica is not None:
                turn.replica.breaker.failed(error.slow)
            # After the finish reason nothing is missing but the usage.
            if not stream.complete:
                status = 504 if error.slow else 502
                raise EngineFault(status, f"the engine's answer broke off: {error}") from error
        finally:
            (reply.finish if stream.done else reply.close)()
        if stream.refused is not None:
            self._cut(turn, stream, stream.refused, caller)
        if not stream.complete:
            raise EngineFault(502, stream.error or "the engine's answer broke off")
        turn.ended(200, None)
        noria = self._light(turn, ask)
        self._finish(turn)
        self._start(turn, caller)
        caller.end(stream.tail(noria))

    def _sink(self, turn: Turn, stream: AnswerStream, caller: Caller) -> Callable[[bytes], bool]:
        """What takes the engine's pieces and passes them on; it returns whether more may come at once."""

        def pass_on(piece: bytes) -> bool:
            out = stream.feed(piece)
            if out:
                if not turn.started:
                    self._start(turn, caller)
                caller.write(out)
            if turn.first_token_seconds is None and turn.heard.begun:
                turn.first_token_seconds = turn.elapsed()
            return not stream.over and caller.room is None

        return pass_on

    def _cut(self, turn: Turn, stream: AnswerStream, refused: Refused, caller: Caller) -> None:
        """End a stream of which a guard lets nothing more pass: logged first, then told, by raising what it said."""
        turn.heard.finish_reason = "content_filter"
        turn.ended(refused.status, refused.fact, cause_of(refused))
        self._finish(turn)
        if turn.started and (last := stream.cut_off()):
            caller.write(last)
        raise refused

    def _light(self, turn: Turn, ask: Ask) -> Mapping[str, Any] | None:
        """Judge an answer where the task has lights; of several answers to one request none has a light of its own."""
        live = turn.live
        if live is None or live.lights is None or not ask.api.chats or ask.choices != 1:
            return None
        return live.lights.judge(turn, None if live.outputs is None else self._guards.sieves(live.outputs, []))

    def _outgoing(self, turn: Turn) -> Filter | None:
        rules = turn.live.outputs if turn.live is not None else None
        if rules is None:
            return None
        turn.findings = seen = list(turn.findings)
        return self._guards.sieves(rules, seen)

    def _start(self, turn: Turn, caller: Caller) -> None:
        if not turn.started:
            turn.started = True
            caller.begin((*_EVENTS, *_named(turn)))

    def _refuse(self, turn: Turn, error: NoriaError, caller: Caller) -> None:
        """Tell the client of an error, inside the stream when that has begun."""
        if not turn.recorded:
            turn.ended(error.status, error.fact, cause_of(error))
            try:
                self._finish(turn)
            except Unavailable as unlogged:
                error = unlogged
        if turn.started:
            caller.end(turn.broken(error))
        else:
            names = _named(turn) if turn.logged else []
            caller.answer(error.status, error_body(error), [*error_headers(error), *names])

    def _finish(self, turn: Turn) -> None:
        """Write the record and settle; the request no longer counts as in flight and can no longer be given up."""
        try:
            self._journal.finish(turn)
        finally:
            self.inflight.leave(turn)
            _release(turn)
            if turn.reservation is not None and turn.reservation.open:
                self._limits.settle(turn.reservation, sum(turn.tokens), turn.cost or 0.0)


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
        named.append((b"x-noria-served-by", turn.arm.name))
    if turn.light is not None:
        named.append((b"x-noria-light", turn.light.encode()))
    return named


def _open(ask: Ask, filtered: Filter | None) -> bool:
    """Whether log-probabilities may be sent: they name every token, those that a guard takes out too."""
    return ask.logprobs and filtered is None


def _seconds(wanted: bytes) -> float:
    try:
        seconds = float(wanted)
    except ValueError:
        seconds = 0.0
    if not seconds >= SWEEP_SECONDS:
        # Nobody looks more often, and with less no engine could answer.
        raise Invalid(
            f"'x-noria-timeout' is '{wanted.decode(errors='replace')}'", f"send seconds, {SWEEP_SECONDS} at least"
        )
    return seconds


def _unreachable(error: UpstreamError) -> NoriaError:
    if error.slow:
        return EngineFault(504, f"the engine gave no answer: {error}", "timeout")
    return Unavailable(f"the engine cannot be reached: {error}", "try again in a moment")
