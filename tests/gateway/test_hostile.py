"""Bytes that no client should send: a refusal or a closed connection, never a crash or another one's answer."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
import uvicorn
from gateway_fakes import KEY, Plane, wait_for
from hard_fakes import Echo, arm, ask, chat, connect, drain, echo_engine, engines, head, memory, raw, serving, statuses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.gateway import edge
from noria.gateway.edge import Edge
from noria.settings import GatewaySettings
from noria.types import KeyGrant, Route

pytestmark = pytest.mark.slow

MEGABYTE = 1024 * 1024
OTHER = "nr-other-user"


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    with echo_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def plane(echo: Echo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    keys = {
        KEY: KeyGrant(id="k1", name="alice", role="developer"),
        OTHER: KeyGrant(id="k2", name="bob", role="user"),
    }
    routes = {"helpdesk": engines([arm("champion", echo.url)]), "m": Route(arms=(arm("base", echo.url),))}
    with serving(tmp_path_factory.mktemp("hostile"), routes, keys) as plane:
        yield plane


@pytest.fixture(autouse=True)
def _alive(plane: Plane) -> Iterator[None]:
    """After whatever a test did the same process answers, and nothing is left in flight."""
    yield
    assert plane.process is not None
    assert plane.process.poll() is None
    assert ask(plane, "still there", max_tokens=1).json()["choices"][0]["message"]["content"] == "still there:0"
    assert wait_for(lambda: httpx.get(f"{plane.url}/health").json()["inflight"] == {})
    assert "Traceback" not in (plane.state / "log").read_text()


SECOND = b"POST /v1/chat/completions HTTP/1.1\r\nhost: noria\r\nauthorization: Bearer nr-test-key\r\n"
BODY = b'{"model":"helpdesk","messages":[{"role":"user","content":"smuggled"}]}'
SMUGGLED = SECOND + b"content-length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.mark.parametrize(
    "lines",
    [
        ("content-length: 5", "content-length: 80"),
        ("content-length: 5", "transfer-encoding: chunked"),
        ("transfer-encoding: chunked", "content-length: 5"),
        ("transfer-encoding: chunked", "transfer-encoding: identity"),
        ("transfer-encoding: xchunked",),
        ("transfer-encoding : chunked",),
        ("transfer-encoding:\x0bchunked",),
        ("content-length: +5",),
        ("content-length: 5, 5",),
        ("content-length: 99999999999999999999999999",),
        ("content-length: -1",),
        ("content-length: 0x5",),
        ("content-length\x00: 5",),
        ("x: a\rcontent-length: 5",),
        (" folded: 1",),
    ],
    ids=repr,
)
def test_a_request_with_two_readings_is_refused_and_what_follows_it_is_not_served(
    plane: Plane, echo: Echo, lines: tuple[str, ...]
) -> None:
    before = echo.stats()["requests"]
    got = raw(plane, head("/v1/chat/completions", *lines, close=False) + b"0\r\n\r\n" + SMUGGLED)
    assert all(400 <= each < 500 for each in statuses(got)[:1])
    assert len(statuses(got)) <= 1
    assert echo.stats()["requests"] == before


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"GET /%ff%fe%00 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"GET /%ed%a0%80 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"CONNECT engine:80 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"GET //v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"GET /v1/../v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"HEAD /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"BREW /v1/models HTTP/1.1\r\nhost: a\r\n\r\n",
        head("/v1/chat/completions", "transfer-encoding: chunked") + b"zz\r\nabc\r\n0\r\n\r\n",
        head("/v1/chat/completions", "transfer-encoding: chunked") + b"5\r\nabcdefgh\r\n0\r\n\r\n",
        head("/v1/chat/completions", "transfer-encoding: chunked") + b"-1\r\n\r\n0\r\n\r\n",
        head("/v1/chat/completions", "transfer-encoding: chunked") + b"fffffffffffffffff\r\n",
        head("/v1/chat/completions", "content-length: 100") + b"{}",
        head("/v1/chat/completions", "content-length: 2", "connection: upgrade", "upgrade: websocket") + b"{}",
        head("/v1/chat/completions", "content-length: 2", "expect: 100-continue") + b"{}",
        head("/v1/chat/completions", "content-length: 2", "x-noria-timeout: nan") + b"{}",
        head("/v1/chat/completions", "content-length: 2", "traceparent: \x80\xff") + b"{}",
        head(key="\xe9\xff"),
    ],
)  # fmt: skip
def test_what_is_no_request_gets_a_refusal_or_nothing(plane: Plane, data: bytes) -> None:
    got = [each for each in statuses(raw(plane, data)) if each != 100]
    assert all(400 <= each < 500 for each in got)
    assert len(got) <= 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_request_with_bytes_changed_anywhere_never_gets_a_server_error(plane: Plane, data: st.DataObject) -> None:
    request = bytearray(chat("fuzz", max_tokens=1))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(request) - 1))
        request[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    got = [each for each in statuses(raw(plane, bytes(request), patience=1.0)) if each != 100]
    assert all(each < 500 for each in got)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"\xff\xfe"', 400),
        (b'{"model": "helpdesk", "messages": [{"role": "user", "content": "\xc3\x28"}]}', 400),
        (b'{"model": "helpdesk", "messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        (b'{"model": "\\ud800", "messages": []}', 400),
        (b'{"model": "helpdesk", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}', 400),
        (b'{"model": "helpdesk", "messages": [{"role": "user", "content": "a"}], "temperature": 1e999}', 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
        (b'{"a":' + b"[" * 600 + b"]" * 600 + b"}", 400),
        (BODY[:-1] + b', "x":' + b"[" * 253 + b"]" * 253 + b"}", 400),
        (b'{"model": {}, "messages": [[]]}', 400),
        (b'{"model": "helpdesk", "messages": {"role": "user"}}', 400),
        (b'{"model": "helpdesk", "messages": [{"role": ["user"], "content": "a"}]}', 400),
        (b'{"model": "helpdesk", "messages": [{"role": "user", "content": ["a"]}]}', 400),
        (b'{"model": "helpdesk", "messages": [{"role": "user", "content": "a"}], "stop": [1]}', 400),
        (b'{"model": "helpdesk", "messages": [{"role": "user", "content": "a"}], "n": 1e30}', 400),
        (b'{"model": "helpdesk", "messages": [{"role": "user", "content": "a"}], "max_tokens": true}', 400),
        (b'{"model": "helpdesk", "messages": [{"role": "user", "content": "a"}], "stream_options": 1}', 400),
    ],
    ids=lambda each: repr(each)[:60],
)  # fmt: skip
def test_a_body_that_is_wrong_is_refused_with_the_reason(plane: Plane, body: bytes, wanted: int) -> None:
    got = httpx.post(
        f"{plane.url}/v1/chat/completions", content=body, headers={"authorization": f"Bearer {KEY}"}, timeout=30
    )
    assert got.status_code == wanted
    assert got.json()["error"]["message"]
    record = plane.recorded(got.headers["x-noria-interaction"])
    assert record.status == wanted


def test_odd_but_right_text_passes_unharmed(plane: Plane) -> None:
    for text in ("a\x00b", "\U0001f6b0\u0301", "\u2028\u2029", "\\ud800", "\x7f\x80", "data: [DONE]\n\n", "\r\n\r\n"):
        for stream in (False, True):
            got = ask(plane, text, stream=stream, max_tokens=1)
            assert got.status_code == 200
            record = plane.recorded(got.headers["x-noria-interaction"])
            assert record.messages[0]["content"] == text
            assert record.answer.strip() == f"{text}:0".strip()


def test_a_large_body_is_refused_before_it_has_come(plane: Plane) -> None:
    most = GatewaySettings().body_bytes
    got = raw(plane, head("/v1/chat/completions", f"content-length: {50 * MEGABYTE}"), half=False)
    assert statuses(got) == [413]
    assert f"the most is {most}" in got.decode()


@pytest.mark.parametrize("path", ["/v1/made-up", "/v1/chat/completions", "/v1/files"])
def test_whoever_is_answered_before_the_body_came_is_told_that_the_connection_ends(plane: Plane, path: str) -> None:
    begun = b"POST %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer nobody\r\ncontent-length: 2\r\n\r\n" % path.encode()
    got = raw(plane, begun, half=False)
    assert statuses(got) in ([401], [404])
    assert b"connection: close" in got


def test_fifty_megabytes_without_a_length_are_refused_in_bounded_memory(plane: Plane) -> None:
    before = memory(plane)
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with connect(plane) as wire:
        wire.sendall(head("/v1/chat/completions", "transfer-encoding: chunked"))
        with suppress(ConnectionError):
            for _ in range(50 * 16):
                wire.sendall(chunk)
        got = drain(wire)
    # A connection that is reset may lose the answer on its way.
    assert statuses(got) in ([413], [])
    assert memory(plane) - before < 24 * MEGABYTE


@pytest.mark.parametrize("start", [
    b"GET /" + b"a" * 10,
    b"GET / HTTP/1.1\r\nx: ",
    head("/v1/chat/completions", "transfer-encoding: chunked")[:-2] + b"\r\n2\r\n{}\r\n0\r\nx: ",
], ids=["url", "header", "trailer"])  # fmt: skip
def test_a_head_without_end_is_cut_off(plane: Plane, start: bytes) -> None:
    before = memory(plane)
    sent = 0
    with connect(plane) as wire:
        wire.sendall(start)
        with suppress(ConnectionError):
            while sent < 30 * MEGABYTE:
                sent += wire.send(b"a" * 65536)
        got = drain(wire)
    assert sent < 30 * MEGABYTE
    assert all(400 <= each < 500 for each in statuses(got))
    assert memory(plane) - before < 16 * MEGABYTE


def test_many_headers_are_cut_off(plane: Plane) -> None:
    got = raw(plane, b"GET /health HTTP/1.1\r\n" + b"a: b\r\n" * 200_000 + b"\r\n")
    assert statuses(got) in ([431], [])


def test_trailers_add_no_headers(plane: Plane) -> None:
    body = json.dumps({"model": "helpdesk", "messages": [{"role": "user", "content": "a"}]}).encode()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    chunked = b"%x\r\n%b\r\n0\r\nauthorization: Bearer %b\r\n\r\n" % (len(body), body, KEY.encode())
    assert statuses(raw(plane, request + chunked)) == [401]


def test_pipelined_requests_get_their_own_answers_in_order(plane: Plane) -> None:
    texts = [f"q{number}" for number in range(20)]
    sent = [
        chat(text, close=text == texts[-1], max_tokens=2, stream=number % 2 == 1) for number, text in enumerate(texts)
    ]
    got = raw(plane, b"".join(sent), half=False)
    assert statuses(got) == [200] * 20
    ids = re.findall(rb"x-noria-interaction: (\S+)", got)
    assert [plane.recorded(each.decode()).messages[0]["content"] for each in ids] == texts
    assert [each.decode() for each in re.findall(rb"(q\d+):0", got)] == texts


def test_a_pipelined_refusal_is_not_taken_for_the_answer_before_it(plane: Plane) -> None:
    got = raw(plane, chat("first", close=False, max_tokens=1) + b"\x00\x01garbage\r\n\r\n")
    assert statuses(got) in ([200, 400], [200], [])
    assert got == b"" or b"first:0" in got


def test_garbage_beside_a_stream_does_not_get_into_it(plane: Plane) -> None:
    with connect(plane) as wire:
        wire.sendall(chat("long", close=False, stream=True, max_tokens=8000))
        first = wire.recv(100)
        wire.sendall(b"\x00\x01\x02 no request\r\n\r\n")
        rest = drain(wire)
    assert first.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 400" not in rest


def test_users_that_share_the_gateway_get_their_own_answers(plane: Plane) -> None:
    """Side by side with clients that break off, send garbage or two lengths."""

    async def user(client: httpx.AsyncClient, name: str, key: str) -> list[str]:
        wrong = []
        for number in range(30):
            text = f"{name}-{number}"
            body = {"model": "helpdesk", "messages": [{"role": "user", "content": text}], "max_tokens": 3}
            got = await client.post(
                "/v1/chat/completions", json={**body, "stream": number % 2 == 0},
                headers={"authorization": f"Bearer {key}"},
            )  # fmt: skip
            if set(re.findall(r"(\w+-\d+):\d", got.text)) != {text}:
                wrong.append(got.text)
        return wrong

    async def harm(number: int) -> None:
        host, port = plane.url.removeprefix("http://").split(":")
        for each in range(15):
            reader, writer = await asyncio.open_connection(host, int(port))
            broken = [chat("evil", stream=True)[:-20], b"\xff" * 50, chat("evil") + SMUGGLED[:40], chat("evil")]
            writer.write(broken[(each + number) % len(broken)])
            await asyncio.sleep(0.005)
            writer.transport.abort()
            del reader

    async def all_of_them() -> list[list[str]]:
        async with httpx.AsyncClient(base_url=plane.url, timeout=30) as client:
            names = [user(client, f"u{number}", (KEY, OTHER)[number % 2]) for number in range(6)]
            found = await asyncio.gather(*names, harm(0), harm(1), harm(2))
        return [each for each in found if each]

    assert asyncio.run(all_of_them()) == []


class Site:
    """The gateway's protocol in this process, on an application that reads and answers, with time in our hands."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def app(self, scope: dict[str, object], receive: object, send: object) -> None:
        if scope["type"] == "lifespan":
            return
        assert callable(receive)
        assert callable(send)
        while (event := await receive())["type"] != "http.disconnect":
            if not event["more_body"]:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                for _ in range(2000 if scope["path"] == "/large" else 1):
                    await send({"type": "http.response.body", "body": b"x" * 4096, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
                self.events.append("answered")
                return
        self.events.append("gone")

    async def run(self, data: bytes, after: float) -> bytes | None:
        """What the client has when so many seconds have passed; None while the connection is open."""
        config = uvicorn.Config(self.app, http=Edge, ws="none", interface="asgi3", lifespan="off", log_level="critical")
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            await server.startup([listener])
            reader, writer = await asyncio.open_connection(*listener.getsockname(), limit=1024)
            for part in (data[: len(WHOLE)], data[len(WHOLE) :]) if data.startswith(WHOLE) else (data,):
                writer.write(part)
                await asyncio.sleep(0.1)
            for each in list(server.server_state.connections):
                assert isinstance(each, Edge)
                each.check(asyncio.get_running_loop().time() + after)
            await asyncio.sleep(0.1)
            left = len(server.server_state.connections)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            await asyncio.sleep(0.05)
            server.should_exit = True
            await server.shutdown([listener])
            del reader
            return None if left else b""


SLOW_HEAD = b"POST / HTTP/1.1\r\nhost: a\r\nx-slow: "
SLOW_BODY = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{"
WHOLE = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
LARGE = b"POST /large HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("data", "patience"),
    [
        (b"", edge.HEAD_SECONDS),
        (SLOW_HEAD, edge.HEAD_SECONDS),
        (WHOLE + SLOW_HEAD, edge.HEAD_SECONDS + 10),
        (SLOW_BODY, edge.BODY_SECONDS),
        (LARGE, edge.STALL_SECONDS),
    ],
    ids=["nothing", "slow head", "slow second head", "slow body", "takes nothing"],
)
def test_a_client_that_holds_a_connection_without_using_it_is_let_go(data: bytes, patience: float) -> None:
    site = Site()
    if not data.startswith(WHOLE):
        assert asyncio.run(site.run(data, patience / 2)) is None
    site.events.clear()
    assert asyncio.run(site.run(data, patience + 5)) == b""
    if data == SLOW_BODY:
        assert site.events == ["gone"]


def test_a_kept_alive_connection_may_be_idle_for_a_while_and_not_for_ever() -> None:
    site = Site()
    assert asyncio.run(site.run(WHOLE, edge.IDLE_SECONDS - 5)) is None
    assert site.events == ["answered"]
    assert asyncio.run(Site().run(WHOLE, edge.IDLE_SECONDS + 5)) == b""
