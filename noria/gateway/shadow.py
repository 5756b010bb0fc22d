"""Shadows: a copy of a request goes to another arm too; its answer is logged and thrown away."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from noria.errors import NoriaError, Unavailable
from noria.gateway.answers import Heard, read
from noria.gateway.ask import Ask
from noria.gateway.client import Pool, Reply, UpstreamError
from noria.gateway.faults import engine_fault
from noria.gateway.metrics import cause_of
from noria.gateway.record import Journal, Turn
from noria.gateway.routing import Live, LiveArm, Replica, pick
from noria.types import new_id

MOST = 64
"""Shadow requests in flight; further ones are left out, since no shadow may slow what it shadows."""


class Shadows:
    """Sends the copies. Those that are not sent because there are too many are counted."""

    def __init__(self, pool: Pool, journal: Journal) -> None:
        self._pool = pool
        self._journal = journal
        self._tasks: set[asyncio.Task[None]] = set()

    def mirror(self, turn: Turn, ask: Ask, live: Live) -> None:
        """Begin to ask a shadow, if the route has one for this request and it has not been asked yet."""
        if turn.mirrored:
            return
        turn.mirrored = True
        arm = live.shadow(turn.id)
        if arm is None or not ask.api.generates:
            return
        if len(self._tasks) >= MOST:
            self._journal.metrics.count("shadows_left_out")
            return
        copy = Turn(new_id(turn.at), turn.at, turn.seconds, turn.api, turn.user, turn.key)
        copy.conversation, copy.model, copy.trainable = turn.conversation, turn.model, False
        copy.live, copy.messages = live, turn.messages
        copy.request = {**turn.request, "shadow_of": turn.id}
        task = asyncio.create_task(self._ask(copy, ask, live, arm))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, copy: Turn, ask: Ask, live: Live, arm: LiveArm) -> None:
        replica = pick(arm.replicas, ask.prefix, ())
        if replica is None:
            return
        copy.arm, copy.heard = arm, Heard(ask.choices)
        replica.outstanding += 1
        try:
            prepared = ask.api.prepare(live, arm, _unstreamed(ask))
            copy.context, copy.sources = prepared.context, prepared.sources
            reply = await self._post(replica, ask.api.path, prepared.body)
            if reply.status != 200:
                raise engine_fault(reply.status, await reply.read())
            read(reply.body or b"", copy.heard, copy.model, live.task is not None and ask.api.chats, True, None)
            copy.ended(200, None)
        except UpstreamError as error:
            copy.ended(502, str(error), "unavailable")
        except NoriaError as error:
            copy.ended(error.status, error.fact, cause_of(error))
        finally:
            replica.outstanding -= 1
            # A record that the disk refuses is counted; nobody waits for the answer that it would withhold.
            with suppress(Unavailable):
                self._journal.finish(copy)

    async def _post(self, replica: Replica, path: str, body: bytes) -> Reply:
        """Ask, and tell the breaker how it went, whatever that was: a probe without an outcome would block it."""
        replica.breaker.sent()
        try:
            reply = await self._pool.post(replica.target(path), body, stream=False)
        except UpstreamError as error:
            replica.breaker.failed(error.slow)
            raise
        except asyncio.CancelledError:
            replica.breaker.dropped()
            raise
        (replica.breaker.failed if reply.status >= 500 else replica.breaker.succeeded)()
        return reply


def _unstreamed(ask: Ask) -> Ask:
    body: dict[str, Any] = {name: value for name, value in ask.body.items() if name not in ("stream", "stream_options")}
    plain = Ask(ask.api, body, ask.size)
    plain.messages, plain.max_tokens, plain.choices = ask.messages, ask.max_tokens, ask.choices
    plain.stop, plain.logprobs, plain.meant = ask.stop, ask.logprobs, ask.meant
    return plain
