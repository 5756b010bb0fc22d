"""Nothing is answered that could not be logged."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gateway_fakes import KEY, FakeEngine, Plane, asking, fake_engine

from noria.errors import NotFound
from noria.gateway.app import Gateway, build
from noria.gateway.limits import Ledger
from noria.gateway.snapshot import SnapshotFile
from noria.gateway.wire import CALLER, Header
from noria.ports import Hit, Index, Meant, Recorder
from noria.types import Interaction


class FullDisk:
    """A recorder without room."""

    def append(self, record: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        return


class Memory:
    """A recorder that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def append(self, record: bytes) -> None:
        self.lines.append(record)

    def close(self) -> None:
        return


class BrokenIndex:
    """An index whose search has a fault nobody foresaw."""

    def search(self, text: str, k: int, meant: Meant | None = None) -> list[Hit]:
        raise RuntimeError("a fault in the index")


class FixedClock:
    def now(self) -> datetime:
        return datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with fake_engine() as engine:
        yield engine


def no_index(folder: Path) -> Index:
    raise NotFound(f"there is no index in '{folder}'")


def gateway(folder: Path, recorder: Recorder, open_index: Callable[[Path], Index] = no_index) -> Gateway:
    snapshots = SnapshotFile(folder / "snapshot.json", open_index)
    return build(snapshots, recorder, Ledger(folder / "limits.bin"), FixedClock(), b"k" * 32)


class Asking:
    """A `Caller` in this process: what it is answered, as ASGI's messages."""

    left: Callable[[], None] | None = None
    room = None

    def __init__(self, data: bytes, sent: list[dict[str, Any]]) -> None:
        self._data = data
        self._sent = sent

    async def body(self, headers: Mapping[bytes, bytes], most: int) -> bytes:
        return self._data

    def answer(self, status: int, body: bytes, headers: Sequence[Header]) -> None:
        self._sent += ({"status": status, "headers": [*headers]}, {"body": body})

    def begin(self, headers: Sequence[Header]) -> None:
        self._sent.append({"status": 200, "headers": [*headers]})

    def write(self, piece: bytes) -> None:
        self._sent.append({"body": piece})

    end = write


async def call(app: Any, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """One request by hand: the messages that the application sends."""
    sent: list[dict[str, Any]] = []
    data = json.dumps(body).encode()
    waiting = [{"type": "http.request", "body": data, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {KEY}".encode())]
    with suppress(RuntimeError):
        extensions = {CALLER: Asking(data, sent)}
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "extensions": extensions}
        await app(scope, receive, send)
    await stop(app)
    return sent


async def stop(app: Any) -> None:
    """The server's farewell, at which connections are closed."""

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan"}

    async def send(message: dict[str, Any]) -> None:
        await asyncio.sleep(0)

    await app({"type": "lifespan"}, receive, send)
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_a_full_disk_refuses_the_answer(engine: FakeEngine, tmp_path: Path, stream: bool) -> None:
    Plane(tmp_path).publish(engine.url)
    app = build(
        SnapshotFile(tmp_path / "snapshot.json", no_index),
        FullDisk(),
        Ledger(tmp_path / "limits.bin"),
        FixedClock(),
        b"k" * 32,
    )
    sent = asyncio.run(call(app, "/v1/chat/completions", asking("hi", stream=stream)))
    data = b"".join(message.get("body", b"") for message in sent)
    error = json.loads(data.rpartition(b"data: ")[2])["error"]
    assert error["type"] == "unavailable_error"
    assert error["message"].startswith("the answer could not be logged (No space left on device)")
    assert b"[DONE]" not in data
    assert b'"stop"' not in data
    if not stream:
        assert sent[0]["status"] == 503
        assert not [name for name, _ in sent[0]["headers"] if name == b"x-noria-interaction"]


def test_feedback_is_refused_too(tmp_path: Path) -> None:
    Plane(tmp_path).publish("http://127.0.0.1:1/v1")
    app = build(
        SnapshotFile(tmp_path / "snapshot.json", no_index),
        FullDisk(),
        Ledger(tmp_path / "limits.bin"),
        FixedClock(),
        b"k" * 32,
    )
    identity = "01930000-0000-7000-8000-000000000000"
    sent = asyncio.run(call(app, "/v1/feedback", {"interaction": identity, "metric": "thumbs", "value": 1}))
    assert sent[0]["status"] == 503


def test_a_fault_of_our_own_is_recorded_and_told_in_the_usual_shape(tmp_path: Path) -> None:
    Plane(tmp_path, tmp_path / "index").publish("http://127.0.0.1:1/v1")
    memory = Memory()
    app = build(
        SnapshotFile(tmp_path / "snapshot.json", lambda _: BrokenIndex()),
        memory,
        Ledger(tmp_path / "limits.bin"),
        FixedClock(),
        b"k" * 32,
    )
    sent = asyncio.run(call(app, "/v1/chat/completions", asking("hi")))
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["error"]["type"] == "internal_error"
    (record,) = map(Interaction.model_validate_json, memory.lines)
    assert (record.status, record.error) == (500, "the gateway failed")
    assert dict(sent[0]["headers"])[b"x-noria-interaction"].decode() == record.id
