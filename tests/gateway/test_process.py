"""The gateway as a process: switches, restarts, kills and stops under load."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from gateway_fakes import ANSWER, KEY, FakeEngine, Plane, asking, fake_engine, running, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with fake_engine("first") as engine:
        yield engine


@pytest.fixture
def plane(engine: FakeEngine, tmp_path: Path) -> Iterator[Plane]:
    with running(tmp_path / "state", engine.url) as plane:
        yield plane


@dataclass
class Seen:
    """What clients got: ids of whole answers, by what served them, and everything else."""

    answered: list[str] = field(default_factory=list)
    served_by: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)


class Load:
    """Clients in a thread that ask as fast as they are answered, every third time for a stream."""

    def __init__(self, plane: Plane, clients: int = 8) -> None:
        self.seen = Seen()
        self._plane = plane
        self._clients = clients
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def stop(self) -> Seen:
        self._stopping.set()
        self._thread.join(30)
        return self.seen

    async def _run(self) -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=self._plane.url, headers=headers, timeout=30) as client:
            await asyncio.gather(*(self._ask(client, number) for number in range(self._clients)))

    async def _ask(self, client: httpx.AsyncClient, number: int) -> None:
        while not self._stopping.is_set():
            number += 1
            try:
                got = await client.post("/v1/chat/completions", json=asking("hi", stream=number % 3 == 0))
            except httpx.HTTPError as error:
                self.seen.failed.append(repr(error))
                await asyncio.sleep(0.02)
                continue
            if got.status_code == 200 and ("[DONE]" in got.text or ANSWER in got.text):
                self.seen.answered.append(got.headers["x-noria-interaction"])
                self.seen.served_by.add(got.headers["x-noria-served-by"])
            else:
                self.seen.failed.append(got.text)


@pytest.mark.slow
def test_kill_minus_nine_under_load_loses_no_answer(plane: Plane) -> None:
    answered: list[str] = []
    for _ in range(3):
        load = Load(plane)
        wait_for(lambda: len(load.seen.answered) > 30)  # noqa: B023
        plane.stop(signal.SIGKILL)
        answered += load.stop().answered
        plane.start()
    segments = sorted((plane.state / "segments").glob("*.jsonl"))
    data = b"".join(file.read_bytes() for file in segments)
    assert len(segments) == 4
    assert len(answered) == len(set(answered)) > 90
    assert [each for each in answered if each.encode() not in data] == []


@pytest.mark.slow
def test_an_engine_switch_under_load_drops_nothing(plane: Plane, engine: FakeEngine) -> None:
    load = Load(plane)
    with fake_engine("second") as second:
        wait_for(lambda: len(load.seen.answered) > 20)
        plane.publish(second.url, "candidate:helpdesk@fedcba9876543210")
        wait_for(lambda: _released(plane, 2, engine.url))
        engine.close()
        before = len(load.seen.answered)
        wait_for(lambda: len(load.seen.answered) > before + 20)
        seen = load.stop()
    assert seen.failed == []
    assert len(seen.served_by) == 2


@pytest.mark.slow
def test_an_engine_restart_under_load_drops_nothing(plane: Plane, engine: FakeEngine) -> None:
    load = Load(plane)
    wait_for(lambda: len(load.seen.answered) > 20)
    engine.delay = 0.05
    time.sleep(0.1)
    # Killed with requests in its hands: none of them has been answered in part, so all are asked again.
    engine.close()
    time.sleep(0.4)
    with fake_engine("first", engine.port):
        before = len(load.seen.answered)
        wait_for(lambda: len(load.seen.answered) > before + 20)
        seen = load.stop()
    whole = [fault for fault in seen.failed if "broke off" not in fault]
    assert whole == []


def _released(plane: Plane, version: int, url: str) -> bool:
    health = httpx.get(f"{plane.url}/health").json()
    return health["snapshot"] >= version and not health["inflight"].get(url)


@pytest.mark.slow
def test_an_absent_engine_is_an_error_to_try_again(plane: Plane, engine: FakeEngine) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        plane.publish(f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
        wait_for(lambda: httpx.get(f"{plane.url}/health").json()["snapshot"] == 2)
        with plane.client() as client:
            got = client.post("/v1/chat/completions", json=asking("hi"))
    assert (got.status_code, got.headers["retry-after"]) == (503, "1")
    assert got.json()["error"]["type"] == "unavailable_error"
    assert plane.recorded(got.headers["x-noria-interaction"]).status == 503
    assert engine.bodies == []


def test_a_broken_snapshot_leaves_the_one_before_in_use(plane: Plane, engine: FakeEngine) -> None:
    file = plane.state / "snapshot.json"
    with plane.client() as client:
        for content in (b"{", b'{"version": 9}', None):
            file.unlink() if content is None else file.write_bytes(content)
            time.sleep(0.3)
            assert client.post("/v1/chat/completions", json=asking("hi")).status_code == 200
        plane.index = plane.state / "no-such-index"
        plane.publish(engine.url)
        time.sleep(0.3)
        assert client.get("/health").json()["snapshot"] == 1
        plane.index = None
        plane.publish(engine.url)
        assert wait_for(lambda: client.get("/health").json()["snapshot"] == 3)
    assert "snapshot 1 stays in use" in (plane.state / "log").read_text()


def test_sigterm_lets_a_stream_finish_and_closes_the_segment(plane: Plane) -> None:
    with (
        plane.client() as client,
        client.stream("POST", "/v1/chat/completions", json=asking("slow", stream=True)) as got,
    ):
        lines = got.iter_lines()
        next(lines)
        assert plane.process is not None
        plane.process.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert rest[-2:] == ["data: [DONE]", ""]
    assert plane.process.wait(20) == 0
    assert plane.recorded(got.headers["x-noria-interaction"]).status == 200


def test_a_taken_port_is_one_clear_line(plane: Plane) -> None:
    port = plane.url.rpartition(":")[2]
    command = [sys.executable, "-m", "noria.apps.gateway", "--state", str(plane.state), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith(f"noria: cannot listen on 127.0.0.1:{port}: Address already in use;")
    assert done.stderr.count("\n") == 1


def test_without_a_snapshot_it_does_not_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "noria.apps.gateway", "--state", str(tmp_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "there is no 'snapshot.json'" in done.stderr


def test_the_secret_is_private_and_stays(plane: Plane) -> None:
    secret = plane.state / "secret"
    before = secret.read_text()
    assert (secret.stat().st_mode & 0o777, len(before)) == (0o600, 64)
    plane.stop()
    plane.start()
    assert secret.read_text() == before


def test_it_dies_with_its_parent(engine: FakeEngine, tmp_path: Path) -> None:
    plane = Plane(tmp_path)
    plane.publish(engine.url)
    code = "import subprocess, sys, time; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); time.sleep(60)"
    command = [sys.executable, "-m", "noria.apps.gateway", "--state", str(tmp_path), "--port", "0"]
    with subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for(lambda: (tmp_path / "gateway.url").is_file())
        parent.kill()
    wait_for(lambda: not _lives(pid))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
