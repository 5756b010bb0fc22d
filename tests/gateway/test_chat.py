"""The chat endpoint as its clients see it, and the records it leaves."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import openai
import pytest
import requests
from gateway_fakes import ANSWER, KEY, FakeEngine, Plane, asking, fake_engine, running, wait_for

from noria.backends.fts import Indexes
from noria.types import Document

ERRORS = Path(__file__).parent / "errors.golden.json"


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngine]:
    with fake_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def plane(engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    state = tmp_path_factory.mktemp("state")
    document = Document(
        id="0" * 16, source="faq", text="Hold the reset button. Wait.", fields={}, conversation="", file="faq.html",
        offset=0, digest="0" * 16,
    )  # fmt: skip
    Indexes().build([document], state / "index")
    with running(state, engine.url, state / "index") as plane:
        yield plane


@pytest.fixture
def client(plane: Plane) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{plane.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_openai_client_gets_a_plain_answer_and_the_record_is_whole(
    client: openai.OpenAI, plane: Plane, engine: FakeEngine
) -> None:
    began = datetime.now(UTC)  # noqa: TID251
    got = client.chat.completions.with_raw_response.create(
        model="helpdesk",
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do I reset it?"}],
        user="bob",
        stop=["END"],
        store=False,
        metadata={"conversation": "talk-1"},
        max_completion_tokens=9,
        extra_body={"lora": "mine"},
    )
    answer = got.parse()
    assert (answer.choices[0].message.content, answer.model) == (ANSWER, "helpdesk")
    assert answer.usage is not None
    record = plane.recorded(got.headers["x-noria-interaction"])
    assert got.headers["x-noria-served-by"] == record.served_by == "candidate:helpdesk@0123456789abcdef"
    assert got.headers["content-type"] == "application/json"
    assert (record.status, record.error, record.answer, record.finish_reason) == (200, None, ANSWER, "stop")
    assert (record.prompt_tokens, record.completion_tokens, record.stream) == (11, 5, False)
    assert (record.conversation, record.trainable, record.context) == ("talk-1", False, "Hold the reset button. Wait.")
    assert record.messages[0] == {"role": "system", "content": "Be brief."}
    assert len(record.user) == 16
    assert 0 <= (record.at - began).total_seconds() < 60
    sent = engine.bodies[-1]
    assert sent == {
        "model": "alias",
        "messages": [
            {"role": "system", "content": "You answer.\nBe brief."},
            {
                "role": "user",
                "content": "[Context] Hold the reset button. Wait.\n[Question] How do I reset it?\n[Answer]",
            },
        ],
        "stop": ["END", "\n####"],
        "max_tokens": 9,
        "temperature": 0.0,
        "lora": [{"id": 0, "scale": 1.0}],
    }
    assert b"authorization: Bearer engine-key\r\n" in engine.heads[-1]
    assert KEY.encode() not in engine.heads[-1]


def test_openai_client_gets_a_stream(client: openai.OpenAI, plane: Plane) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="helpdesk", messages=[{"role": "user", "content": "What is leave-out?"}], stream=True
    )
    chunks = list(raw.parse())
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert chunks[-1].choices[0].finish_reason == "stop"
    record = plane.recorded(raw.headers["x-noria-interaction"])
    assert (record.answer, record.status, record.stream, record.completion_tokens) == (ANSWER, 200, True, 5)
    assert record.first_token_seconds is not None
    assert record.context is None
    assert 0 < record.first_token_seconds <= record.seconds


def test_the_usage_chunk_comes_only_when_it_was_asked_for(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="helpdesk",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5


def test_a_stream_is_recorded_before_its_end_is_seen(plane: Plane) -> None:
    with plane.client() as client, client.stream("POST", "/v1/chat/completions", json=asking("hi", stream=True)) as got:
        assert got.headers["content-type"].startswith("text/event-stream")
        for line in got.iter_lines():
            if '"finish_reason": "stop"' in line or "[DONE]" in line:
                logged = [each.id for each in plane.interactions()]
                assert got.headers["x-noria-interaction"] in logged


def test_httpx_and_requests_work_without_the_prefix_too(plane: Plane) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    for path in ("/v1/chat/completions", "/chat/completions"):
        by_httpx = httpx.post(plane.url + path, json=asking("hi"), headers=headers)
        by_requests = requests.post(plane.url + path, json=asking("hi"), headers=headers, timeout=10)
        for got in (by_httpx, by_requests):
            assert (got.status_code, got.json()["choices"][0]["message"]["content"]) == (200, ANSWER)
    assert httpx.get(f"{plane.url}/models", headers=headers).json() == {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": owner}
            for name, owner in (("alias", "local"), ("helpdesk", "noria"))
        ],
    }


def test_errors_on_the_wire(plane: Plane) -> None:
    good = {"authorization": f"Bearer {KEY}"}
    chat = "/v1/chat/completions"
    cases: dict[str, tuple[str, str, dict[str, str], str]] = {
        "no key": ("POST", chat, {}, json.dumps(asking("hi"))),
        "wrong key": ("POST", chat, {"authorization": "Bearer nr-other"}, json.dumps(asking("hi"))),
        "no such path": ("GET", "/v2/chat", good, ""),
        "wrong method": ("GET", chat, good, ""),
        "not json": ("POST", chat, good, "{"),
        "not an object": ("POST", chat, good, "[]"),
        "no messages": ("POST", chat, good, '{"model": "helpdesk"}'),
        "unknown model": ("POST", chat, good, '{"model": "gpt-9", "messages": []}'),
        "too many answers": ("POST", chat, good, json.dumps(asking("hi", n=99))),
        "too many tokens": ("POST", chat, good, json.dumps(asking("hi", max_tokens=10**6))),
        "bad max_tokens": ("POST", chat, good, json.dumps(asking("hi", max_tokens=0))),
        "bad stream": ("POST", chat, good, json.dumps(asking("hi", stream="yes"))),
        "ends with assistant": (
            "POST", chat, good, json.dumps({"model": "helpdesk", "messages": [{"role": "assistant", "content": "a"}]}),
        ),
        "too many messages": ("POST", chat, good, json.dumps(
            asking("hi") | {"messages": [{"role": "user", "content": "a"}] * 513}
        )),
        "too large": ("POST", chat, good, json.dumps(asking("x" * (4 * 1024 * 1024)))),
        "engine refuses": ("POST", chat, good, json.dumps(asking("too long"))),
        "engine refuses a stream": ("POST", chat, good, json.dumps(asking("too long", stream=True))),
        "engine talks nonsense": ("POST", chat, good, json.dumps(asking("garbage"))),
        "feedback without interaction": ("POST", "/v1/feedback", good, '{"metric": "thumbs", "value": 1}'),
        "feedback with unknown field": ("POST", "/v1/feedback", good, '{"score": 1}'),
    }  # fmt: skip
    found = {}
    with httpx.Client(base_url=plane.url, timeout=30) as client:
        for name, (method, path, headers, content) in cases.items():
            got = client.request(method, path, headers=headers, content=content)
            kept = ("allow", "content-type", "retry-after")
            found[name] = {
                "status": got.status_code,
                "headers": {key: got.headers[key] for key in kept if key in got.headers},
                "body": got.json(),
            }
            assert ("x-noria-interaction" in got.headers) == (
                got.status_code not in (401, 405) and path == chat
            )  # fmt: skip
    shown = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    if not ERRORS.exists():
        ERRORS.write_text(shown)
    assert shown == ERRORS.read_text()


def test_refusals_after_authentication_are_recorded(plane: Plane) -> None:
    with plane.client() as client:
        got = client.post("/v1/chat/completions", json={"model": "gpt-9", "messages": [{"role": "user", "content": 1}]})
    record = plane.recorded(got.headers["x-noria-interaction"])
    assert (record.status, record.task, record.error) == (404, "gpt-9", "there is no model 'gpt-9'")
    assert record.messages == ({"role": "user", "content": 1},)


def test_users_are_pseudonyms_and_training_can_be_declined(plane: Plane) -> None:
    def record(headers: dict[str, str], **more: object) -> tuple[str, bool]:
        with plane.client() as client:
            got = client.post("/v1/chat/completions", json=asking("hi", **more), headers=headers)
        found = plane.recorded(got.headers["x-noria-interaction"])
        assert found.conversation == found.id
        return found.user, found.trainable

    alice, bob = record({}), record({"x-noria-train": "no"}, user="bob")
    assert alice == record({}, user="alice")
    assert bob[0] != alice[0]
    assert (alice[1], bob[1]) == (True, False)
    assert record({}, user="bob") == (bob[0], True)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_recorded_and_stops_the_engine(plane: Plane, engine: FakeEngine, stream: bool) -> None:
    before = engine.aborted
    with plane.client() as client:
        if stream:
            with client.stream("POST", "/v1/chat/completions", json=asking("stall", stream=True)) as got:
                for line in itertools.islice((line for line in got.iter_lines() if line), 3):
                    assert line.startswith("data: ")
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/chat/completions", json=asking("stall"), timeout=0.3)
    wait_for(lambda: engine.aborted > before)
    gone = wait_for(lambda: [each for each in plane.interactions() if each.status == 499 and each.stream is stream])
    # The third word may or may not have come before the client was seen to have left.
    assert [each.answer.removesuffix(" the") for each in gone] == ["Press" if stream else ""]
    assert wait_for(lambda: httpx.get(f"{plane.url}/health").json()["inflight"] == {})


def test_a_stream_that_breaks_off_ends_with_an_error(client: openai.OpenAI, plane: Plane) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="helpdesk", messages=[{"role": "user", "content": "break"}], stream=True
    )
    with pytest.raises(openai.APIError, match="broke off"):
        list(raw.parse())
    record = plane.recorded(raw.headers["x-noria-interaction"])
    assert (record.status, record.answer) == (502, "Press the")
    assert record.error is not None


def test_an_answer_that_ends_with_the_connection_is_whole(plane: Plane) -> None:
    with plane.client() as client:
        assert client.post("/v1/chat/completions", json=asking("eof")).json()["choices"][0]["message"] == {
            "role": "assistant",
            "content": ANSWER,
        }


@pytest.mark.slow
def test_a_busy_engine_is_asked_again_and_its_message_kept(plane: Plane, engine: FakeEngine) -> None:
    before = len(engine.bodies)
    with plane.client() as client:
        got = client.post("/v1/chat/completions", json=asking("busy"))
    assert (got.status_code, got.json()["error"]["message"]) == (503, "loading")
    assert got.headers["retry-after"] == "1"
    assert len(engine.bodies) - before == 4


def test_feedback_is_logged(plane: Plane) -> None:
    with plane.client() as client:
        answered = client.post("/v1/chat/completions", json=asking("hi")).headers["x-noria-interaction"]
        given = client.post("/v1/feedback", json={"interaction": answered, "metric": "thumbs", "value": 1})
        corrected = client.post("/feedback", json={"interaction": answered, "correction": "Pull it.", "user": "bob"})
    found = {each.id: each for each in plane.feedback()}
    thumbs, correction = found[given.json()["id"]], found[corrected.json()["id"]]
    assert (thumbs.interaction, thumbs.metric, thumbs.value, thumbs.correction) == (answered, "thumbs", 1.0, None)
    assert (correction.metric, correction.value, correction.correction) == ("correction", None, "Pull it.")
    assert thumbs.user == plane.recorded(answered).user != correction.user


def test_metrics_and_health_need_no_key_and_know_only_real_tasks(plane: Plane) -> None:
    with plane.client() as client:
        client.post("/v1/chat/completions", json=asking("hi"))
        client.post("/v1/chat/completions", json=asking("hi") | {"model": "made-up"})
    health = httpx.get(f"{plane.url}/health").json()
    assert plane.process is not None
    assert health == {"status": "ok", "pid": plane.process.pid, "snapshot": plane.version, "inflight": {}}
    text = httpx.get(f"{plane.url}/metrics").text
    assert 'noria_gateway_requests_total{arm="champion",status="200",task="helpdesk"}' in text
    assert 'noria_gateway_requests_total{arm="",status="404",task="other"}' in text
    assert "made-up" not in text
    assert 'noria_gateway_tokens_total{arm="champion",direction="completion",task="helpdesk"}' in text
