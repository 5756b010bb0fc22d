"""A mock engine, a process of its own: it answers with the question, numbered, so that a lost or swapped piece shows.

`python benchmarks/echo_engine.py [--port N] [--interval SECONDS]` prints its port. `max_tokens` is the number of
pieces. `GET /stats` tells how many requests came, how many are being answered and how many clients left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from dataclasses import asdict, dataclass

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass
class Stats:
    requests: int = 0
    active: int = 0
    aborted: int = 0
    most: int = 0


class Engine:
    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.stats = Stats()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    self._whole(writer, asdict(self.stats))
                    continue
                found = LENGTH.search(head)
                await self._counted(json.loads(await reader.readexactly(int(found[1]) if found else 0)), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _counted(self, body: dict, writer: asyncio.StreamWriter) -> None:
        stats = self.stats
        stats.requests += 1
        stats.active += 1
        stats.most = max(stats.most, stats.active)
        try:
            await self._answer(body, writer)
        except ConnectionError:
            stats.aborted += 1
            raise
        finally:
            stats.active -= 1

    async def _answer(self, body: dict, writer: asyncio.StreamWriter) -> None:
        said = str(body["messages"][-1]["content"]).rpartition("[Question] ")[2].removesuffix("\n[Answer]")
        number = body.get("max_tokens", 10)
        pieces = [f"{said}:{each} " for each in range(number)]
        usage = {"prompt_tokens": 7, "completion_tokens": number, "total_tokens": number + 7}
        if not body.get("stream"):
            await self._pause(writer)
            message = {"role": "assistant", "content": "".join(pieces)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._whole(writer, {"id": "e", "object": "chat.completion", "created": 1, "model": "echo",
                                 "choices": [choice], "usage": usage})  # fmt: skip
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in pieces:
            await self._pause(writer)
            self._event(writer, [{"index": 0, "delta": {"content": piece}, "finish_reason": None}])
            await writer.drain()
        self._event(writer, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
        self._event(writer, [], usage)
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    async def _pause(self, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.interval)
        if writer.transport.is_closing():
            raise ConnectionResetError

    def _event(self, writer: asyncio.StreamWriter, choices: list, usage: dict | None = None) -> None:
        chunk = {"id": "e", "object": "chat.completion.chunk", "created": 1, "model": "echo", "choices": choices}
        data = b"data: %b\n\n" % json.dumps(chunk if usage is None else {**chunk, "usage": usage}).encode()
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _whole(self, writer: asyncio.StreamWriter, document: dict) -> None:
        body = json.dumps(document).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        writer.write(head + body)


async def main() -> None:
    parser = argparse.ArgumentParser(description="A mock engine that answers with the question.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between two pieces")
    options = parser.parse_args()
    engine = Engine(options.interval)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", options.port, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
