"""What brought peers down (`facts/gateway.md`, section 6), each named after what must hold here."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_fakes import ANSWER, KEY, FakeEngine, Plane, asking, fake_engine, wait_for
from hard_fakes import arm, ask, engines, raw, serving, settled, statuses, task, write_snapshot
from test_unlogged import Memory, call, gateway

from noria.gateway.answers import Heard
from noria.gateway.events import AnswerStream
from noria.gateway.routing import FAILURES, OPEN_SECONDS, Breaker
from noria.types import KeyGrant, Route

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngine]:
    with fake_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def plane(engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    routes = {"helpdesk": engines([arm("c", engine.url)]), "base": Route(arms=(arm("base", engine.url),))}
    keys = {KEY: KeyGrant(id="k1", name="alice", role="developer"), "nr-u": KeyGrant(id="k2", name="u", role="user")}
    with serving(tmp_path_factory.mktemp("lessons"), routes, keys) as plane:
        yield plane


def test_01_the_wheel_runs_nothing_at_python_s_start_and_versions_are_pinned(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        ".",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.endswith(".pth") or name.rpartition("/")[2] == "sitecustomize.py"] == []
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all("==" in line for line in pins)


def test_02_a_key_is_looked_up_by_its_hash_and_never_reaches_a_query_or_the_log(plane: Plane) -> None:
    for key in (
        "' OR 1=1 --",
        "nr-test-key' OR '1'='1",
        "%27",
        hashlib.sha256(KEY.encode()).hexdigest(),
    ):
        assert ask(plane, "hi", key=key).status_code == 401
    assert "OR 1=1" not in json.dumps(plane.lines())
    assert KEY not in json.dumps(plane.lines()) + (plane.state / "snapshot.json").read_text()


def test_03_keys_with_the_same_beginning_are_different_keys(engine: FakeEngine, tmp_path: Path) -> None:
    start = "nr-" + "a" * 40
    keys = {
        start + "1": KeyGrant(id="1", name="one", role="developer"),
        start + "2": KeyGrant(id="2", name="two", role="user"),
    }
    routes = {"helpdesk": engines([arm("c", engine.url)]), "base": Route(arms=(arm("base", engine.url),))}
    with serving(tmp_path / "s", routes, keys) as plane:
        got = [ask(plane, "hi", key=start + each).headers.get("x-noria-interaction") for each in "12"]
        assert [plane.recorded(str(each)).key for each in got] == ["1", "2"]
        assert ask(plane, "hi", key=start + "2", model="base").status_code in (401, 403)
        for wrong in ("", "3", "11"):
            assert ask(plane, "hi", key=start + wrong).status_code == 401


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "admin", "evil.example/key/generate", "noria:8001"])
def test_04_no_host_header_opens_a_path_and_management_is_not_on_this_port(plane: Plane, host: str) -> None:
    for path in ("/v1/models", "/v1/chat/completions", "/v1/feedback"):
        method = "GET" if path.endswith("models") else "POST"
        request = (
            f"{method} {path} HTTP/1.1\r\nhost: {host}\r\nx-forwarded-host: localhost\r\nconnection: close\r\n\r\n"
        )
        assert statuses(raw(plane, request.encode())) == [401]
    for path in ("/api/keys", "/key/generate", "/admin", "/", "/v1/../api/keys", "/health/../api/keys", "/docs"):
        request = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n"
        assert statuses(raw(plane, request.encode())) == [404]


@pytest.mark.parametrize(
    "line",
    [None, "", "Bearer", "Bearer ", "Bearer null", "Basic bnI6", "bearer", "Bearer  x y", "nr-test-key", "Bearer \xff"],
)
def test_05_a_key_that_is_not_known_is_nobody(plane: Plane, engine: FakeEngine, line: str | None) -> None:
    before = len(engine.bodies)
    body = json.dumps(asking("hi")).encode()
    auth = b"" if line is None else b"authorization: " + line.encode("latin-1") + b"\r\n"
    request = b"POST /v1/chat/completions HTTP/1.1\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n" % (
        auth,
        len(body),
    )
    assert statuses(raw(plane, request + body)) == [401]
    assert len(engine.bodies) == before


def test_06_no_request_of_a_user_changes_what_its_key_may(plane: Plane) -> None:
    for field in ("role", "models", "limits", "api_key", "grant", "user", "metadata"):
        more: dict[str, Any] = {field: "admin"}
        assert ask(plane, "hi", key="nr-u", model="base", **more).status_code in (401, 403)
    for header in ("x-noria-role", "x-noria-key", "x-forwarded-user", "x-noria-user"):
        assert ask(plane, "hi", key="nr-u", model="base", headers={header: "admin"}).status_code in (401, 403)


def test_07_what_was_answered_is_logged_through_shutdown_and_kill(engine: FakeEngine, tmp_path: Path) -> None:
    with serving(tmp_path / "s", {"helpdesk": engines([arm("c", engine.url)])}) as plane:
        ids = []
        for number in (signal.SIGTERM, signal.SIGKILL):
            ids += [ask(plane, "hi").headers["x-noria-interaction"] for _ in range(5)]
            plane.stop(number)
            plane.start()
        assert [each.id for each in plane.interactions()] == ids


@pytest.mark.parametrize("stream", [False, True])
def test_08_a_client_that_leaves_is_in_the_log_with_what_it_used(plane: Plane, stream: bool) -> None:
    before = {each.id for each in plane.interactions()}
    with plane.client() as client:
        try:
            with client.stream(
                "POST", "/v1/chat/completions", json=asking("stall", stream=stream), timeout=httpx.Timeout(5, read=0.5)
            ) as got:
                list(got.iter_lines())
        except httpx.ReadTimeout:
            pass
    (gone,) = wait_for(lambda: [each for each in plane.interactions() if each.id not in before])
    assert (gone.status, gone.error) == (499, "the client left")
    assert (gone.completion_tokens or 0) >= (2 if stream else 0)
    assert ((gone.prompt_tokens or 0) > 0) is stream


@pytest.mark.parametrize("place", ["last chunk with choices", "chunk of its own", "every chunk", "first chunk", "none"])
def test_09_usage_is_read_from_any_chunk_or_counted(place: str) -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 3}
    texts = ["one ", "two ", "three"]
    chunks = [
        {"model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts
    ]
    chunks.append({"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if place == "chunk of its own":
        chunks.append({"model": "m", "choices": [], "usage": usage})  # type: ignore[dict-item]
    for number, chunk in enumerate(chunks):
        if (
            place == "every chunk"
            or (place.startswith("last") and number == 3)
            or (place.startswith("first") and not number)
        ):
            chunk["usage"] = usage  # type: ignore[assignment]
    heard = Heard()
    stream = AnswerStream(heard, "m", usage=True)
    for chunk in chunks:
        stream.feed(b"data: %b\n\n" % json.dumps(chunk).encode())
    stream.feed(b"data: [DONE]\n\n")
    assert (heard.prompt_tokens, heard.completion_tokens) == ((None, None) if place == "none" else (11, 3))
    assert heard.pieces == 3


def test_10_what_one_request_leaves_behind_is_nothing(engine: FakeEngine, tmp_path: Path) -> None:
    """Counted in objects: a leak would show in every round of requests, what other tests' threads leave in some."""
    import gc

    write_snapshot(tmp_path, {"helpdesk": engines([arm("c", engine.url)])})
    memory = Memory()
    app = gateway(tmp_path, memory)

    def round_of(number: int) -> int:
        for each in range(number):
            asyncio.run(call(app, "/v1/chat/completions", asking(f"{each}", user=f"user-{each}", stream=each % 2 == 0)))
        memory.lines.clear()
        engine.bodies.clear()
        engine.heads.clear()
        gc.collect()
        return len(gc.get_objects())

    round_of(20)
    alive = [round_of(20), *(round_of(80) for _ in range(3))]
    assert min(after - before for before, after in pairwise(alive)) < 80


def test_11_no_database_is_opened_by_the_data_plane(plane: Plane) -> None:
    assert plane.process is not None
    ask(plane, "hi")
    opened = [str(each.resolve()) for each in Path(f"/proc/{plane.process.pid}/fd").iterdir() if each.exists()]
    assert [each for each in opened if each.endswith((".db", ".db-wal", ".sqlite"))] == []
    names = "'sqlalchemy', 'psycopg', 'redis', 'fastapi'"
    loaded = f"import sys, noria.gateway.app; print([name for name in ({names}) if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout.strip() == "[]"


def test_12_a_ledger_that_is_down_shows_as_nothing_at_all(plane: Plane) -> None:
    """The snapshot stays in use: neither 401 nor an unready gateway; without routes it is 503, never 401."""
    file = plane.state / "snapshot.json"
    kept = file.read_text()
    file.unlink()
    time.sleep(0.5)
    assert ask(plane, "hi").status_code == 200
    assert httpx.get(f"{plane.url}/ready", verify=False).status_code == 200
    write_snapshot(plane.state, {}, version=50)
    settled(plane, 50)
    assert httpx.get(f"{plane.url}/ready", verify=False).status_code == 503
    assert httpx.get(f"{plane.url}/health", verify=False).status_code == 200
    file.write_text(kept)
    settled(plane, 1)


def test_13_twelve_requests_at_once_do_not_pass_a_limit_for_one(engine: FakeEngine, tmp_path: Path) -> None:
    grant = KeyGrant(id="k1", name="a", role="developer", limits={"tokens_per_minute": 100})
    with serving(tmp_path / "s", {"helpdesk": engines([arm("c", engine.url)])}, {KEY: grant}) as plane:

        async def all_at_once() -> list[int]:
            async with httpx.AsyncClient(
                headers={"authorization": f"Bearer {KEY}"}, verify=False, timeout=30
            ) as client:
                url = f"{plane.url}/v1/chat/completions"
                got = await asyncio.gather(*(client.post(url, json=asking("slow", max_tokens=60)) for _ in range(12)))
            return [each.status_code for each in got]

        assert sorted(asyncio.run(all_at_once())) == [200] + [429] * 11


def test_14_only_faults_of_the_engine_open_a_breaker_and_a_good_probe_closes_it() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    for _ in range(100):
        breaker.sent()
        breaker.succeeded()
    for _ in range(FAILURES):
        breaker.sent()
        breaker.failed()
    assert breaker.state == "open"
    for outcome in ("dropped", "failed", "succeeded"):
        now[0] += OPEN_SECONDS * 100
        assert breaker.allows(), outcome
        breaker.sent()
        getattr(breaker, outcome)()
    assert breaker.state == "closed"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("action", ["refuse", "redact"])
def test_15_a_guard_holds_for_streams_as_for_plain_answers(tmp_path: Path, action: str, stream: bool) -> None:
    with fake_engine() as leaking:
        leaking._completion = lambda: {**_leak(), "choices": [_leak_choice("message")]}  # type: ignore[method-assign]
        guarded = task(guards={"input": {"personal": "refuse"}, "output": {"personal": action}})
        with serving(tmp_path / "s", {"helpdesk": Route(arms=(arm("c", leaking.url),), task=guarded)}) as plane:
            asked = ask(plane, "mail bob@example.com", stream=stream)
            assert (asked.status_code, asked.json()["error"]["code"]) == (400, "content_filter")
            assert leaking.bodies == []
            if not stream:
                got = ask(plane, "hi")
                assert "eve@example.com" not in got.text
                assert (got.status_code == 200) == (action == "redact")
                assert plane.recorded(got.headers["x-noria-interaction"]).findings


def _leak() -> dict[str, object]:
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "m"}


def _leak_choice(name: str) -> dict[str, object]:
    message = {"role": "assistant", "content": "Write to eve@example.com today."}
    return {"index": 0, name: message, "finish_reason": "stop"}


def test_15b_redacting_the_log_leaves_the_answer_alone(engine: FakeEngine, tmp_path: Path) -> None:
    routes = {"helpdesk": Route(arms=(arm("c", engine.url),), task=task(record={"redact": True}))}
    with serving(tmp_path / "s", routes) as plane:
        got = ask(plane, "I am bob@example.com")
        assert got.json()["choices"][0]["message"]["content"] == ANSWER
        record = plane.recorded(got.headers["x-noria-interaction"])
        assert "bob@example.com" not in record.model_dump_json()
        assert "bob@example.com" in engine.bodies[-1]["messages"][-1]["content"]


def test_16_a_client_that_reads_slowly_does_not_slow_the_others(tmp_path: Path) -> None:
    from hard_fakes import chat, connect, echo_engine

    with echo_engine() as echo, serving(tmp_path / "s", {"helpdesk": engines([arm("c", echo.url)])}) as plane:
        slow = [connect(plane) for _ in range(8)]
        for wire in slow:
            wire.sendall(chat("x" * 2000, stream=True, max_tokens=5000))
        wait_for(lambda: echo.stats()["active"] == 8)
        assert [ask(plane, "hi", max_tokens=3).json()["choices"][0]["message"]["content"] for _ in range(20)] == [
            "hi:0 hi:1 hi:2"
        ] * 20
        for wire in slow:
            wire.close()
        wait_for(lambda: echo.stats()["active"] == 0)


def test_17_made_up_paths_and_models_grow_no_metric(plane: Plane) -> None:
    def series() -> int:
        return len(httpx.get(f"{plane.url}/metrics", verify=False).text.splitlines())

    def ask_oddly(start: int) -> None:
        with plane.client() as client:
            for number in range(start, start + 40):
                client.get(f"/v1/made-up-{number}")
                client.post(f"/made/up/{number}", json={})
                client.post("/v1/chat/completions", json=asking("hi") | {"model": f"made-up-{number}"})
                client.post("/v1/chat/completions", json=asking("hi", user=f"user-{number}"))

    ask_oddly(0)
    before = series()
    ask_oddly(40)
    assert series() == before
    assert "made-up" not in httpx.get(f"{plane.url}/metrics", verify=False).text
