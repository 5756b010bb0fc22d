"""Where requests go: arms, shadows, replicas, fallbacks, retries, breakers, deadlines, and the end of all of it."""

from __future__ import annotations

import json
import math
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from gateway_fakes import ANSWER, FakeEngine, fake_engine, wait_for
from hard_fakes import arm, ask, engines, serving, settled, task, write_snapshot
from hypothesis import given
from hypothesis import strategies as st

from noria.gateway.routing import (
    AFFINITY_CHARS,
    AFFINITY_SLACK,
    FAILURES,
    LONGEST_OPEN,
    OPEN_SECONDS,
    Breaker,
    Live,
    LiveArm,
    Replica,
    bounds_of,
    pick,
)
from noria.types import Arm, Endpoint, Route

pytestmark = pytest.mark.slow

USERS = 10_000


def live(*shares: float) -> Live:
    arms = tuple(arm(f"a{number}", "http://h/v1", share=share) for number, share in enumerate(shares))
    return Live(
        "helpdesk", Route(arms=arms), None, tuple(LiveArm(each, (), None, b"") for each in arms), bounds_of(arms)
    )


@pytest.mark.parametrize("shares", [(0.9, 0.05, 0.05), (0.5, 0.5), (3.0, 1.0), (0.98, 0.02), (0.0, 0.0)])
def test_arms_get_their_share_of_ten_thousand_users(shares: tuple[float, ...]) -> None:
    route = live(*shares)
    found = Counter(route.choose(f"user-{number}").arm.name for number in range(USERS))
    whole = sum(shares)
    for number, share in enumerate(shares):
        wanted = share / whole if whole else 1 / len(shares)
        # Five standard deviations of a binomial count: a fair split misses them once in a million.
        assert abs(found[f"a{number}"] - USERS * wanted) <= 5 * math.sqrt(USERS * wanted * (1 - wanted))


def test_a_user_stays_with_one_arm_and_few_move_when_a_share_grows() -> None:
    before, after = live(0.95, 0.05), live(0.90, 0.10)
    names = [f"user-{number}" for number in range(USERS)]
    assert [before.choose(name) is before.choose(name) for name in names] == [True] * USERS
    moved = [name for name in names if before.choose(name).arm.name != after.choose(name).arm.name]
    assert all(before.choose(name).arm.name == "a0" for name in moved)
    assert len(moved) < USERS * 0.05 + 5 * math.sqrt(USERS * 0.05)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=6), st.text(max_size=30))
def test_every_user_has_an_arm_whatever_the_shares(shares: list[float], who: str) -> None:
    route = live(*shares)
    chosen = int(route.choose(who).arm.name[1:])
    assert shares[chosen] > 0 or sum(shares) == 0 or shares[-1] == 0
    assert route.bounds[-1] == pytest.approx(1.0)


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fail(breaker: Breaker, times: int = FAILURES) -> None:
    for _ in range(times):
        breaker.sent()
        breaker.failed()


def test_a_breaker_opens_half_opens_and_closes() -> None:
    time = Time()
    breaker = Breaker(time)
    fail(breaker, FAILURES - 1)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert (breaker.state, breaker.allows()) == ("open", False)
    time.now += OPEN_SECONDS
    assert (breaker.state, breaker.allows()) == ("half-open", True)
    breaker.sent()
    assert (breaker.state, breaker.allows()) == ("half-open", False)
    breaker.succeeded()
    assert (breaker.state, breaker.allows()) == ("closed", True)
    fail(breaker, FAILURES - 1)
    assert breaker.state == "closed"


def test_a_probe_that_fails_opens_the_breaker_for_longer_up_to_a_limit() -> None:
    time = Time()
    breaker = Breaker(time)
    fail(breaker)
    waits = []
    for _ in range(8):
        began = time.now
        while not breaker.allows():
            time.now += 0.5
        waits.append(time.now - began)
        breaker.sent()
        breaker.failed()
    assert waits == sorted(waits)
    assert waits[0] == OPEN_SECONDS
    assert waits[-1] == LONGEST_OPEN


def test_a_probe_whose_client_left_makes_room_for_the_next_probe() -> None:
    time = Time()
    breaker = Breaker(time)
    fail(breaker)
    time.now += OPEN_SECONDS
    breaker.sent()
    breaker.dropped()
    assert breaker.allows()


def test_success_in_between_keeps_a_breaker_closed() -> None:
    breaker = Breaker(Time())
    for _ in range(5):
        fail(breaker, FAILURES - 1)
        breaker.sent()
        breaker.succeeded()
    assert breaker.state == "closed"


def replicas(number: int) -> list[Replica]:
    return [Replica(Endpoint(url=f"http://h{each}/v1", key="", model="m"), Time()) for each in range(number)]


@given(st.lists(st.integers(0, 30), min_size=2, max_size=8))
def test_the_replica_with_the_fewest_requests_is_next(loads: list[int]) -> None:
    several = replicas(len(loads))
    for each, load in zip(several, loads, strict=True):
        each.outstanding = load
    chosen = pick(several, lambda: "short", ())
    assert chosen is not None
    assert chosen.outstanding == min(loads)
    other = pick(several, lambda: "short", [chosen])
    assert other is not None
    assert other is not chosen


def test_long_prompts_with_the_same_beginning_stay_on_one_replica_until_it_is_busy() -> None:
    several = replicas(4)
    beginnings = [f"{number:04}" * (AFFINITY_CHARS // 4) for number in range(200)]
    homes = [pick(several, lambda: each + "tail", ()) for each in beginnings]  # noqa: B023
    assert homes == [pick(several, lambda: each + "other", ()) for each in beginnings]  # noqa: B023
    spread = Counter(each.endpoint.url for each in homes if each is not None)
    assert len(spread) == 4
    assert min(spread.values()) > 20
    home = homes[0]
    assert home is not None
    home.outstanding = AFFINITY_SLACK
    assert pick(several, lambda: beginnings[0], ()) is home
    home.outstanding = AFFINITY_SLACK + 1
    assert pick(several, lambda: beginnings[0], ()) is not home
    # Only the prompts of a replica that goes away move.
    left = [pick([each for each in several if each is not home], lambda: each_, ()) for each_ in beginnings]  # noqa: B023
    home.outstanding = 0
    assert [now for was, now in zip(homes, left, strict=True) if was is not home] == [
        was for was in homes if was is not home
    ]


def test_a_replica_that_is_left_alone_gets_nothing() -> None:
    several = replicas(2)
    fail(several[0].breaker)
    assert all(pick(several, lambda: "", ()) is several[1] for _ in range(10))
    fail(several[1].breaker)
    assert pick(several, lambda: "", ()) is None
    assert pick(several, lambda: "", (), last=True) in several


@pytest.fixture
def pair() -> Iterator[tuple[FakeEngine, FakeEngine]]:
    with fake_engine("first") as first, fake_engine("second") as second:
        yield first, second


def one(tmp_path: Path, *arms: Arm, fallbacks: tuple[Arm, ...] = (), **more: object) -> dict[str, Route]:
    return {"helpdesk": Route(arms=arms, fallbacks=fallbacks, task=task(**more))}


def test_users_are_split_over_arms_as_published_and_the_record_names_the_arm(
    pair: tuple[FakeEngine, FakeEngine], tmp_path: Path
) -> None:
    first, second = pair
    routes = one(tmp_path, arm("champion", first.url, share=0.5), arm("challenger", second.url, share=0.5))
    with serving(tmp_path / "s", routes) as plane:
        said: dict[str, set[str]] = {}
        for number in range(60):
            got = ask(plane, "hi", user=f"u{number % 20}")
            said.setdefault(f"u{number % 20}", set()).add(got.headers["x-noria-served-by"])
            record = plane.recorded(got.headers["x-noria-interaction"])
            assert got.headers["x-noria-served-by"] == record.served_by == f"candidate:{record.arm}@0123456789abcdef"
    assert all(len(each) == 1 for each in said.values())
    assert len(first.bodies) + len(second.bodies) == 60
    assert min(len(first.bodies), len(second.bodies)) >= 6


def test_sticky_by_conversation_keeps_a_conversation_on_one_arm(
    pair: tuple[FakeEngine, FakeEngine], tmp_path: Path
) -> None:
    first, second = pair
    arms = arm("champion", first.url, share=0.5), arm("challenger", second.url, share=0.5)
    with serving(tmp_path / "s", one(tmp_path, *arms, sticky="conversation")) as plane:
        said: dict[str, set[str]] = {}
        for number in range(60):
            talk = f"t{number % 15}"
            got = ask(plane, "hi", user="bob", metadata={"conversation": talk})
            said.setdefault(talk, set()).add(got.headers["x-noria-served-by"])
    assert all(len(each) == 1 for each in said.values())
    assert len(set.union(*said.values())) == 2


def test_a_shadow_is_asked_too_and_its_answer_is_only_logged(
    pair: tuple[FakeEngine, FakeEngine], tmp_path: Path
) -> None:
    first, second = pair
    with serving(tmp_path / "s", one(tmp_path, arm("c", first.url), arm("s", second.url, shadow=True))) as plane:
        ids = [ask(plane, "hi", stream=each % 2 == 0).headers["x-noria-interaction"] for each in range(6)]
        shadows = wait_for(
            lambda: found if len(found := [each for each in plane.interactions() if each.arm == "s"]) == 6 else None
        )
    assert sorted(str(each.request["shadow_of"]) for each in shadows) == sorted(ids)
    assert {(each.status, each.answer, each.trainable) for each in shadows} == {(200, ANSWER, False)}
    assert not any(body.get("stream") for body in second.bodies)
    assert len(first.bodies) == 6


@pytest.mark.parametrize("way", ["hangs", "dies", "gone", "refuses", "garbage"])
def test_a_shadow_that_fails_neither_slows_nor_fails_its_user(tmp_path: Path, way: str) -> None:
    with fake_engine() as engine, fake_engine() as bad:
        word = {"hangs": "", "dies": "die", "gone": "", "refuses": "long", "garbage": "garbage"}[way]
        bad.delay = 30.0 if way == "hangs" else 0.0
        if way == "gone":
            bad.close()
        # The shadow alone is given the word that makes it fail.
        shadow = arm("s", bad.url, shadow=True, extra={"messages": [{"role": "user", "content": word}]} if word else {})
        with serving(tmp_path / "s", one(tmp_path, arm("c", engine.url), shadow)) as plane:
            for each in range(8):
                got = ask(plane, "hi", stream=each % 2 == 0)
                assert (got.status_code, "reset button" in got.text or "button" in got.text) == (200, True)
            if way != "hangs":
                found = wait_for(lambda: [each for each in plane.interactions() if each.arm == "s"])
                assert {each.status for each in found} <= {400, 502}
            assert plane.stop(signal.SIGTERM) == 0
            assert [each.status for each in plane.interactions() if each.arm == "c"] == [200] * 8


def test_a_fallback_answers_when_the_task_s_own_engine_cannot(
    pair: tuple[FakeEngine, FakeEngine], tmp_path: Path
) -> None:
    first, second = pair
    first.close()
    with fake_engine("third") as third, ExitStack() as stack:
        second.close()
        chain = (arm("spare", second.url), arm("last", third.url))
        plane = stack.enter_context(serving(tmp_path / "s", one(tmp_path, arm("c", first.url), fallbacks=chain)))
        for stream in (False, True):
            got = ask(plane, "hi", stream=stream)
            assert (got.status_code, got.headers["x-noria-served-by"]) == (200, "candidate:last@0123456789abcdef")
            assert plane.recorded(got.headers["x-noria-interaction"]).arm == "last"


class Refuser(FakeEngine):
    """Answers everything with one status."""

    status = 500

    async def _plain(self, text: str, reader: object, writer: object) -> None:
        body = json.dumps({"error": {"message": f"engine says {self.status}", "type": "t"}}).encode()
        head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % (self.status, len(body)) + body)  # type: ignore[attr-defined]

    _stream = _plain


@pytest.fixture
def refuser() -> Iterator[Refuser]:
    engine = Refuser()
    yield engine
    engine.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 501])
def test_what_another_engine_would_not_answer_better_is_asked_once(
    refuser: Refuser, tmp_path: Path, status: int, stream: bool
) -> None:
    refuser.status = status
    with fake_engine() as other:
        routes = one(tmp_path, arm("c", refuser.url, other.url), fallbacks=(arm("f", other.url),))
        with serving(tmp_path / "s", routes) as plane:
            got = wait_for(lambda: found if (found := ask(plane, "hi", stream=stream)).status_code != 200 else None)
        before = len(other.bodies)
        assert len(refuser.bodies) == 1
        assert got.status_code == (502 if status in (302, 401, 403, 404) else status)
        assert (f"engine says {status}" in got.text) == (status >= 400)
        assert before <= 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_passes_by_is_asked_of_another_replica(refuser: Refuser, tmp_path: Path, status: int) -> None:
    refuser.status = status
    with (
        fake_engine() as other,
        serving(tmp_path / "s", one(tmp_path, arm("c", refuser.url, other.url))) as plane,
    ):
        got = [ask(plane, "hi", stream=each % 2 == 0).status_code for each in range(8)]
    assert got == [200] * 8
    assert 1 <= len(refuser.bodies) <= FAILURES


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_asked_again_after_the_client_has_seen_a_piece(
    pair: tuple[FakeEngine, FakeEngine], tmp_path: Path, stream: bool
) -> None:
    first, second = pair
    with serving(tmp_path / "s", one(tmp_path, arm("c", first.url, second.url))) as plane:
        got = ask(plane, "break" if stream else "die", stream=stream)
    asked = len(first.bodies) + len(second.bodies)
    if stream:
        assert (got.status_code, asked) == (200, 1)
        assert "broke off" in got.text
        assert "[DONE]" not in got.text
    else:
        assert got.status_code == 503
        assert asked > 2


def test_refusals_of_an_engine_never_open_its_breaker(refuser: Refuser, tmp_path: Path) -> None:
    refuser.status = 422
    with serving(tmp_path / "s", {"helpdesk": engines([arm("c", refuser.url)])}) as plane:
        assert {ask(plane, "hi").status_code for _ in range(4 * FAILURES)} == {422}
    assert len(refuser.bodies) == 4 * FAILURES


def test_an_open_breaker_closes_again_when_the_engine_is_well(refuser: Refuser, tmp_path: Path) -> None:
    refuser.status = 500
    with fake_engine() as other, serving(tmp_path / "s", one(tmp_path, arm("c", refuser.url, other.url))) as plane:
        while len(refuser.bodies) < FAILURES:
            assert ask(plane, "hi").status_code in (200, 500)
        # It is left alone now: the other one answers everything.
        assert [ask(plane, "hi").status_code for _ in range(10)] == [200] * 10
        assert len(refuser.bodies) == FAILURES
        refuser.status = 200
        wait_for(lambda: ask(plane, "hi") and len(refuser.bodies) >= FAILURES + 3)


def test_a_deadline_ends_a_request_and_stops_its_engine(pair: tuple[FakeEngine, FakeEngine], tmp_path: Path) -> None:
    first, _ = pair
    with serving(tmp_path / "s", one(tmp_path, arm("c", first.url))) as plane:
        plain = ask(plane, "stall", headers={"x-noria-timeout": "0.4"})
        assert (plain.status_code, plain.json()["error"]["type"]) == (504, "timeout")
        streamed = ask(plane, "stall", headers={"x-noria-timeout": "0.4"}, stream=True)
        assert streamed.status_code == 200
        assert "deadline" in streamed.text.rpartition("data: ")[2]
        for got in (plain, streamed):
            assert plane.recorded(got.headers["x-noria-interaction"]).status == 504
        wait_for(lambda: first.aborted == 2)
        assert wait_for(lambda: httpx.get(f"{plane.url}/health").json()["inflight"] == {})
        for wrong in ("0", "-1", "nan", "soon", ""):
            assert ask(plane, "hi", headers={"x-noria-timeout": wrong}).status_code == 400


def test_a_deadline_of_the_settings_holds_for_those_who_set_none(tmp_path: Path) -> None:
    with fake_engine() as engine:
        routes = one(tmp_path, arm("c", engine.url))
        with serving(tmp_path / "s", routes, rules={"deadline": 0.4}) as plane:
            assert ask(plane, "stall").status_code == 504
            assert ask(plane, "stall", headers={"x-noria-timeout": "99"}).status_code == 504


def test_stopping_drains_what_is_in_flight_and_takes_nothing_new(
    pair: tuple[FakeEngine, FakeEngine], tmp_path: Path
) -> None:
    first, _ = pair
    first.delay = 0.1
    found: list[httpx.Response] = []
    with serving(tmp_path / "s", one(tmp_path, arm("c", first.url))) as plane:
        threads = [
            threading.Thread(target=lambda each=each: found.append(ask(plane, "slow", stream=each % 2 == 0)))
            for each in range(6)
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(first.bodies) == 6)
        assert plane.process is not None
        plane.process.send_signal(signal.SIGTERM)
        assert plane.process.wait(20) == 0
        for thread in threads:
            thread.join()
        with pytest.raises(httpx.ConnectError):
            ask(plane, "late")
        assert [each.status_code for each in found] == [200] * 6
        assert all("[DONE]" in each.text or ANSWER in each.text for each in found)
        logged = {each.id for each in plane.interactions() if each.status == 200}
    assert logged == {each.headers["x-noria-interaction"] for each in found}


def test_a_changed_snapshot_moves_requests_without_dropping_one(
    pair: tuple[FakeEngine, FakeEngine], tmp_path: Path
) -> None:
    first, second = pair
    with serving(tmp_path / "s", one(tmp_path, arm("a", first.url))) as plane:
        assert ask(plane, "hi").headers["x-noria-served-by"].startswith("candidate:a@")
        write_snapshot(plane.state, one(tmp_path, arm("b", second.url)), version=2)
        settled(plane, 2)
        assert ask(plane, "hi").headers["x-noria-served-by"].startswith("candidate:b@")


def test_a_trace_reaches_the_engine_and_the_record(pair: tuple[FakeEngine, FakeEngine], tmp_path: Path) -> None:
    first, _ = pair
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with serving(tmp_path / "s", one(tmp_path, arm("c", first.url))) as plane:
        got = ask(plane, "hi", headers={"traceparent": trace})
        traced = str(plane.recorded(got.headers["x-noria-interaction"]).trace)
        ask(plane, "hi", headers={"traceparent": "garbage"})
    assert re.search(rb"traceparent: 00-0af7651916cd43dd8448eb211c80319c-", first.heads[0])
    assert "0af7651916cd43dd8448eb211c80319c" in traced
    assert b"garbage" not in first.heads[1]


def test_an_engine_that_accepts_and_is_silent_counts_as_hung(tmp_path: Path) -> None:
    with socket.socket() as silent, fake_engine() as other:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with serving(tmp_path / "s", one(tmp_path, arm("c", url), fallbacks=(arm("f", other.url),))) as plane:
            codes = Counter(ask(plane, "hi", headers={"x-noria-timeout": "0.3"}).status_code for _ in range(FAILURES))
            assert codes == {504: FAILURES}
            # From now on the fallback answers at once.
            assert ask(plane, "hi", headers={"x-noria-timeout": "5"}).json()["choices"]
