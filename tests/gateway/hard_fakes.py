"""Raw sockets, the echoing engine's process, and snapshots of any shape, for the tests that mean harm."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from gateway_fakes import KEY, Plane, wait_for

from noria.settings import TaskSettings
from noria.types import Arm, Endpoint, KeyGrant, Route, Snapshot

ECHO = Path(__file__).parents[2] / "benchmarks" / "echo_engine.py"


@dataclass
class Echo:
    """The process of the echoing engine."""

    process: subprocess.Popen[str]
    port: int
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, int]:
        found: dict[str, int] = httpx.get(f"http://127.0.0.1:{self.port}/stats").json()
        return found


@contextmanager
def echo_engine(interval: float = 0.0, port: int = 0) -> Iterator[Echo]:
    command = [sys.executable, str(ECHO), "--port", str(port), "--interval", str(interval)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Echo(process, int(process.stdout.readline()))
        finally:
            process.kill()


def arm(name: str, *urls: str, **more: Any) -> Arm:
    """An arm on these replicas."""
    upstreams = tuple(Endpoint(url=url, key="none", model="m") for url in urls)
    return Arm(name=name, served_by=f"candidate:{name}@0123456789abcdef", engine=name, upstreams=upstreams, **more)


def task(**more: Any) -> dict[str, Any]:
    """A task's table as JSON."""
    return TaskSettings(sources=("faq",), base="m", engine="e", **more).model_dump(mode="json")


def write_snapshot(
    state: Path,
    routes: Mapping[str, Route],
    keys: Mapping[str, KeyGrant] | None = None,
    rules: dict[str, Any] | None = None,
    version: int = 1,
) -> None:
    """Replace the snapshot of a state folder; `keys` are by the keys themselves."""
    grants = keys or {KEY: KeyGrant(id="k1", name="alice", role="developer")}
    snapshot = Snapshot(
        version=version, routes=dict(routes), gateway=rules or {},
        keys={hashlib.sha256(key.encode()).hexdigest(): grant for key, grant in grants.items()},
    )  # fmt: skip
    fresh = state / "snapshot.json.new"
    fresh.write_text(snapshot.model_dump_json())
    fresh.replace(state / "snapshot.json")


@contextmanager
def serving(
    state: Path,
    routes: Mapping[str, Route],
    keys: Mapping[str, KeyGrant] | None = None,
    rules: dict[str, Any] | None = None,
) -> Iterator[Plane]:
    """The gateway's process on a snapshot of the test's own."""
    state.mkdir(exist_ok=True)
    write_snapshot(state, routes, keys, rules)
    plane = Plane(state)
    plane.version = 1
    plane.start()
    try:
        yield plane
    finally:
        plane.stop(9)


def ask(
    plane: Plane, text: str, key: str = KEY, headers: Mapping[str, str] | None = None, **more: Any
) -> httpx.Response:
    """One chat request to the task `helpdesk`, or to the `model` in `more`."""
    body = {"model": "helpdesk", "messages": [{"role": "user", "content": text}], **more}
    return httpx.post(
        f"{plane.url}/v1/chat/completions", json=body, timeout=30, verify=False,
        headers={"authorization": f"Bearer {key}", **(headers or {})},
    )  # fmt: skip


def settled(plane: Plane, version: int) -> None:
    """Wait until a snapshot is in use."""
    wait_for(lambda: httpx.get(f"{plane.url}/health").json()["snapshot"] == version)


def connect(plane: Plane) -> socket.socket:
    host, port = plane.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def raw(plane: Plane, data: bytes, *, patience: float = 3.0, half: bool = True) -> bytes:
    """Send bytes, say that no more will come (`half`), and read until the gateway closes or is silent."""
    with connect(plane) as wire:
        with suppress(ConnectionError):
            wire.sendall(data)
            if half:
                wire.shutdown(socket.SHUT_WR)
        return drain(wire, patience)


def drain(wire: socket.socket, patience: float = 3.0) -> bytes:
    wire.settimeout(patience)
    found = b""
    with suppress(ConnectionError, TimeoutError):
        while piece := wire.recv(65536):
            found += piece
    return found


def statuses(answer: bytes) -> list[int]:
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def head(path: str = "/v1/chat/completions", *lines: str, key: str = KEY, close: bool = True) -> bytes:
    ends = ["connection: close"] if close else []
    return "\r\n".join(
        [f"POST {path} HTTP/1.1", "host: noria", f"authorization: Bearer {key}", *lines, *ends, "", ""]
    ).encode()


def chat(text: str, *lines: str, close: bool = True, **more: Any) -> bytes:
    """A whole chat request as bytes."""
    body = json.dumps({"model": "helpdesk", "messages": [{"role": "user", "content": text}], **more}).encode()
    return head("/v1/chat/completions", f"content-length: {len(body)}", *lines, close=close) + body


def memory(plane: Plane) -> int:
    """Bytes that the gateway's process holds now."""
    assert plane.process is not None
    text = Path(f"/proc/{plane.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024


def engines(arms: Sequence[Arm]) -> Route:
    return Route(arms=tuple(arms), task=task())
