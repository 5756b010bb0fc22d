"""Engines that are not loaded: requests wait for them, and tell who can start them that they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from gateway_fakes import ANSWER, FakeEngine, Plane, fake_engine, wait_for
from hard_fakes import arm, ask, serving, task, write_snapshot

from noria.gateway.workers import everyone
from noria.types import Arm, Route

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngine]:
    with fake_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with serving(tmp_path_factory.mktemp("demand"), routed(arm("big", asleep=True))) as plane:
        yield plane


def routed(champion: Arm, *fallbacks: Arm) -> dict[str, Route]:
    return {"helpdesk": Route(arms=(champion,), fallbacks=fallbacks, task=task())}


def asked(plane: Plane) -> dict[str, float]:
    (told,) = everyone(plane.state / "workers")
    found: dict[str, float] = told["asked"]
    return found


def test_a_request_waits_for_its_engine_and_says_so(plane: Plane, engine: FakeEngine) -> None:
    began = time.time()
    got: list[httpx.Response] = []
    client = threading.Thread(target=lambda: got.append(ask(plane, "hi")))
    client.start()
    wait_for(lambda: asked(plane).get("big", 0.0) >= began)
    assert got == []
    write_snapshot(plane.state, routed(arm("big", engine.url)), version=2)
    client.join(30)
    assert got[0].status_code == 200
    assert got[0].json()["choices"][0]["message"]["content"] == ANSWER


def test_it_waits_no_longer_than_it_may(plane: Plane) -> None:
    write_snapshot(plane.state, routed(arm("big", asleep=True)), version=3)
    wait_for(lambda: httpx.get(f"{plane.url}/health").json()["snapshot"] == 3)
    late = ask(plane, "hi", headers={"x-noria-timeout": "0.5"})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")


def test_an_engine_that_will_not_come_is_told_at_once_unless_another_may_answer(
    plane: Plane, engine: FakeEngine
) -> None:
    stopped = arm("big", refusal="engine 'big' was stopped")
    write_snapshot(plane.state, routed(stopped), version=4)
    wait_for(lambda: httpx.get(f"{plane.url}/health").json()["snapshot"] == 4)
    refused = ask(plane, "hi")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert refused.json()["error"]["message"].startswith("engine 'big' was stopped; ")
    write_snapshot(plane.state, routed(stopped, arm("small", engine.url)), version=5)
    wait_for(lambda: httpx.get(f"{plane.url}/health").json()["snapshot"] == 5)
    helped = ask(plane, "hi")
    assert (helped.status_code, helped.headers["x-noria-served-by"]) == (200, "candidate:small@0123456789abcdef")


def test_a_fallback_that_is_not_loaded_is_woken_for_an_engine_that_will_not_come(
    plane: Plane, engine: FakeEngine
) -> None:
    stopped = arm("big", refusal="engine 'big' was stopped")
    write_snapshot(plane.state, routed(stopped, arm("small", asleep=True)), version=6)
    wait_for(lambda: httpx.get(f"{plane.url}/health").json()["snapshot"] == 6)
    began = time.time()
    got: list[httpx.Response] = []
    client = threading.Thread(target=lambda: got.append(ask(plane, "hi")))
    client.start()
    wait_for(lambda: asked(plane).get("small", 0.0) >= began)
    assert got == []
    write_snapshot(plane.state, routed(stopped, arm("small", engine.url)), version=7)
    client.join(30)
    assert (got[0].status_code, got[0].headers["x-noria-served-by"]) == (200, "candidate:small@0123456789abcdef")
