"""Shadows: a copy of a request goes to another arm too; its answer is logged and thrown away."""

from __future__ import annotations

import asyncio
from typing import Any

from noria.errors import NoriaError
from noria.gateway.answers import Heard, read
from noria.gateway.ask import Ask
from noria.gateway.client import Pool, UpstreamError
from noria.gateway.faults import engine_fault
from noria.gateway.metrics import cause_of
from noria.gateway.record import Journal, Turn
from noria.gateway.routing import Live, LiveArm, pick
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
        if not live.shadows or turn.mirrored:
            return
        turn.mirrored = True
        arm = live.shadow(turn.id)
        if arm is None or not ask.api.generates:
            return
        if len(self._tasks) >= MOST:
            self._journal.metrics.count("shadows_left_out")
            return
        copy = Turn(
            new_id(turn.at),
            turn.at,
            turn.api,
            turn.user,
            turn.key,
            turn.conversation,
            trainable=False,
            model=turn.model,
        )
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
        replica.breaker.sent()
        replica.outstanding += 1
        try:
            plain = _unstreamed(ask)
            prepared = ask.api.prepare(live, arm, plain)
            copy.context = prepared.context
            reply = await self._pool.post(replica.target(ask.api.path), prepared.body, stream=False)
            if reply.status != 200:
                raise engine_fault(reply.status, await reply.read())
            read(reply.body or b"", copy.heard, copy.model, live.task is not None, True, None)
            replica.breaker.succeeded()
            copy.ended(200, None)
        except UpstreamError as error:
            replica.breaker.failed()
            copy.ended(502, str(error), "unavailable")
        except NoriaError as error:
            copy.ended(error.status, error.fact, cause_of(error))
        finally:
            replica.outstanding -= 1
            self._journal.finish(copy)


def _unstreamed(ask: Ask) -> Ask:
    body: dict[str, Any] = {name: value for name, value in ask.body.items() if name not in ("stream", "stream_options")}
    return Ask(
        ask.api, body, ask.messages, ask.texts, max_tokens=ask.max_tokens, choices=ask.choices, stop=ask.stop,
        logprobs=ask.logprobs, size=ask.size,
    )  # fmt: skip
