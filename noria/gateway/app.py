"""The gateway as an ASGI application: who may come in, and which path leads where."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

import orjson

from noria.errors import Denied, NoriaError, NotFound, Unavailable
from noria.gateway import openapi
from noria.gateway.ask import Api
from noria.gateway.batch.api import Call, Desk
from noria.gateway.batch.files import FileStore
from noria.gateway.batch.store import BatchStore
from noria.gateway.batch.work import BatchWork
from noria.gateway.client import Pool
from noria.gateway.endpoints import APIS
from noria.gateway.exchange import Exchange
from noria.gateway.feedback import FeedbackDesk
from noria.gateway.guard import Guards, Watch
from noria.gateway.limits import Ledger
from noria.gateway.metrics import CONTENT_TYPE, Metrics, State
from noria.gateway.record import BATCH, Ids, Journal, Turn, pseudonym
from noria.gateway.routing import Live
from noria.gateway.snapshot import Holder, SnapshotFile
from noria.gateway.spans import Exporter, Tracing
from noria.gateway.wire import (
    CALLER,
    Caller,
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
from noria.gateway.workers import Worker
from noria.guards import injection, personal, secrets, unsafe
from noria.ports import Clock, Recorder
from noria.settings import Detector

_DESCRIPTION = "/openapi.json"
_METHODS = {
    "/health": "GET", "/ready": "GET", "/metrics": "GET", _DESCRIPTION: "GET", "/models": "GET", "/feedback": "POST",
}  # fmt: skip
_HOT: Mapping[str, Api] = {**APIS, **{f"/v1{path}": api for path, api in APIS.items()}}
_MODEL = "/models/"
_STORED = ("/files", "/batches")
_OPEN = ("/health", "/ready", "/metrics", _DESCRIPTION)
"""Paths without a key: they tell nothing of anybody."""
_DETECTORS: Mapping[Detector, Watch] = {
    "personal": Watch(personal.find, personal.REACH, personal.BEHIND),
    "secrets": Watch(secrets.find, secrets.REACH, secrets.BEHIND),
    "injection": Watch(injection.find, injection.REACH, injection.BEHIND),
    "unsafe": Watch(unsafe.find, unsafe.REACH, unsafe.BEHIND),
}
_TRACE = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the workers this is: its number, from 0, and the folder where they tell each other how they are."""

    folder: Path
    number: int = 0


class Gateway:
    """The data plane: an ASGI 3 application (https://asgi.readthedocs.io) for HTTP and lifespan."""

    def __init__(
        self,
        snapshots: SnapshotFile,
        exchange: Exchange,
        journal: Journal,
        metrics: Metrics,
        pool: Pool,
        clock: Clock,
        secret: bytes,
        tracing: Tracing,
        place: Place,
    ) -> None:
        self._snapshots = snapshots
        self._exchange = exchange
        self._metrics = metrics
        self._pool = pool
        self._clock = clock
        self._secret = secret
        self._ids = Ids()
        self._pseudonyms: dict[str, str] = {}
        self._feedback = FeedbackDesk(journal, clock, secret)
        self._tracing = tracing
        self._worker = Worker(place.folder, place.number, metrics, self._state)
        state = snapshots.path.parent
        files, batches = FileStore(state / "files"), BatchStore(state / "batches")
        self._batches = BatchWork(
            batches, files, snapshots, self._line, exchange.inflight, self._worker.elsewhere, clock
        )
        self._desk = Desk(files, batches, clock, self._batches.wake)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Of ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        if scope["type"] != "http":
            return
        api = _HOT.get(scope["path"])
        try:
            if api is not None and scope["method"] == "POST":
                await self._infer(api, scope)
            else:
                await self._other(_path(scope), scope, receive, send)
        except NoriaError as error:
            self._metrics.refused(error.status)
            headers = error_headers(error)
            if isinstance(error, WrongMethod):
                headers.append((b"allow", error.allow.encode()))
            await answer(send, error.status, error_body(error), headers)
        except ClientGone:
            return

    async def _infer(self, api: Api, scope: Scope) -> None:
        headers = dict(scope["headers"])
        holder = self._holder(headers)
        turn = self._turn(api.name, holder)
        turn.query = scope.get("query_string", b"")
        trace = headers.get(b"traceparent")
        if trace is not None and _TRACE.fullmatch(trace):
            turn.trace = trace.decode()
        if self._tracing.on:
            turn.route = f"/v1{api.path}"
            self._tracing.begin(turn)
        await self._exchange.serve(turn, api, holder, headers, scope["extensions"][CALLER])

    async def _line(self, api: Api, holder: Holder, headers: Mapping[bytes, bytes], caller: Caller) -> None:
        """Serve a line of a batch, like any other request."""
        turn = self._turn(f"{BATCH}{api.name}", holder)
        if self._tracing.on:
            turn.route = "/v1/batches"
            self._tracing.begin(turn)
        await self._exchange.serve(turn, api, holder, headers, caller)

    def _turn(self, api: str, holder: Holder) -> Turn:
        at = self._clock.now()
        seconds = at.timestamp()
        return Turn(self._ids.make(seconds), at, seconds, api, self._pseudonym(holder.grant.name), holder.grant.id)

    async def _other(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        if path.startswith(_STORED):
            await self._stored(path, scope, receive, send)
            return
        method = _method(path)
        if method is None:
            known = ", ".join(f"/v1{each}" for each in (*APIS, "/models", "/feedback", "/files", "/batches"))
            raise NotFound(f"there is no path '{scope['path']}'", f"known are: {known}")
        if scope["method"] != method:
            raise WrongMethod(f"'{scope['path']}' does not take {scope['method']}", f"use {method}", allow=method)
        if path in _OPEN:
            await self._open(path, send)
            return
        headers = dict(scope["headers"])
        holder = self._holder(headers)
        if path == "/models":
            await answer(send, 200, self._models(holder))
        elif path.startswith(_MODEL):
            await answer(send, 200, self._model(holder, path.removeprefix(_MODEL)))
        else:
            body = read_object(await read_body(headers, receive, self._snapshots.current.rules.body_bytes))
            await answer(send, 200, orjson.dumps({"id": self._feedback.take(body, holder.grant.name)}))

    async def _stored(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        owner, rules = self._holder(headers).grant.id, self._snapshots.current.rules
        query = dict(parse_qsl(scope.get("query_string", b"").decode(errors="replace")))
        await self._desk.serve(Call(owner, scope["method"], path, query, headers, rules, receive, send))

    async def _open(self, path: str, send: Send) -> None:
        if path == "/metrics":
            await answer(send, 200, self._worker.expose(), [(b"content-type", CONTENT_TYPE)])
        elif path == _DESCRIPTION:
            await answer(send, 200, orjson.dumps(openapi.document()))
        elif path == "/ready" and not self._snapshots.current.live:
            await answer(send, 503, b'{"status":"no route yet"}')
        else:
            await answer(send, 200, self._health())

    def _holder(self, headers: Mapping[bytes, bytes]) -> Holder:
        """Who holds the caller's key; raises Denied. Nobody is let in under another name."""
        sent = headers.get(b"authorization", b"")
        if sent[:7].lower() != b"bearer " or not (key := sent[7:].strip()):
            raise Denied("no API key was sent", "send the header 'authorization: Bearer KEY'")
        holder = self._snapshots.current.holders.get(hashlib.sha256(key).digest())
        if holder is None:
            raise Denied("the API key is not known here, or was revoked", "list the live ones: noria keys list")
        return holder

    def _pseudonym(self, name: str) -> str:
        found = self._pseudonyms.get(name)
        if found is None:
            found = self._pseudonyms[name] = pseudonym(self._secret, name)
        return found

    def _health(self) -> bytes:
        state = self._state()
        return orjson.dumps(
            {"status": "ok", "pid": os.getpid(), "snapshot": state.snapshot, "inflight": state.inflight}
        )

    def _state(self) -> State:
        replicas = self._snapshots.replicas
        return State(
            self._snapshots.current.snapshot.version, len(self._exchange.inflight), dict(replicas.outstanding()),
            dict(replicas.breakers()), dict(self._exchange.demand.asked), self._exchange.demand.missed,
        )  # fmt: skip

    async def _follow(self) -> None:
        """Take over what a new snapshot says of tracing. Opening an exporter happens in a thread."""
        try:
            await asyncio.to_thread(self._tracing.follow, self._snapshots.current.rules)
        except NoriaError as error:
            _log.warning("requests are not traced: %s; %s", error.fact, error.hint)

    def _models(self, holder: Holder) -> bytes:
        view = self._snapshots.current
        models = [_described(view.live[name]) for name in view.open_to(holder)]
        return orjson.dumps({"object": "list", "data": models})

    def _model(self, holder: Holder, name: str) -> bytes:
        view = self._snapshots.current
        names = view.open_to(holder)
        if name not in names:
            raise NotFound(f"there is no model '{name}'", f"known are: {', '.join(names) or 'none'}")
        return orjson.dumps(_described(view.live[name]))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        chores = [
            asyncio.create_task(self._snapshots.follow()),
            asyncio.create_task(self._exchange.inflight.sweep()),
            asyncio.create_task(self._worker.beat(self._follow)),
            asyncio.create_task(self._batches.run()),
        ]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for chore in chores:
            chore.cancel()
            with suppress(asyncio.CancelledError):
                await chore
        self._worker.write()
        await asyncio.to_thread(self._tracing.close)
        self._pool.close()
        await send({"type": "lifespan.shutdown.complete"})


def build(
    snapshots: SnapshotFile,
    recorder: Recorder,
    limits: Ledger,
    clock: Clock,
    secret: bytes,
    place: Place | None = None,
    open_exporter: Callable[[str], Exporter] | None = None,
) -> Gateway:
    """Put a gateway together. `secret` keys the pseudonyms of users; the caller closes recorder and limits.

    `place` is that of a gateway on its own beside the snapshot, where none is given; `open_exporter` opens what sends
    spans to a collector's address.
    """
    place = place or Place(snapshots.path.parent / "workers")
    metrics, pool = Metrics(), Pool()
    journal = Journal(recorder, metrics, _scrubbed, lambda: _drops(snapshots))
    tracing = Tracing(open_exporter or _no_exporter, lambda spans: metrics.count("spans_dropped", spans))
    journal.ended = tracing.ended
    exchange = Exchange(snapshots, pool, journal, limits, Guards(_DETECTORS), secret, tracing)
    return Gateway(snapshots, exchange, journal, metrics, pool, clock, secret, tracing, place)


def _no_exporter(address: str) -> Exporter:
    raise Unavailable(f"nothing here can send spans to '{address}'", "unset [gateway] otlp")


def _scrubbed(text: str) -> str:
    """A text of the record without personal data and secrets."""
    return personal.scrub(text)[0]


def _drops(snapshots: SnapshotFile) -> bool:
    return snapshots.current.rules.log_full == "drop"


def _method(path: str) -> str | None:
    """The method that a path takes; None where there is no such path."""
    if path in APIS:
        return "POST"
    return "GET" if path.startswith(_MODEL) else _METHODS.get(path)


def _described(live: Live) -> dict[str, object]:
    """A model in OpenAI's form: tasks are noria's, all others belong to the engine that has them."""
    owner = "noria" if live.task is not None else live.arms[0].arm.engine
    return {"id": live.name, "object": "model", "created": 0, "owned_by": owner}


def _path(scope: Scope) -> str:
    path = str(scope["path"])
    return path[3:] if path.startswith("/v1/") else path
