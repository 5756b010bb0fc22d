"""An engine whose answers a test writes down, by path: a document, or the chunks of a stream."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Script:
    """`answers` maps a path to (status, document); a list of chunks is streamed, and breaks off without a last None.

    An event of `threading` among the chunks is waited for. A function is given the request's body and returns either.
    """

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.url = ""

    @property
    def body(self) -> dict[str, Any]:
        """What was asked last."""
        return self.asked[-1][1]


@contextmanager
def scripted() -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            status, found = script.answers.get(self.path, (404, {}))
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            script.asked.append((self.path, body))
            missing = {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}
            status, found = script.answers.get(self.path, (404, missing))
            if callable(found):
                found = found(body)
            self.send_response(status)
            if isinstance(found, list):
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                for chunk in found:
                    if isinstance(chunk, threading.Event):
                        chunk.wait(20)
                        continue
                    self.wfile.write(b"data: %b\n\n" % (b"[DONE]" if chunk is None else json.dumps(chunk).encode()))
                self.close_connection = True
                return
            data = json.dumps(found).encode()
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            # Clients leave.
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(message: dict[str, Any], reason: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    usage = {
        "prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16, "prompt_tokens_details": {"cached_tokens": 3},
    }  # fmt: skip
    return {
        "id": "c1", "object": "chat.completion", "created": 1, "model": "alias", "choices": [choice], "usage": usage,
        **more,
    }  # fmt: skip


def chunks(*deltas: dict[str, Any], reason: str = "stop") -> list[Any]:
    """A whole stream, usage chunk and end mark included."""
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "alias"}
    said = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    usage = {**head, "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 5}}
    return [*said, end, usage, None]
