"""A small engine that speaks HTTP by hand and misbehaves on request, and the gateway's process around it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx

from noria.settings import ContextSettings, TaskSettings
from noria.types import Arm, Endpoint, Feedback, Interaction, KeyGrant, Route, Snapshot

T = TypeVar("T")
KEY = "nr-test-key"
ANSWER = "Press the reset button."
CONTEXT_TOO_LONG = {"error": {"message": "the prompt has too many tokens", "type": "exceed_context_size_error"}}


class FakeEngine:
    """Answers chat completions; a word in the user's text makes it fail in a certain way.

    Words: die (no answer at all), break (a stream that stops), stall (hangs until the client leaves), long (refuses
    with 400), busy (503), garbage (no JSON), eof (an answer that ends with the connection), slow (0.3 s per piece),
    leave-out (a stream whose end comes late).
    """

    def __init__(self, name: str = "engine", port: int = 0) -> None:
        self.name = name
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[bytes] = []
        self.aborted = 0
        self.connections = 0
        self.delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", port))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def close(self) -> None:
        if self._loop.is_closed():
            return

        async def stop() -> None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        self._call(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(next(line for line in head.lower().split(b"\r\n") if b"content-length" in line)[15:])
                body = json.loads(await reader.readexactly(length))
                self.heads.append(head)
                self.bodies.append(body)
                text = body["messages"][-1]["content"]
                await (self._stream if body.get("stream") else self._plain)(text, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            # asyncio's streams of Python 3.11 fail on a cancelled task.
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _plain(self, text: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if "die" in text:
            writer.transport.abort()
            return
        if "stall" in text:
            await self._until_gone(reader)
        await asyncio.sleep(self.delay + 0.3 * ("slow" in text))
        status, body = 200, json.dumps(self._completion()).encode()
        if "long" in text:
            status, body = 400, json.dumps(CONTEXT_TOO_LONG).encode()
        elif "busy" in text:
            status, body = 503, b'{"error": {"message": "loading", "type": "unavailable"}}'
        elif "garbage" in text:
            body = b"<html>"
        if "eof" in text:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + body)
            await writer.drain()
            writer.close()
            return
        writer.write(b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
            status, len(body), body,
        ))  # fmt: skip

    async def _stream(self, text: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if "die" in text:
            writer.transport.abort()
            return
        if "long" in text:
            await self._plain(text, reader, writer)
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        self._event(writer, self._chunk({"role": "assistant", "content": ""}))
        for number, word in enumerate(f" {ANSWER}".split(" ")):
            await asyncio.sleep(self.delay + 0.3 * ("slow" in text))
            self._event(writer, self._chunk({"content": f" {word}" if number else " "}))
            if number == 2 and "break" in text:
                await writer.drain()
                writer.transport.abort()
                return
            if number == 2 and "stall" in text:
                await self._until_gone(reader)
        self._event(writer, self._chunk({}, "stop"))
        self._event(writer, {**self._chunk({}), "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 5}})
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n")
        if "leave-out" in text:
            await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")

    async def _until_gone(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            await reader.read(1)
        self.aborted += 1
        raise ConnectionError

    def _event(self, writer: asyncio.StreamWriter, chunk: dict[str, Any]) -> None:
        data = b"data: %b\n\n" % json.dumps(chunk).encode()
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {
            "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "helpdesk", "choices": [choice],
        }  # fmt: skip

    def _completion(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": f" {ANSWER}\n"}
        return {
            "id": "c1", "object": "chat.completion", "created": 1, "model": self.name,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
        }  # fmt: skip


class Plane:
    """The gateway's process on a state folder of its own."""

    def __init__(self, state: Path, index: Path | None = None) -> None:
        self.state = state
        self.index = index
        self.version = 0
        self.task: dict[str, Any] = {}
        self.grant: dict[str, Any] = {}
        self.rules: dict[str, Any] = {}
        self.context = ContextSettings(source="faq")
        self.vectors: Endpoint | None = None
        self.arms: tuple[Arm, ...] = ()
        self.fallbacks: tuple[Arm, ...] = ()
        self.paths: tuple[tuple[str, str], ...] = ()
        self.program: tuple[str, ...] = ("-m", "noria.apps.gateway")
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None

    def publish(self, engine_url: str, served_by: str = "candidate:helpdesk@0123456789abcdef") -> None:
        """Replace the snapshot, as noria up does."""
        self.version += 1
        arm = Arm(
            served_by=served_by, engine="local",
            upstreams=(Endpoint(url=engine_url, key="engine-key", model="alias", paths=self.paths),),
            extra={"lora": [{"id": 0, "scale": 1.0}]}, index=None if self.index is None else str(self.index),
            vectors=self.vectors,
        )  # fmt: skip
        task = TaskSettings(
            sources=("faq",), base="alias", engine="local", system="You answer.",
            context=None if self.index is None else self.context, **self.task,
        )  # fmt: skip
        route = Route(arms=(arm, *self.arms), fallbacks=self.fallbacks, task=task.model_dump(mode="json"))
        grant = KeyGrant(id="k1", name="alice", role="developer", **self.grant)
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        snapshot = Snapshot(
            version=self.version, routes={"helpdesk": route, "alias": Route(arms=(arm,))}, keys={digest: grant},
            gateway=self.rules,
        )  # fmt: skip
        fresh = self.state / "snapshot.json.new"
        fresh.write_text(snapshot.model_dump_json())
        fresh.replace(self.state / "snapshot.json")

    def start(self) -> None:
        (self.state / "gateway.url").unlink(missing_ok=True)
        command = [sys.executable, *self.program, "--state", str(self.state), "--port", "0"]
        with (self.state / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)
        wait_for(lambda: (self.state / "gateway.url").is_file() or self._ended())
        self.url = (self.state / "gateway.url").read_text()

    def _ended(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError((self.state / "log").read_text())
        return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(30)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=30)

    def lines(self) -> list[dict[str, Any]]:
        found = [file.read_bytes() for file in sorted((self.state / "segments").glob("*.jsonl"))]
        return [json.loads(line) for line in b"".join(found).splitlines()]

    def interactions(self) -> list[Interaction]:
        return [Interaction.model_validate(line) for line in self.lines() if line["kind"] == "interaction"]

    def feedback(self) -> list[Feedback]:
        return [Feedback.model_validate(line) for line in self.lines() if line["kind"] == "feedback"]

    def recorded(self, identity: str) -> Interaction:
        return wait_for(lambda: next((each for each in self.interactions() if each.id == identity), None))


@contextmanager
def running(state: Path, engine_url: str, index: Path | None = None) -> Iterator[Plane]:
    state.mkdir(exist_ok=True)
    plane = Plane(state, index)
    plane.publish(engine_url)
    plane.start()
    try:
        yield plane
    finally:
        plane.stop(signal.SIGKILL)


@contextmanager
def fake_engine(name: str = "engine", port: int = 0) -> Iterator[FakeEngine]:
    engine = FakeEngine(name, port)
    try:
        yield engine
    finally:
        engine.close()


def asking(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "helpdesk", "messages": [{"role": "user", "content": text}], **more}


def wait_for(look: Callable[[], T | None], seconds: float = 20.0) -> T:
    """The first true value of `look`."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
    return found
