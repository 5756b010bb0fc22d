"""The upstream client against servers that do what real ones sometimes do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest
import uvloop

from noria.errors import Invalid
from noria.gateway.client import Limits, Pool, Reply, Target, UpstreamError, target

T = TypeVar("T")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def run(work: Callable[[], Awaitable[T]]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def timed() -> T:
            async with asyncio.timeout(20):
                return await work()

        return runner.run(timed())


@contextlib.asynccontextmanager
async def server(serve: Serve, limits: Limits | None = None) -> AsyncIterator[tuple[Pool, Target, list[int]]]:
    """A server whose `serve` is called for each request with its number; yields the connections' number too."""
    connections: list[int] = []
    requests = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        connections.append(len(connections))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.rpartition(b"content-length: ")[2]))
                requests += 1
                await serve(reader, writer, requests)
        writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    pool = Pool(limits)
    try:
        port = listening.sockets[0].getsockname()[1]
        yield pool, target(f"http://127.0.0.1:{port}/v1", "key", "/x"), connections
    finally:
        pool.close()
        listening.close()


async def body_of(reply: Reply) -> bytes:
    return await reply.read()


def test_connections_are_kept_and_a_stale_one_is_replaced_unseen() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(OK)
        if number == 3:
            await writer.drain()
            writer.close()

    async def work() -> int:
        async with server(serve) as (pool, to, connections):
            for _ in range(6):
                assert (await pool.post(to, b"{}", stream=False)).body == b"hi"
            return len(connections)

    assert run(work) == 2


def test_a_stale_connection_that_dies_at_the_request_is_tried_again_once() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        if number == 2:
            writer.transport.abort()
        else:
            writer.write(OK)

    async def work() -> None:
        async with server(serve) as (pool, to, connections):
            for _ in range(3):
                assert (await pool.post(to, b"{}", stream=False)).status == 200
            assert len(connections) == 2

    run(work)


def test_a_fresh_connection_that_dies_is_an_error() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.transport.abort()

    async def work() -> None:
        async with server(serve) as (pool, to, connections):
            with pytest.raises(UpstreamError):
                await pool.post(to, b"{}", stream=False)
            assert len(connections) == 1

    run(work)


@pytest.mark.parametrize("stream", [True, False])
def test_interim_answers_are_skipped(stream: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK)

    async def work() -> None:
        async with server(serve) as (pool, to, _):
            reply = await pool.post(to, b"{}", stream=stream)
            assert (reply.status, reply.header(b"link"), await body_of(reply)) == (200, None, b"hi")

    run(work)


@pytest.mark.parametrize("stream", [True, False])
def test_a_truncated_body_never_looks_whole(stream: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD + b"5\r\nhello\r\n")
        await writer.drain()
        writer.close()

    async def work() -> None:
        async with server(serve) as (pool, to, _):
            with pytest.raises(UpstreamError) as caught:  # noqa: PT012
                reply = await pool.post(to, b"{}", stream=stream)
                # The connection is lost while nobody reads.
                await asyncio.sleep(0.1)
                await body_of(reply)
            assert caught.value.answered

    run(work)


@pytest.mark.parametrize("stream", [True, False])
def test_a_body_may_end_with_the_connection(stream: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await writer.drain()
        writer.close()

    async def work() -> None:
        async with server(serve) as (pool, to, _):
            assert await body_of(await pool.post(to, b"{}", stream=stream)) == b"all of it"

    run(work)


def test_silence_is_cut_short_and_not_tried_again() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        if number == 1:
            writer.write(OK)
        elif number == 3:
            writer.write(HEAD + b"5\r\nhello\r\n")

    async def work() -> None:
        async with server(serve, Limits(first_byte=0.2, idle=0.1)) as (pool, to, connections):
            await pool.post(to, b"{}", stream=False)
            with pytest.raises(UpstreamError) as first:
                await pool.post(to, b"{}", stream=False)
            reply = await pool.post(to, b"{}", stream=True)
            assert await reply.more() == b"hello"
            with pytest.raises(UpstreamError) as later:
                await reply.more()
            assert first.value.slow
            assert later.value.slow
            assert len(connections) == 2

    run(work)


def test_a_reader_who_stops_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD + b"5\r\nhello\r\n")
        await reader.read(1)
        gone.set()

    async def work() -> None:
        async with server(serve) as (pool, to, _):
            reply = await pool.post(to, b"{}", stream=True)
            await reply.more()
            reply.close()
            await gone.wait()

    run(work)


@pytest.mark.parametrize("stream", [True, False])
def test_cancelling_closes_the_connection(stream: bool) -> None:
    gone, came = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        came.set()
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
        gone.set()

    async def work() -> None:
        async with server(serve) as (pool, to, _):
            asking = asyncio.create_task(pool.post(to, b"{}", stream=stream))
            await came.wait()
            asking.cancel()
            await gone.wait()
            with pytest.raises(asyncio.CancelledError):
                await asking

    run(work)


def test_an_end_that_comes_late_keeps_the_connection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD + b"5\r\nhello\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")

    async def work() -> None:
        async with server(serve) as (pool, to, connections):
            for _ in range(3):
                reply = await pool.post(to, b"{}", stream=True)
                assert await reply.more() == b"hello"
                reply.finish()
                await asyncio.sleep(0.5)
            assert len(connections) == 1

    run(work)


def test_a_slow_reader_holds_the_upstream_back_and_gets_every_byte() -> None:
    size, pieces = 64 * 1024, 200

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD)
        for _ in range(pieces):
            writer.write(b"%x\r\n%b\r\n" % (size, b"x" * size))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async def work() -> None:
        async with server(serve, Limits(idle=0.2)) as (pool, to, _):
            reply = await pool.post(to, b"{}", stream=True)
            await asyncio.sleep(0.5)
            assert len(await body_of(reply)) == size * pieces

    run(work)


def test_nonsense_is_an_error() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    async def work() -> None:
        async with server(serve) as (pool, to, _):
            with pytest.raises(UpstreamError, match="not an HTTP answer"):
                await pool.post(to, b"{}", stream=False)

    run(work)


@pytest.mark.slow
def test_many_at_once_get_their_own_answers() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await asyncio.sleep(0.001 * (number % 7))
        writer.write(OK)

    async def work() -> None:
        async with server(serve) as (pool, to, connections):
            for _ in range(3):
                replies = await asyncio.gather(*(pool.post(to, b"{}", stream=False) for _ in range(200)))
                assert {(reply.status, reply.body) for reply in replies} == {(200, b"hi")}
            assert len(connections) == 200

    run(work)


@pytest.mark.parametrize("url", ["", "engine:8000", "ftp://a/v1", "http://a/v1\r\nx: y"])
def test_an_address_must_be_one(url: str) -> None:
    with pytest.raises(Invalid):
        target(url, "key", "/x")
