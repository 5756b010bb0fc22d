"""What callers may use: minutes, days, streams, models, and what happens to the record."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_fakes import ANSWER, KEY, FakeEngine, Plane, asking, fake_engine, wait_for
from hard_fakes import arm, ask, engines, serving, task, write_snapshot
from hypothesis import given
from hypothesis import strategies as st
from test_unlogged import FullDisk, Memory, call, gateway

from noria.gateway.limits import Ledger, Limited, Subject
from noria.settings import LimitSettings
from noria.types import KeyGrant, Route

NOON = 20_000 * 86400.0 + 43200.0
USER = "nr-user"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "limits.bin")
    yield ledger
    ledger.close()


def subject(**limits: Any) -> Subject:
    return Subject("key:k", "key 'k'", LimitSettings(**limits))


def admitted(ledger: Ledger, who: Subject, tokens: int, now: float, cost: float = 0.0) -> bool:
    try:
        ledger.settle(ledger.reserve([who], tokens, cost, now), tokens, cost)
    except Limited:
        return False
    return True


def test_a_minute_s_requests_may_come_at_once_and_then_come_back_evenly(ledger: Ledger) -> None:
    who = subject(requests_per_minute=60)
    assert [admitted(ledger, who, 1, NOON) for _ in range(61)] == [True] * 60 + [False]
    assert [admitted(ledger, who, 1, NOON + 0.9), admitted(ledger, who, 1, NOON + 1.0)] == [False, True]
    assert sum(admitted(ledger, who, 1, NOON + 11) for _ in range(60)) == 10


@pytest.mark.slow
@given(
    rate=st.integers(1, 100),
    gaps=st.lists(st.floats(0, 20), min_size=1, max_size=200),
    tokens=st.lists(st.integers(1, 50), min_size=200, max_size=200),
)
def test_no_span_of_time_has_more_than_a_burst_and_what_came_back(
    tmp_path_factory: pytest.TempPathFactory, rate: int, gaps: list[float], tokens: list[int]
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("l") / "limits.bin")
    who = subject(requests_per_minute=rate, tokens_per_minute=rate * 50)
    now, times = NOON, []
    for gap, number in zip(gaps, tokens, strict=False):
        now += gap
        if admitted(ledger, who, number, now):
            times.append((now, number))
    ledger.close()
    for place, (start, _) in enumerate(times):
        for end in range(place, len(times)):
            seconds = times[end][0] - start
            assert end - place + 1 <= rate + seconds * rate / 60 + 1e-6
            used = sum(number for _, number in times[place : end + 1])
            assert used <= rate * 50 + seconds * rate * 50 / 60 + 1e-3


def test_the_error_names_the_limit_and_when_to_come_back(ledger: Ledger) -> None:
    who = subject(requests_per_minute=6)
    for _ in range(6):
        ledger.reserve([who], 1, 0.0, NOON)
    with pytest.raises(Limited) as caught:
        ledger.reserve([who], 1, 0.0, NOON + 4)
    assert caught.value.limit == "requests_per_minute"
    assert caught.value.wait == pytest.approx(6.0)


def test_tokens_are_reserved_at_admission_and_settled_at_the_end(ledger: Ledger) -> None:
    who = subject(tokens_per_minute=1000)
    first = ledger.reserve([who], 800, 0.0, NOON)
    with pytest.raises(Limited, match="tokens_per_minute"):
        ledger.reserve([who], 300, 0.0, NOON)
    ledger.settle(first, 100, 0.0)
    second = ledger.reserve([who], 900, 0.0, NOON)
    ledger.settle(second, 900, 0.0)
    ledger.settle(second, 0, 0.0)
    assert not admitted(ledger, who, 10, NOON)


def test_a_request_that_used_more_than_reserved_is_paid_for(ledger: Ledger) -> None:
    who = subject(tokens_per_minute=600)
    ledger.settle(ledger.reserve([who], 10, 0.0, NOON), 1200, 0.0)
    assert not admitted(ledger, who, 10, NOON + 59)
    assert admitted(ledger, who, 600, NOON + 121)


def test_one_request_larger_than_a_minute_passes_alone(ledger: Ledger) -> None:
    who = subject(tokens_per_minute=100)
    assert admitted(ledger, who, 5000, NOON)
    assert not admitted(ledger, who, 1, NOON + 30)


@pytest.mark.parametrize(
    ("limits", "name", "tokens", "cost"),
    [({"tokens_per_day": 1000}, "tokens_per_day", 400, 0.0), ({"cost_per_day": 1.0}, "cost_per_day", 1, 0.4)],
)
def test_a_day_s_budget_ends_and_begins_again_at_midnight(
    ledger: Ledger, limits: dict[str, float], name: str, tokens: int, cost: float
) -> None:
    who = subject(**limits)
    assert [admitted(ledger, who, tokens, NOON, cost) for _ in range(3)] == [True, True, False]
    with pytest.raises(Limited) as caught:
        ledger.reserve([who], tokens, cost, NOON)
    assert (caught.value.limit, caught.value.wait) == (name, 43200.0)
    assert admitted(ledger, who, tokens, NOON + 43200.0, cost)
    assert ledger.used(who, NOON + 43200.0)["tokens"] == tokens


def test_what_ends_after_midnight_does_not_count_twice(ledger: Ledger) -> None:
    who = subject(tokens_per_day=1000)
    late = ledger.reserve([who], 900, 0.0, NOON)
    assert admitted(ledger, who, 500, NOON + 43201)
    ledger.settle(late, 100, 0.0)
    assert ledger.used(who, NOON + 43201)["tokens"] == 500


def test_streams_are_given_free_at_their_end(ledger: Ledger) -> None:
    who = subject(streams=2)
    held = [ledger.reserve([who], 1, 0.0, NOON) for _ in range(2)]
    with pytest.raises(Limited, match="streams"):
        ledger.reserve([who], 1, 0.0, NOON)
    ledger.settle(held[0], 1, 0.0)
    assert admitted(ledger, who, 1, NOON)


def test_a_refusal_counts_nothing_anywhere(ledger: Ledger) -> None:
    roomy, tight = Subject("key:a", "a", LimitSettings(tokens_per_day=100)), subject(requests_per_minute=1)
    assert admitted(ledger, tight, 1, NOON)
    with pytest.raises(Limited):
        ledger.reserve([roomy, tight], 50, 0.0, NOON)
    assert ledger.used(roomy, NOON) == {"tokens": 0, "cost": 0.0, "streams": 0}


def test_workers_share_what_is_used_and_a_dead_one_leaves_no_streams(tmp_path: Path) -> None:
    file = tmp_path / "limits.bin"
    first, second = Ledger(file, 0, alone=False), Ledger(file, 1, alone=False)
    who = subject(requests_per_minute=10, streams=8)
    for each in range(10):
        (first, second)[each % 2].reserve([who], 1, 0.0, NOON) if each < 8 else None
    with pytest.raises(Limited, match="streams"):
        second.reserve([who], 1, 0.0, NOON)
    first.close()
    again = Ledger(file, 0, alone=False)
    assert again.used(who, NOON)["streams"] == 4
    assert [admitted(again, who, 1, NOON) for _ in range(3)] == [True, True, False]
    again.close()
    second.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngine]:
    with fake_engine() as engine:
        yield engine


def plane_with(tmp_path: Path, engine: FakeEngine, limits: dict[str, Any], **more: Any) -> Any:
    grant = KeyGrant(id="k1", name="alice", role="developer", limits=limits)
    price = more.pop("price", (0.0, 0.0))
    routes = {"helpdesk": Route(arms=(arm("c", engine.url, price=price),), task=task(**more))}
    return serving(tmp_path / "s", routes, {KEY: grant})


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_over_the_wire_a_limit_is_429_with_its_name_and_when_to_retry(
    engine: FakeEngine, tmp_path: Path, stream: bool
) -> None:
    with plane_with(tmp_path, engine, {"requests_per_minute": 3}) as plane:
        got = [ask(plane, "hi", stream=stream) for _ in range(4)]
        assert [each.status_code for each in got] == [200, 200, 200, 429]
        assert got[3].headers["x-noria-limit"] == "requests_per_minute"
        assert 1 <= int(got[3].headers["retry-after"]) <= 20
        assert got[3].json()["error"]["code"] == "rate_limit_exceeded"
        record = plane.recorded(got[3].headers["x-noria-interaction"])
        assert (record.status, record.messages[0]["content"]) == (429, "hi")


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_over_the_wire_requests_that_run_side_by_side_cannot_all_pass_one_limit(
    engine: FakeEngine, tmp_path: Path, stream: bool
) -> None:
    with plane_with(tmp_path, engine, {"tokens_per_minute": 400}) as plane:
        codes: list[int] = []
        threads = [
            threading.Thread(target=lambda: codes.append(ask(plane, "slow", stream=stream, max_tokens=100).status_code))
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(codes) == [200] * 3 + [429] * 9
        # What was reserved and not used has come back.
        assert ask(plane, "hi", max_tokens=250).status_code == 200


@pytest.mark.slow
def test_over_the_wire_a_task_s_limit_holds_for_all_keys_together(engine: FakeEngine, tmp_path: Path) -> None:
    keys = {each: KeyGrant(id=each, name=each, role="user") for each in ("nr-a", "nr-b")}
    routes = {"helpdesk": Route(arms=(arm("c", engine.url),), task=task(limits={"requests_per_minute": 4}))}
    with serving(tmp_path / "s", routes, keys) as plane:
        codes = [ask(plane, "hi", key=("nr-a", "nr-b")[each % 2]).status_code for each in range(6)]
        assert codes == [200] * 4 + [429] * 2
        assert "task 'helpdesk'" in ask(plane, "hi", key="nr-a").json()["error"]["message"]


@pytest.mark.slow
def test_over_the_wire_cost_is_what_the_engine_counted_at_the_arm_s_price(engine: FakeEngine, tmp_path: Path) -> None:
    # 11 prompt and 5 completion tokens at 10,000 and 20,000 a million cost 0.21.
    with plane_with(tmp_path, engine, {"cost_per_day": 1.5}, price=(10_000.0, 20_000.0)) as plane:
        got = [ask(plane, "hi", max_tokens=20) for _ in range(6)]
        codes = [each.status_code for each in got]
        assert codes[:3] == [200] * 3
        assert codes[-1] == 429
        assert got[-1].headers["x-noria-limit"] == "cost_per_day"
        assert plane.recorded(got[0].headers["x-noria-interaction"]).cost == pytest.approx(0.21)


@pytest.mark.slow
def test_over_the_wire_a_stream_that_its_client_left_no_longer_counts(engine: FakeEngine, tmp_path: Path) -> None:
    with plane_with(tmp_path, engine, {"streams": 1}) as plane:
        body = asking("stall", stream=True)
        with plane.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as got:
            lines = got.iter_lines()
            next(lines)
            refused = ask(plane, "hi")
            assert (refused.status_code, refused.headers["x-noria-limit"]) == (429, "streams")
        wait_for(lambda: ask(plane, "hi").status_code == 200 or None)


@pytest.mark.slow
def test_limits_survive_a_kill(engine: FakeEngine, tmp_path: Path) -> None:
    with plane_with(tmp_path, engine, {"requests_per_minute": 2, "streams": 1}) as plane:
        assert ask(plane, "hi").status_code == 200
        plane.stop(9)
        plane.start()
        assert [ask(plane, "hi").status_code for _ in range(2)] == [200, 429]


@pytest.mark.slow
def test_roles_and_models_say_what_a_key_may_ask(engine: FakeEngine, tmp_path: Path) -> None:
    keys = {
        "nr-admin": KeyGrant(id="1", name="root", role="admin"),
        "nr-dev": KeyGrant(id="2", name="dev", role="developer"),
        USER: KeyGrant(id="3", name="user", role="user"),
        "nr-one": KeyGrant(id="4", name="one", role="developer", models=("base",)),
    }
    routes = {
        "helpdesk": engines([arm("c", engine.url)]),
        "base": Route(arms=(arm("base", engine.url),)),
        "base:lora": Route(arms=(arm("base:lora", engine.url),)),
    }
    allowed = {
        "nr-admin": {"helpdesk", "base", "base:lora"}, "nr-dev": {"helpdesk", "base", "base:lora"},
        USER: {"helpdesk"}, "nr-one": {"base"},
    }  # fmt: skip
    with serving(tmp_path / "s", routes, keys) as plane:
        for key, models in allowed.items():
            headers = {"authorization": f"Bearer {key}"}
            listed = httpx.get(f"{plane.url}/v1/models", headers=headers, verify=False).json()["data"]
            assert {each["id"] for each in listed} == models
            for model in routes:
                got = ask(plane, "hi", key=key, model=model)
                assert (got.status_code == 200) == (model in models)
                assert got.status_code in (200, 401, 403)


@pytest.mark.slow
def test_a_revoked_key_is_refused_as_soon_as_the_snapshot_says_so(engine: FakeEngine, tmp_path: Path) -> None:
    routes = {"helpdesk": engines([arm("c", engine.url)])}
    grant = KeyGrant(id="1", name="a", role="developer")
    with serving(tmp_path / "s", routes, {KEY: grant, USER: grant}) as plane:
        assert ask(plane, "hi", key=USER).status_code == 200
        write_snapshot(plane.state, routes, {KEY: grant}, version=2)
        wait_for(lambda: ask(plane, "hi", key=USER).status_code == 401 or None)
        assert ask(plane, "hi").status_code == 200


def in_process(tmp_path: Path, engine: FakeEngine, recorder: Any, **more: Any) -> Callable[..., Any]:
    rules = more.pop("rules", {})
    write_snapshot(tmp_path, {"helpdesk": Route(arms=(arm("c", engine.url),), task=task(**more))}, rules=rules)
    app = gateway(tmp_path, recorder)

    def post(text: str, **fields: Any) -> list[dict[str, Any]]:
        return asyncio.run(call(app, "/v1/chat/completions", asking(text, **fields)))

    return post


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_when_the_disk_is_full_traffic_is_refused_or_the_log_dropped_as_set(
    engine: FakeEngine, tmp_path: Path, stream: bool
) -> None:
    for rule in ("refuse", "drop"):
        folder = tmp_path / rule
        folder.mkdir()
        sent = in_process(folder, engine, FullDisk(), rules={"log_full": rule})("hi", stream=stream)
        data = b"".join(message.get("body", b"") for message in sent)
        assert (b"could not be logged" in data) == (rule == "refuse")
        assert (b"[DONE]" in data if stream else ANSWER.encode() in data) == (rule == "drop")


@pytest.mark.slow
def test_of_a_sample_the_texts_are_kept_and_of_all_the_numbers(engine: FakeEngine, tmp_path: Path) -> None:
    memory = Memory()
    post = in_process(tmp_path, engine, memory, record={"sample": 0.5})
    for _ in range(40):
        post("a secret")
    records = [json.loads(line) for line in memory.lines]
    kept = [each for each in records if each["messages"]]
    assert len(records) == 40
    assert 5 <= len(kept) <= 35
    for each in records:
        assert (each["status"], each["prompt_tokens"], each["completion_tokens"]) == (200, 11, 5)
    for each in records:
        if each not in kept:
            assert "a secret" not in json.dumps(each)
            assert ANSWER not in json.dumps(each)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_redaction_touches_the_record_and_not_the_answer(engine: FakeEngine, tmp_path: Path, stream: bool) -> None:
    memory = Memory()
    post = in_process(tmp_path, engine, memory, record={"redact": True})
    sent = post("write to bob@example.com", user="bob@example.com", stream=stream)
    assert b"button" in b"".join(message.get("body", b"") for message in sent)
    assert "bob@example.com" in engine.bodies[-1]["messages"][-1]["content"]
    assert b"bob@example.com" not in memory.lines[0]
    assert json.loads(memory.lines[0])["answer"] == ANSWER


def test_keys_without_limits_are_never_counted(engine: FakeEngine, tmp_path: Path) -> None:
    plane: Plane
    with plane_with(tmp_path, engine, {}) as plane:
        assert [ask(plane, "hi").status_code for _ in range(5)] == [200] * 5
        assert (plane.state / "limits.bin").read_bytes().strip(b"\0") == b""
