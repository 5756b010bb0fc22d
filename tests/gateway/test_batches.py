"""The Files and Batch APIs as the official client sees them, and what a batch leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from gateway_fakes import ANSWER, KEY, FakeEngine, Plane, running, wait_for
from openai.types import Batch
from scripted_engine import completion, scripted

from noria.backends.clock import SystemClock
from noria.gateway.batch.files import FileStore
from noria.gateway.batch.job import Job
from noria.gateway.batch.lines import Check
from noria.gateway.batch.store import BatchStore
from noria.settings import GatewaySettings
from noria.types import KeyGrant, Snapshot

pytestmark = pytest.mark.slow

OTHER_KEY = "nr-other-key"
ENDED = ("completed", "failed", "cancelled", "expired")


def request(name: str, text: str = "hi", **more: Any) -> dict[str, Any]:
    body = {"model": "helpdesk", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body, **more}


def lines(*requests: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in requests)


def begin(client: openai.OpenAI, content: bytes, endpoint: Any = "/v1/chat/completions", **more: Any) -> Batch:
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def ended(client: openai.OpenAI, identity: str, seconds: float = 30.0) -> Batch:
    def look() -> Batch | None:
        found = client.batches.retrieve(identity)
        return found if found.status in ENDED else None

    return wait_for(look, seconds)


def results(client: openai.OpenAI, identity: str | None) -> list[dict[str, Any]]:
    assert identity is not None
    return [json.loads(line) for line in client.files.content(identity).content.splitlines()]


def add_key(plane: Plane, revoked: bool = False) -> None:
    """A second key, of another id; `revoked` takes the first one away."""
    file = plane.state / "snapshot.json"
    snapshot = Snapshot.model_validate_json(file.read_bytes())
    grant = KeyGrant(id="k2", name="mallory", role="admin")
    keys = {**({} if revoked else snapshot.keys), hashlib.sha256(OTHER_KEY.encode()).hexdigest(): grant}
    fresh = file.with_suffix(".fresh")
    fresh.write_text(snapshot.model_copy(update={"keys": keys, "version": 99}).model_dump_json())
    fresh.replace(file)
    wait_for(lambda: httpx.get(f"{plane.url}/health").json()["snapshot"] == 99)


def test_a_batch_is_answered_and_recorded(client: openai.OpenAI, plane: Plane) -> None:
    content = lines(request("a"), request("b", "too long"), request("c"), request("d", model="x"))
    content += lines({**request("e"), "body": {"model": "helpdesk", "messages": []}})
    made = begin(client, content, metadata={"who": "me"})
    assert made.status in ("validating", "in_progress")
    done = ended(client, made.id)
    assert (done.status, done.metadata, done.model, done.errors) == ("completed", {"who": "me"}, "helpdesk", None)
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (5, 3, 2)
    assert done.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens) == (33, 15)
    times = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at, done.expires_at]
    assert times == sorted(each for each in times if each is not None)
    good = {each["custom_id"]: each for each in results(client, done.output_file_id)}
    assert sorted(good) == ["a", "c", "d"]
    assert good["a"]["error"] is None
    assert good["a"]["response"]["status_code"] == 200
    assert good["a"]["response"]["body"]["choices"][0]["message"]["content"] == ANSWER
    bad = {each["custom_id"]: each["response"] for each in results(client, done.error_file_id)}
    assert (bad["b"]["status_code"], bad["e"]["status_code"]) == (400, 400)
    assert "too many tokens" in bad["b"]["body"]["error"]["message"]
    record = plane.recorded(good["a"]["response"]["request_id"])
    assert (record.api, record.status, record.answer, record.key) == ("batch:chat", 200, ANSWER, "k1")
    assert [each.id for each in client.batches.list()] == [made.id]
    output = client.files.retrieve(done.output_file_id or "")
    assert output.purpose == "batch_output"
    assert not list((plane.state / "batches").rglob("*.jsonl"))
    assert not list((plane.state / "batches" / ".open").iterdir())


FAULTY: dict[str, tuple[bytes, list[tuple[str, int | None]]]] = {
    "no JSON": (lines(request("a")) + b"{no\n[1]\n", [("invalid_json_line", 2), ("invalid_json_line", 3)]),
    "no custom_id": (lines({**request("a"), "custom_id": None}), [("missing_required_parameter", 1)]),
    "a custom_id twice": (lines(request("a"), request("b"), request("a")), [("duplicate_custom_id", 3)]),
    "another url": (lines(request("a", url="/v1/embeddings")), [("url_mismatch", 1)]),
    "another method": (lines(request("a", method="GET")), [("invalid_method", 1)]),
    "no body": (lines(request("a", body=None)), [("missing_required_parameter", 1)]),
    "a stream": (lines(request("a", body={"stream": True})), [("invalid_request", 1)]),
    "nothing": (b"\n\n", [("empty_file", None)]),
    "too many": (lines(*(request(str(number)) for number in range(6))), [("too_many_tasks", None)]),
    "a line without end": (b'{"custom_id": "' + b"x" * 20_000, [("invalid_json_line", 1)]),
}


def test_a_faulty_file_fails_as_a_whole(engine: FakeEngine, plane: Plane, client: openai.OpenAI) -> None:
    plane.rules = {"batch_lines": 5, "body_bytes": 8192}
    plane.publish(engine.url)
    wait_for(lambda: httpx.get(f"{plane.url}/health").json()["snapshot"] == plane.version)
    for case, (content, faults) in FAULTY.items():
        done = ended(client, begin(client, content).id)
        assert (done.status, done.output_file_id, done.failed_at is None) == ("failed", None, False), case
        assert done.errors is not None
        assert [(each.code, each.line) for each in done.errors.data or []] == faults, case
    assert engine.bodies == []


def test_nobody_sees_the_files_and_batches_of_another_key(plane: Plane, client: openai.OpenAI) -> None:
    made = begin(client, lines(request("a")))
    done = ended(client, made.id)
    add_key(plane)
    with openai.OpenAI(base_url=f"{plane.url}/v1", api_key=OTHER_KEY, max_retries=0) as other:
        assert list(other.files.list()) == []
        assert list(other.batches.list()) == []
        for identity in (made.input_file_id, done.output_file_id or ""):
            for call in (other.files.retrieve, other.files.content, other.files.delete):
                with pytest.raises(openai.NotFoundError):
                    call(identity)
        for ask in (other.batches.retrieve, other.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                ask(made.id)
        with pytest.raises(openai.NotFoundError):
            other.batches.create(
                input_file_id=made.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )
    assert client.files.content(made.input_file_id).content == lines(request("a"))


def test_a_batch_is_cancelled_and_what_was_answered_stays(engine: FakeEngine, client: openai.OpenAI) -> None:
    engine.delay = 0.2
    made = begin(client, lines(*(request(str(number)) for number in range(200))))
    wait_for(lambda: engine.bodies)
    asked = client.batches.cancel(made.id)
    assert asked.status == "cancelling"
    assert asked.cancelling_at is not None
    done = ended(client, made.id)
    assert (done.status, done.cancelling_at, done.cancelled_at is None) == ("cancelled", asked.cancelling_at, False)
    assert done.request_counts is not None
    assert 0 < done.request_counts.completed == len(results(client, done.output_file_id)) < 200
    with pytest.raises(openai.ConflictError, match="cancelled"):
        client.batches.cancel(made.id)


def test_a_batch_waits_for_limits_and_for_clients(engine: FakeEngine, plane: Plane, client: openai.OpenAI) -> None:
    plane.grant = {"limits": {"streams": 1}}
    plane.publish(engine.url)
    wait_for(lambda: httpx.get(f"{plane.url}/health").json()["snapshot"] == plane.version)
    engine.delay = 0.1
    done = ended(client, begin(client, lines(*(request(str(number)) for number in range(4)))).id)
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (4, 0)


def test_a_line_is_asked_only_while_clients_leave_room(engine: FakeEngine, plane: Plane, client: openai.OpenAI) -> None:
    with plane.client() as http, http.stream("POST", "/v1/chat/completions", json=stalled()) as first:
        assert first.status_code == 200
        with http.stream("POST", "/v1/chat/completions", json=stalled()) as second:
            assert second.status_code == 200
            made = begin(client, lines(request("a")))
            wait_for(lambda: client.batches.retrieve(made.id).status == "in_progress")
            # Many looks for room later, it is still waiting.
            for _ in range(50):
                assert httpx.get(f"{plane.url}/health").status_code == 200
            assert len(engine.bodies) == 2
    assert ended(client, made.id).status == "completed"


def stalled() -> dict[str, Any]:
    return {"model": "helpdesk", "stream": True, "messages": [{"role": "user", "content": "stall"}]}


def test_wrong_requests_are_refused(engine: FakeEngine, plane: Plane, client: openai.OpenAI) -> None:
    plane.rules = {"file_bytes": 100_000, "files_bytes": 150_000}
    plane.publish(engine.url)
    wait_for(lambda: httpx.get(f"{plane.url}/health").json()["snapshot"] == plane.version)
    file = client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    ours = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    wrong = client.files.create(file=("a.jsonl", b"{}"), purpose="evals")
    boundary = {"content-type": "multipart/form-data; boundary=b"}
    with plane.client() as http:
        cases: list[tuple[int, str, httpx.Response]] = [
            (413, "100000", http.post("/v1/files", files={"file": b"x" * 200_000}, data={"purpose": "batch"})),
            (413, "100000", http.post("/v1/files", files={"file": b"x" * 100_001}, data={"purpose": "batch"})),
            (400, "purpose", http.post("/v1/files", files={"file": b"x"}, data={"purpose": "batch_output"})),
            (400, "no file", http.post("/v1/files", data={"purpose": "batch"}, files={"other": b""})),
            (400, "twice", http.post("/v1/files", files=[("file", b"x"), ("file", b"y")], data={"purpose": "batch"})),
            (400, "multipart", http.post("/v1/files", json={})),
            (400, "broke off", http.post("/v1/files", content=b"--b\r\n", headers=boundary)),
            (400, "boundary", http.post("/v1/files", content=b"x" * 50_000, headers=boundary)),
            (400, "seconds", http.post("/v1/files", files={"file": b"x"}, data={
                "purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "5",
            })),
            (400, "limit", http.get("/v1/files?limit=0")),
            (400, "order", http.get("/v1/files?order=up")),
            (404, "no path", http.get("/v1/files/..%2f..%2fsecret")),
            (404, "no path", http.get(f"/v1/files/{file.id}/more")),
            (405, "POST", http.delete("/v1/files")),
            (405, "GET", http.put(f"/v1/files/{file.id}")),
            (400, "endpoint", http.post("/v1/batches", json={**ours, "endpoint": "/v1/none"})),
            (400, "completion_window", http.post("/v1/batches", json={**ours, "completion_window": "0h"})),
            (400, "input_file_id", http.post("/v1/batches", json={**ours, "input_file_id": 3})),
            (400, "purpose", http.post("/v1/batches", json={**ours, "input_file_id": wrong.id})),
            (404, "no file", http.post("/v1/batches", json={**ours, "input_file_id": "file-" + "0" * 32})),
            (400, "metadata", http.post("/v1/batches", json={**ours, "metadata": {"a": 1}})),
            (404, "no batch", http.get("/v1/batches/batch_1")),
            (405, "POST", http.get(f"/v1/batches/batch_{'0' * 32}/cancel")),
            (401, "key", httpx.get(f"{plane.url}/v1/files")),
            (401, "key", httpx.post(f"{plane.url}/v1/batches", json=ours)),
        ]  # fmt: skip
        for number, (status, words, got) in enumerate(cases):
            assert (got.status_code, words in got.text) == (status, True), (number, got.status_code, got.text)
        http.post("/v1/files", files={"file": b"x" * 90_000}, data={"purpose": "batch"})
        full = http.post("/v1/files", files={"file": b"x" * 90_000}, data={"purpose": "batch"})
        assert (full.status_code, "150000" in full.text) == (400, True)
    assert not list((plane.state / "files").rglob(".upload*"))


@pytest.mark.slow
def test_a_batch_survives_kills(engine: FakeEngine, plane: Plane) -> None:
    engine.delay = 0.02
    names = [f"q{number}" for number in range(120)]
    identity = ""
    for turn in range(4):
        with openai.OpenAI(base_url=f"{plane.url}/v1", api_key=KEY, max_retries=0) as client:
            if not identity:
                identity = begin(client, lines(*(request(name) for name in names))).id
            enough = len(engine.bodies) + 15
            wait_for(partial(lambda most: len(engine.bodies) > most, enough))
        plane.stop(signal.SIGKILL)
        output = plane.state / "batches" / "k1" / identity / "output.jsonl"
        if turn == 2:
            with output.open("ab") as file:
                file.write(b'{"custom_id": "torn')
        before = output.read_bytes().count(b"\n")
        plane.start()
    with openai.OpenAI(base_url=f"{plane.url}/v1", api_key=KEY, max_retries=0) as client:
        done = ended(client, identity, 60.0)
        found = [each["custom_id"] for each in results(client, done.output_file_id)]
    assert done.status == "completed"
    assert sorted(found) == sorted(names)
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed) == (120, 120)
    assert 0 < before < 120
    # Only what was in flight when it was killed was asked twice.
    assert len(engine.bodies) <= 120 + 4 * 2


def spawned(state: Path, port: int, number: int) -> subprocess.Popen[bytes]:
    """One of two workers on one port."""
    command = [sys.executable, "-m", "noria.apps.gateway", "--state", str(state), "--port", str(port)]
    with (state / "log").open("ab") as log:
        return subprocess.Popen([*command, "--worker", str(number), "--workers", "2"], stderr=log)


def working(plane: Plane) -> int:
    """Process id of who works batches off."""
    inode = (plane.state / "batches" / "worker.lock").stat().st_ino
    held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return next((int(each[4]) for each in held if each[1] == "FLOCK" and each[5].endswith(f":{inode}")), 0)


@pytest.mark.slow
def test_of_several_workers_one_works_and_another_takes_over(engine: FakeEngine, plane: Plane) -> None:
    plane.stop()
    port = int(plane.url.rpartition(":")[2])
    workers = [spawned(plane.state, port, number) for number in range(2)]
    try:
        wait_for(lambda: len(list((plane.state / "workers").glob("[01].json"))) == 2 and working(plane))
        engine.delay = 0.05
        names = [f"q{number}" for number in range(80)]
        with openai.OpenAI(base_url=f"{plane.url}/v1", api_key=KEY, max_retries=5) as client:
            identity = begin(client, lines(*(request(name, name) for name in names))).id
            wait_for(lambda: len(engine.bodies) > 20)
            first = working(plane)
            os.kill(first, signal.SIGKILL)
            done = ended(client, identity, 60.0)
            found = [each["custom_id"] for each in results(client, done.output_file_id)]
    finally:
        for each in workers:
            each.kill()
            each.wait(30)
    assert sorted(found) == sorted(names)
    asked = Counter(body["messages"][-1]["content"] for body in engine.bodies)
    # Only what was in flight when the first one died was asked again.
    assert sum(asked.values()) <= len(names) + 2
    assert {each.pid for each in workers} >= {first}


def test_other_endpoints_have_batches_too(tmp_path: Path) -> None:
    vector = {"object": "list", "model": "alias", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
              "usage": {"prompt_tokens": 3, "total_tokens": 3}}  # fmt: skip
    with scripted() as script, running(tmp_path / "state", script.url) as plane:
        script.answers = {
            "/v1/embeddings": (200, vector),
            "/v1/chat/completions": (200, completion({"content": ANSWER})),
        }
        with openai.OpenAI(base_url=f"{plane.url}/v1", api_key=KEY, max_retries=0) as client:
            for url in ("/v1/embeddings", "/v1/responses"):
                line = {"custom_id": "a", "method": "POST", "url": url, "body": {"model": "alias", "input": "hi"}}
                done = ended(client, begin(client, lines(line), endpoint=url).id)
                assert (done.status, done.error_file_id) == ("completed", None)
                assert done.usage is not None
                [got] = results(client, done.output_file_id)
                body = got["response"]["body"]
                if url == "/v1/embeddings":
                    assert (body["data"][0]["embedding"], done.usage.total_tokens) == ([0.5], 3)
                else:
                    assert (body["object"], body["status"]) == ("response", "completed")
                    assert body["output"][-1]["content"][0]["text"] == ANSWER
                    assert (done.usage.input_tokens, done.usage.output_tokens) == (11, 5)
                assert plane.recorded(got["response"]["request_id"]).api == f"batch:{url.rpartition('/')[2]}"


def test_a_batch_may_be_kept_out_of_training(plane: Plane, client: openai.OpenAI) -> None:
    for header, trainable in (({}, True), ({"x-noria-train": "No"}, False)):
        done = ended(client, begin(client, lines(request("a")), extra_headers=header).id)
        [got] = results(client, done.output_file_id)
        assert plane.recorded(got["response"]["request_id"]).trainable is trainable


def test_batches_are_listed_by_page(client: openai.OpenAI) -> None:
    made = [begin(client, lines(request("a"))).id for _ in range(5)]
    first = client.batches.list(limit=2)
    assert ([each.id for each in first.data], first.has_more) == (made[:2:-1], True)
    assert [each.id for each in client.batches.list(limit=2)] == made[::-1]
    assert [each.id for each in client.batches.list(after=made[1])] == made[:1]


def kept(plane: Plane, identity: str) -> Path:
    return plane.state / "batches" / "k1" / identity / "batch.json"


def test_what_is_left_when_the_time_is_up_has_expired(engine: FakeEngine, plane: Plane, client: openai.OpenAI) -> None:
    engine.delay = 0.05
    made = begin(client, lines(*(request(str(number)) for number in range(200))))
    wait_for(lambda: len(engine.bodies) > 5)
    plane.stop(signal.SIGKILL)
    record = json.loads(kept(plane, made.id).read_bytes())
    record["told"]["expires_at"] = record["told"]["created_at"]
    kept(plane, made.id).write_text(json.dumps(record))
    plane.start()
    with openai.OpenAI(base_url=f"{plane.url}/v1", api_key=KEY, max_retries=0) as again:
        done = ended(again, made.id)
        good, bad = results(again, done.output_file_id), results(again, done.error_file_id)
    assert (done.status, done.expired_at is None, len(good) + len(bad)) == ("expired", False, 200)
    assert {each["error"]["code"] for each in bad} == {"batch_expired"}
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (len(good), len(bad))


def test_a_batch_ends_with_its_key(engine: FakeEngine, plane: Plane, client: openai.OpenAI) -> None:
    engine.delay = 0.1
    made = begin(client, lines(*(request(str(number)) for number in range(200))))
    wait_for(lambda: len(engine.bodies) > 2)
    add_key(plane, revoked=True)
    told = wait_for(
        lambda: (found := json.loads(kept(plane, made.id).read_bytes())["told"])["status"] == "failed" and found
    )
    assert told["errors"]["data"][0]["code"] == "invalid_api_key"
    assert len(engine.bodies) < 200


def test_a_line_may_not_ask_what_its_key_may_not(engine: FakeEngine, plane: Plane, client: openai.OpenAI) -> None:
    plane.grant = {"models": ("helpdesk",)}
    plane.publish(engine.url)
    wait_for(lambda: httpx.get(f"{plane.url}/health").json()["snapshot"] == plane.version)
    body = {"model": "alias", "messages": [{"role": "user", "content": "hi"}]}
    done = ended(client, begin(client, lines(request("a", body=body))).id)
    [got] = results(client, done.error_file_id)
    assert got["response"]["status_code"] in (401, 403)
    assert "may not ask" in got["response"]["body"]["error"]["message"]
    assert (done.status, done.output_file_id, engine.bodies) == ("completed", None, [])


class Dying(BatchStore):
    """Dies before a batch is written down as ended, with its results handed over already."""

    def write(self, owner: str, record: Mapping[str, Any]) -> None:
        if record["told"]["status"] == "completed":
            raise OSError("killed")
        super().write(owner, record)


def test_a_kill_while_the_results_are_handed_over_changes_nothing(tmp_path: Path) -> None:
    files, clock = FileStore(tmp_path / "files"), SystemClock()
    source = tmp_path / "input"
    source.write_bytes(lines(request("a"), request("b")))
    told: dict[str, Any] = {
        "id": "batch_" + "0" * 32, "endpoint": "/v1/chat/completions", "status": "validating", "errors": None,
        "expires_at": clock.now().timestamp() + 3600, "request_counts": {}, "expired_at": None, "finalizing_at": None,
    }  # fmt: skip
    store = Dying(tmp_path / "batches")
    store.create("k1", {"told": told, "kept": None, "trainable": True}, source, GatewaySettings())
    job = Job(store, files, clock, "k1", store.read("k1", told["id"]))
    check = Check("/v1/chat/completions", 10, [], set())
    for piece in job.pieces(1000):
        for text, whole in piece:
            check.take(text, whole)
    job.checked(check)
    job.open()
    while (line := job.next()) is not None:
        job.took(line, 200 if line.custom_id == "a" else 400, 0.0, "r", b"{}", 0.0)
    with pytest.raises(OSError, match="killed"):
        job.finish()
    before = files.identities("k1")
    again = BatchStore(tmp_path / "batches")
    job = Job(again, files, clock, "k1", again.read("k1", told["id"]))
    assert job.status == "finalizing"
    job.open()
    job.finish()
    done = again.told("k1", told["id"])
    assert (done["status"], done["request_counts"]["completed"], done["request_counts"]["failed"]) == (
        "completed",
        1,
        1,
    )
    assert sorted([done["output_file_id"], done["error_file_id"]]) == files.identities("k1") == before
    assert again.waiting() == []
