"""The child process in which an encoder answers: python -m noria.backends.encoder_server CONFIG.json PARENT.

CONFIG.json is a `ServerConfig`; `server_child` says how the launcher hears of it. Requests that wait are computed
together.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict

from noria.backends import encoder_wire as wire
from noria.backends.child import die_with_parent
from noria.backends.encoder_bert import Array
from noria.backends.encoder_model import CrossEncoder, Encoder, Head
from noria.backends.encoder_wire import Chosen
from noria.backends.server_child import report
from noria.errors import Invalid, NoriaError, NotFound, Unavailable

DRAIN: Final = 20
"""Most seconds to wait for the answers in flight before the process ends."""
LARGEST: Final = 32 * 2**20
"""Bytes of a request."""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class ServerConfig(BaseModel):
    """What the launcher tells this process; `adapters` are folders by their ref."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    model: str
    context: int
    threads: int
    slots: int
    """Most requests that are computed together."""
    key: str
    adapters: dict[str, Path]
    reranker: Path | None = None
    ready: Path


class Desk:
    """The models of one server, and what they make of texts. Everything here may run in another thread."""

    def __init__(self, config: ServerConfig) -> None:
        self.model = config.model
        self.encoder = Encoder.load(config.folder, config.context, config.threads)
        self.reranker = CrossEncoder.load(config.reranker, config.context) if config.reranker else None
        self._heads = {name: self._head(folder) for name, folder in config.adapters.items()}

    def _head(self, folder: Path) -> tuple[Encoder, Head]:
        encoder, head = self.encoder.tuned(folder), Head.load(folder)
        if head.weight.shape[1] != encoder.bert.shape.width:
            raise Invalid(f"the head in '{folder.name}' was made for another encoder", "train it again")
        return encoder, head

    def check(self, adapter: str) -> None:
        """Raise NotFound for an adapter that is not loaded; the empty name is the encoder alone."""
        if adapter and adapter not in self._heads:
            raise NotFound(f"adapter '{adapter}' is not loaded in this engine")

    def embed(self, texts: Sequence[Sequence[int]], adapter: str) -> Array:
        """Vectors of texts by the encoder that this adapter has."""
        return (self._heads[adapter][0] if adapter else self.encoder).embed(texts)

    def classify(self, vectors: Array, adapter: str) -> list[Chosen]:
        """What a head makes of vectors."""
        head = self._heads[adapter][1]
        return [Chosen(head.labels, tuple(row), head.several) for row in head.probabilities(vectors).tolist()]

    def guess(self, texts: Sequence[Sequence[int]], classes: Sequence[str]) -> list[Chosen]:
        """Classes by their bare names, without a head; only the nearest one where several may hold."""
        rows = self.encoder.similar(texts, classes).tolist()
        return [Chosen(tuple(classes), tuple(row), several=False) for row in rows]


class Batches:
    """Computes vectors of requests that wait together, one batch at a time, in a thread of its own."""

    def __init__(self, desk: Desk, most: int) -> None:
        self._desk = desk
        self._most = most
        self._waiting: deque[tuple[str, list[list[int]], asyncio.Future[Array]]] = deque()
        self._thread = ThreadPoolExecutor(1, "encoder")
        self._task: asyncio.Task[None] | None = None

    async def embed(self, texts: list[list[int]], adapter: str) -> Array:
        """Vectors of a request's texts."""
        found = asyncio.get_running_loop().create_future()
        self._waiting.append((adapter, texts, found))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await found

    async def run(self, work: Callable[[], Any]) -> Any:
        """Anything else that computes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _work(self) -> None:
        while self._waiting:
            adapter = self._waiting[0][0]
            batch: list[tuple[str, list[list[int]], asyncio.Future[Array]]] = []
            while self._waiting and self._waiting[0][0] == adapter and len(batch) < self._most:
                batch.append(self._waiting.popleft())
            texts = [text for _, each, _ in batch for text in each]
            try:
                vectors, start = await self.run(partial(self._desk.embed, texts, adapter)), 0
                for _, each, found in batch:
                    if not found.done():
                        found.set_result(vectors[start : start + len(each)])
                    start += len(each)
            finally:
                for _, _, found in batch:
                    if not found.done():
                        found.set_exception(Unavailable("the encoder failed", "read its log"))


class App:
    """The ASGI application."""

    def __init__(self, config: ServerConfig) -> None:
        self._desk = Desk(config)
        self._batches = Batches(self._desk, config.slots)
        self._key = f"Bearer {config.key}".encode()
        self._routes = {
            "/v1/embeddings": self._embeddings,
            "/v1/classify": self._classify,
            "/v1/rerank": self._rerank,
            "/v1/chat/completions": self._chat,
            "/v1/tokenize": self._tokenize,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        try:
            status, kind, body = await self._answer(scope, receive)
        except NoriaError as error:
            status, kind, body = error.status, "application/json", wire.fault(error)
        length = str(len(body)).encode()
        headers = [(b"content-type", kind.encode()), (b"content-length", length)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, str, bytes]:
        path = scope["path"]
        if path == "/health":
            return 200, "application/json", b'{"status":"ok"}'
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, self._key):
            return 401, "application/json", wire.refused("Invalid API Key")
        if path == "/v1/models" and scope["method"] == "GET":
            return 200, "application/json", orjson.dumps(wire.models(self._desk.model))
        work = self._routes.get(path)
        if work is None or scope["method"] != "POST":
            raise NotFound(f"there is nothing at '{scope['method']} {path}'")
        body = wire.read(await _body(receive))
        answer = await work(body)
        if path == "/v1/chat/completions" and body.get("stream"):
            return 200, "text/event-stream", wire.events(answer, body)
        return 200, "application/json", orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    async def _embeddings(self, body: Mapping[str, Any]) -> dict[str, Any]:
        texts = self._texts(body)
        # Vectors are those of the encoder alone, whatever head a task has: stored ones stay comparable.
        vectors = await self._batches.embed(texts, "")
        return wire.embeddings(self._desk.model, vectors, body, _count(texts))

    async def _classify(self, body: Mapping[str, Any]) -> dict[str, Any]:
        texts = self._texts(body)
        chosen = await self._chosen(texts, body)
        if not chosen:
            raise Invalid("this encoder has no head and knows no classes", 'train one: noria run, or send "classes"')
        return wire.classified(self._desk.model, chosen, _count(texts))

    async def _chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        text = wire.asked(body)
        tokens = [self._desk.encoder.tokens(text)]
        chosen = await self._chosen(tokens, body)
        return wire.completion(self._desk.model, chosen[0] if chosen else None, body, _count(tokens))

    async def _chosen(self, texts: list[list[int]], body: Mapping[str, Any]) -> list[Chosen]:
        """Classes of texts by the head that is asked for, else by the names that the request gives; else none."""
        adapter = str(body.get("adapter") or "")
        self._desk.check(adapter)
        if adapter:
            return self._desk.classify(await self._batches.embed(texts, adapter), adapter)
        if names := wire.names(body):
            found: list[Chosen] = await self._batches.run(partial(self._desk.guess, texts, names))
            return found
        return []

    async def _rerank(self, body: Mapping[str, Any]) -> dict[str, Any]:
        query, documents = wire.ranked(body)
        cross = self._desk.reranker
        if cross is not None:
            scores = await self._batches.run(partial(cross.scores, query, documents))
            return wire.ranking(self._desk.model, documents, scores.tolist(), body, "cross-encoder")
        texts = [self._desk.encoder.tokens(text) for text in (query, *documents)]
        vectors = await self._batches.embed(texts, "")
        norms = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
        scores = (vectors[1:] @ vectors[0]) / (norms[1:] * norms[0])
        return wire.ranking(self._desk.model, documents, scores.tolist(), body, "embedding similarity", _count(texts))

    async def _tokenize(self, body: Mapping[str, Any]) -> dict[str, Any]:
        text = next((body[name] for name in ("content", "prompt") if isinstance(body.get(name), str)), None)
        if text is None:
            raise Invalid("'prompt' is missing or no text", 'send "prompt": "…"')
        tokens = self._desk.encoder.tokenizer.encode(text).ids
        return {"tokens": tokens, "count": len(tokens), "max_model_len": self._desk.encoder.longest}

    def _texts(self, body: Mapping[str, Any]) -> list[list[int]]:
        encoder = self._desk.encoder
        size = len(encoder.bert.weights["embeddings.word_embeddings.weight"])
        return [
            encoder.tokens(each) if isinstance(each, str) else wire.ids(each, size, encoder.longest)
            for each in wire.inputs(body)
        ]


def _count(texts: Sequence[Sequence[int]]) -> int:
    return sum(len(text) for text in texts)


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid("the client has left")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST:
            raise Invalid(f"the request has more than {LARGEST} bytes", "send fewer texts at a time")
        if not message.get("more_body"):
            return b"".join(parts)


def main() -> None:
    """Serve until SIGTERM, then finish what is in flight and end."""
    import uvicorn

    config = ServerConfig.model_validate_json(Path(sys.argv[1]).read_bytes())
    die_with_parent(int(sys.argv[2]))
    try:
        app = App(config)
    except NoriaError as error:
        report(config.ready, error=error.fact, hint=error.hint or "", code=error.code)
        sys.exit(1)
    door = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = uvicorn.Server(
        uvicorn.Config(
            app, http="httptools", loop="uvloop", lifespan="off", access_log=False, log_level="warning",
            timeout_graceful_shutdown=DRAIN, timeout_keep_alive=math.ceil(DRAIN), server_header=False,
        )
    )  # fmt: skip
    # Connections wait in the socket's queue until the loop runs.
    report(config.ready, url=f"http://127.0.0.1:{door.getsockname()[1]}")
    server.run(sockets=[door])


if __name__ == "__main__":
    main()
