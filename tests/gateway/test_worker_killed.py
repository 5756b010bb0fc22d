"""Workers killed in mid-traffic, again and again: what a client has received whole is in the log, and only once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from gateway_fakes import KEY, Plane
from hard_fakes import echo_engine

from noria.apps.workers import Workers
from noria.gateway.workers import everyone
from noria.traffic.log import TrafficLog
from noria.traffic.ship import ship

pytestmark = pytest.mark.slow

WORKERS = 4
CLIENTS = 12
PIECES = 12
PATIENCE = 60.0


@dataclass
class Received:
    """What clients got whole: the answer's text by its id. `again` counts tries that brought nothing whole."""

    answers: dict[str, str] = field(default_factory=dict)
    again: int = 0
    unanswered: list[str] = field(default_factory=list)


class Crowd:
    """Clients in a thread. Each asks one question after the other, and each question until it is answered whole."""

    def __init__(self, url: str) -> None:
        self.received = Received()
        self._url = url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(CLIENTS)))

    async def _client(self, number: int) -> None:
        async with httpx.AsyncClient(
            base_url=self._url, headers={"authorization": f"Bearer {KEY}"}, timeout=20
        ) as client:
            asked = 0
            while not self._stopping.is_set():
                asked += 1
                await self._until_answered(client, f"c{number}q{asked}", stream=asked % 2 == 0)

    async def _until_answered(self, client: httpx.AsyncClient, question: str, stream: bool) -> None:
        body = {
            "model": "helpdesk", "messages": [{"role": "user", "content": question}], "max_tokens": PIECES,
            "stream": stream,
        }  # fmt: skip
        expected = " ".join(f"{question}:{piece}" for piece in range(PIECES))
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                got = await client.post("/v1/chat/completions", json=body)
            except httpx.HTTPError:
                got = None
            said = None if got is None or got.status_code != 200 else _said(got, stream)
            if got is not None and said is not None:
                assert said.strip() == expected
                self.received.answers[got.headers["x-noria-interaction"]] = said
                return
            self.received.again += 1
            await asyncio.sleep(0.05)
        self.received.unanswered.append(question)


def _said(got: httpx.Response, stream: bool) -> str | None:
    """The answer's text, None where it is not whole."""
    if not stream:
        return str(got.json()["choices"][0]["message"]["content"])
    events = [line.removeprefix("data: ") for line in got.text.splitlines() if line]
    if events[-1:] != ["[DONE]"]:
        return None
    deltas: list[Any] = [orjson.loads(event)["choices"] for event in events[:-1]]
    return "".join(choices[0]["delta"].get("content") or "" for choices in deltas if choices)


@contextmanager
def asking(url: str) -> Iterator[Crowd]:
    crowd = Crowd(url)
    try:
        yield crowd
    finally:
        crowd.stop()


@contextmanager
def serving(state: Path, engine_url: str) -> Iterator[Workers]:
    """Several workers on one port, as `noria up --workers` has them."""
    state.mkdir()
    Plane(state).publish(engine_url)
    workers = Workers(state, "127.0.0.1", 0, WORKERS, os.getpid())
    workers.begin()
    try:
        _poll(workers, lambda: workers.have(1))
        yield workers
    finally:
        workers.close()


def _poll(workers: Workers, look: Any, seconds: float = PATIENCE) -> None:
    """Keep the workers alive until something is true."""
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, "it did not come about"
        workers.poll()
        time.sleep(0.02)


def test_kills_lose_no_answer_and_double_none(tmp_path: Path, kills: int) -> None:
    state, lake = tmp_path / "state", tmp_path / "lake"
    killed: list[int] = []
    with echo_engine(0.002) as engine, serving(state, engine.url) as workers:
        with asking(workers.address) as crowd:
            for _ in range(kills):
                before = len(crowd.received.answers) + 5
                _poll(workers, lambda: len(crowd.received.answers) > before)  # noqa: B023
                # Another one is left to answer meanwhile.
                _poll(workers, lambda: len(_serving(state, killed)) > 1)
                killed.append(_serving(state, killed)[0])
                os.kill(killed[-1], signal.SIGKILL)
            _poll(workers, lambda: workers.have(1))
        received = crowd.received
    assert len(set(killed)) == kills
    assert received.unanswered == []
    assert received.again > 0

    segments = sorted((state / "segments").glob("*.jsonl"))
    assert len(segments) == kills + WORKERS
    # A kill rarely leaves half a line, a loss of power does: leave one as that would.
    torn = [_tear(segments)] + [file for file in segments if _unfinished(file)]
    counts = ship(state / "segments", lake)
    assert counts.torn == len(set(torn))

    log = TrafficLog(state / "segments", lake)
    interactions, _ = log.read(log.mark())
    times = Counter(each.id for each in interactions)
    assert max(times.values()) == 1
    logged = {each.id: each for each in interactions}
    assert [identity for identity in received.answers if identity not in logged] == []
    for identity, said in received.answers.items():
        assert (logged[identity].status, logged[identity].answer.strip()) == (200, said.strip())


def _serving(state: Path, killed: list[int]) -> list[int]:
    """The processes of the workers that serve and have not been killed, the oldest first."""
    pids = [int(told["pid"]) for told in everyone(state / "workers") if told["pid"] not in killed]
    return sorted(pid for pid in pids if Path(f"/proc/{pid}").exists())


def _unfinished(segment: Path) -> bool:
    data = segment.read_bytes()
    return bool(data) and not data.endswith(b"\n")


def _tear(segments: list[Path]) -> Path:
    """Append the beginning of a record to a segment, as if its writer's machine had lost power within."""
    for segment in segments:
        lines = segment.read_bytes().splitlines(keepends=True)
        if lines and lines[-1].endswith(b"\n"):
            with segment.open("ab") as out:
                out.write(lines[-1][: len(lines[-1]) // 2])
            return segment
    raise AssertionError("no segment has a record")
