"""The gateway as an ASGI application: who may come in, and which path leads where."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import suppress

import orjson

from noria.errors import Denied, NoriaError, NotFound
from noria.gateway.chat import Chat
from noria.gateway.client import Limits, Pool
from noria.gateway.feedback import FeedbackDesk
from noria.gateway.inflight import Inflight
from noria.gateway.metrics import CONTENT_TYPE, Metrics
from noria.gateway.record import Journal, Turn, pseudonym
from noria.gateway.snapshot import SnapshotFile
from noria.gateway.wire import (
    ClientGone,
    Receive,
    Scope,
    Send,
    WrongMethod,
    answer,
    error_body,
    error_headers,
    read_body,
    read_object,
)
from noria.ports import Clock, Recorder
from noria.types import new_id

_METHODS = {"/health": "GET", "/metrics": "GET", "/models": "GET", "/chat/completions": "POST", "/feedback": "POST"}


class Gateway:
    """The data plane: an ASGI 3 application (https://asgi.readthedocs.io) for HTTP and lifespan."""

    def __init__(
        self,
        snapshots: SnapshotFile,
        journal: Journal,
        metrics: Metrics,
        pool: Pool,
        clock: Clock,
        secret: bytes,
    ) -> None:
        self._snapshots = snapshots
        self._metrics = metrics
        self._pool = pool
        self._clock = clock
        self._secret = secret
        self._pseudonyms: dict[str, str] = {}
        self._inflight = Inflight()
        self._chat = Chat(snapshots, pool, journal, self._inflight, secret)
        self._feedback = FeedbackDesk(journal, clock, secret)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Of ASGI."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._route(scope, receive, send)
        except NoriaError as error:
            self._metrics.refused.labels(str(error.status)).inc()
            headers = error_headers(error)
            if isinstance(error, WrongMethod):
                headers.append((b"allow", _METHODS[_path(scope)].encode()))
            await answer(send, error.status, error_body(error), headers)
        except ClientGone:
            return

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope)
        method = _METHODS.get(path)
        if method is None:
            raise NotFound(
                f"there is no path '{scope['path']}'", "known are: /v1/chat/completions, /v1/models, /v1/feedback"
            )
        if scope["method"] != method:
            raise WrongMethod(f"'{scope['path']}' does not take {scope['method']}", f"use {method}")
        if path == "/health":
            await answer(send, 200, self._health())
        elif path == "/metrics":
            body = self._metrics.expose(self._inflight.counts(), self._snapshots.current.snapshot.version)
            await answer(send, 200, body, [(b"content-type", CONTENT_TYPE)])
        else:
            await self._with_key(path, dict(scope["headers"]), receive, send)

    async def _with_key(self, path: str, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        name = self._key_name(headers)
        if path == "/chat/completions":
            at = self._clock.now()
            identity = new_id(at)
            turn = Turn(identity, at, user=self._pseudonym(name), conversation=identity)
            await self._chat.serve(turn, headers, receive, send)
        elif path == "/models":
            await answer(send, 200, self._models())
        else:
            body = read_object(await read_body(headers, receive))
            await answer(send, 200, orjson.dumps({"id": self._feedback.take(body, name)}))

    def _key_name(self, headers: Mapping[bytes, bytes]) -> str:
        """Name of the caller's key; raises Denied. Nobody is let in under another name."""
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise Denied("no API key was sent", "send the header 'authorization: Bearer KEY'")
        holder = self._snapshots.current.snapshot.keys.get(hashlib.sha256(key.strip()).hexdigest())
        if holder is None:
            raise Denied("the API key is not known here, or was revoked", "list the live ones: noria keys list")
        return holder.partition(":")[2]

    def _pseudonym(self, name: str) -> str:
        found = self._pseudonyms.get(name)
        if found is None:
            found = self._pseudonyms[name] = pseudonym(self._secret, name)
        return found

    def _health(self) -> bytes:
        version = self._snapshots.current.snapshot.version
        return orjson.dumps({"status": "ok", "snapshot": version, "inflight": self._inflight.counts()})

    def _models(self) -> bytes:
        models = [
            {"id": task, "object": "model", "created": 0, "owned_by": "noria"}
            for task in sorted(self._snapshots.current.snapshot.routes)
        ]
        return orjson.dumps({"object": "list", "data": models})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        follower = asyncio.create_task(self._snapshots.follow())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower
        self._pool.close()
        await send({"type": "lifespan.shutdown.complete"})


def build(
    snapshots: SnapshotFile, recorder: Recorder, clock: Clock, secret: bytes, limits: Limits | None = None
) -> Gateway:
    """Put a gateway together. `secret` keys the pseudonyms of users; the caller closes the recorder at the end."""
    metrics = Metrics()
    return Gateway(snapshots, Journal(recorder, metrics), metrics, Pool(limits), clock, secret)


def _path(scope: Scope) -> str:
    path = str(scope["path"])
    return path[3:] if path.startswith("/v1/") else path
