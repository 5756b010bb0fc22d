"""What a question means, as a vector, where a task finds its context so: asked of an encoder before the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from noria.errors import Unavailable
from noria.gateway.client import Pool, UpstreamError, target
from noria.ports import Meant
from noria.retrieval import PATH, request, vectors_of

if TYPE_CHECKING:
    from noria.gateway.ask import Ask
    from noria.gateway.record import Turn


async def meant(pool: Pool, turn: Turn, ask: Ask) -> None:
    """Note the question's vector; raises Unavailable where the encoder does not give it.

    The answer would be another without its context, so that there is none rather than that one.
    """
    live = turn.live
    task = live.task if live is not None else None
    if live is None or task is None or task.context is None or not task.context.vectors or not ask.api.chats:
        return
    endpoint = next((arm.arm.vectors for arm in live.arms if arm.arm.vectors is not None), None)
    question = ask.question()
    if question is None or ask.meant is not None:
        return
    name = task.context.engine or "encoder"
    if endpoint is None:
        if any(arm.index is not None for arm in live.arms):
            raise _away(name)
        return
    body = orjson.dumps(request(endpoint.model, [question]))
    try:
        place = dict(endpoint.paths).get(PATH)
        reply = await pool.post(target(endpoint.url, endpoint.key, place or PATH), body, stream=False)
        if reply.status != 200:
            raise _away(name)
        told = orjson.loads(reply.body or b"")
    except (UpstreamError, orjson.JSONDecodeError) as error:
        raise _away(name) from error
    (vector,) = vectors_of(told, 1, name)
    ask.meant = Meant(vector, task.context.by, task.context.rerank)


def _away(name: str) -> Unavailable:
    return Unavailable(f"engine '{name}', which finds the context, is not answering", "try again in a moment")
