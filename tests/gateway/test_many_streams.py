"""Five hundred streams through one worker, and clients that read slowly or vanish: the benchmark's mock and load."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_fakes import KEY, Plane, wait_for
from hard_fakes import memory, serving, task

from noria.types import Arm, Endpoint, Route

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).parents[2] / "benchmarks" / "gateway"
LONG = 300
"""Chunks of a stream of the mock's mode `-long`, which it sends at 100 a second."""
FLOOD = 60_000
"""Chunks of a stream of `-flood`, which it sends as fast as they are taken."""
STREAMS = 500


@dataclass(frozen=True)
class Bench:
    """The gateway in front of the mock, and the program that asks it."""

    plane: Plane
    mock: str
    load: Path

    def run(self, mode: str, chunks: int, **options: object) -> dict[str, Any]:
        """What the load has seen of streams of so many numbered chunks."""
        body = self.plane.state / f"body{mode}.json"
        question = {"role": "user", "content": "Why does the lamp stay red?"}
        body.write_text(json.dumps({"model": f"desk{mode}", "messages": [question], "stream": True}))
        words = ["--port", self.plane.url.rpartition(":")[2], "--body", str(body), "--key", KEY]
        words += ["--stream", str(chunks)]
        for name, value in options.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        done = subprocess.run([str(self.load), *words], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def seen(self) -> dict[str, int]:
        """What the mock has seen."""
        found: dict[str, int] = httpx.get(f"{self.mock}/stats", timeout=30).json()
        return found

    def settle(self) -> None:
        """Wait until nothing is being answered, neither here nor there; every request has its record.

        Of clients that vanish, some have done so before the engine was asked.
        """
        wait_for(lambda: httpx.get(f"{self.plane.url}/health", timeout=30).json()["inflight"] == {}, 60)
        wait_for(lambda: self.seen()["active"] == 0, 60)
        records = self.plane.interactions()
        assert len({each.id for each in records}) == len(records)
        assert len([each for each in records if each.answer or each.status == 200]) <= self.seen()["requests"]
        assert len(records) >= self.seen()["requests"]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the compiled mock and load."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (apt-get install gcc libc6-dev)")
    folder = tmp_path_factory.mktemp("programs")
    for name in ("mock", "load"):
        subprocess.run([compiler, "-O2", "-o", str(folder / name), str(SOURCES / f"{name}.c")], check=True)
    return folder


@pytest.fixture
def bench(programs: Path, tmp_path: Path) -> Iterator[Bench]:
    with _mock(programs / "mock") as url:
        routes = {f"desk{mode}": Route(arms=(_arm(url, mode),), task=task()) for mode in ("-long", "-flood")}
        with serving(tmp_path / "state", routes) as plane:
            yield Bench(plane, url, programs / "load")


@contextmanager
def _mock(program: Path) -> Iterator[str]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([str(program), str(port)]) as process:
        try:
            wait_for(lambda: _answers(url))
            yield url
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/stats").status_code == 200
    except httpx.TransportError:
        return False


def _arm(url: str, mode: str) -> Arm:
    endpoint = Endpoint(url=f"{url}/v1", key="none", model=f"mock{mode}")
    return Arm(served_by="candidate:desk@0123456789abcdef", engine="local", upstreams=(endpoint,))


def test_500_streams_of_100_chunks_a_second_lose_and_reorder_nothing(bench: Bench) -> None:
    found = bench.run("-long", LONG, conns=STREAMS, seconds=4)
    faults = ("lost", "reordered", "short", "unfinished", "errors", "non200")
    assert {name: found[name] for name in faults} == dict.fromkeys(faults, 0)
    assert found["n"] >= STREAMS
    bench.settle()
    records = bench.plane.interactions()
    assert len(records) == bench.seen()["requests"]
    assert {(each.status, each.finish_reason) for each in records} == {(200, "stop")}
    assert all(f"#{LONG - 1:05}#" in each.answer for each in records)


def test_slow_readers_that_vanish_cost_bounded_memory_and_stop_their_engine(bench: Bench) -> None:
    readers = 50
    before = memory(bench.plane)
    peak = _Peak(bench.plane)
    found = bench.run("-flood", FLOOD, conns=readers, seconds=5, slow=16_384)
    grown = peak.stop() - before
    assert found["lost"] == found["reordered"] == 0
    # Each of the streams has 13 MB.
    assert grown < readers * 4 * 1024**2
    bench.settle()
    seen = bench.seen()
    assert seen["aborted"] == seen["requests"] > readers // 2
    records = bench.plane.interactions()
    assert {each.status for each in records} == {499}
    assert any("#00000#" in each.answer for each in records)


def test_clients_that_vanish_leave_no_request_and_no_generation_behind(bench: Bench) -> None:
    bench.run("-long", LONG, conns=200, seconds=1, leave=True)
    bench.settle()
    seen = bench.seen()
    assert seen["aborted"] == seen["requests"] > 100
    assert {each.status for each in bench.plane.interactions()} == {499}


class _Peak:
    """Looks at the gateway's memory five times a second."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._most = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> int:
        """The most bytes that there were."""
        self._stopping.set()
        self._thread.join()
        return self._most

    def _look(self) -> None:
        while not self._stopping.wait(0.2):
            self._most = max(self._most, memory(self._plane))
