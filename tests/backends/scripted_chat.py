"""A server that speaks OpenAI's API and answers as it is told, well or badly, for clients that measure."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Mode = Literal["fine", "garbage", "uncounted", "broken", "refusing", "vectors", "zeros"]
WORDS = "A small river runs past the old mill and turns its wheel while children watch from the bridge above it"


class Scripted(ThreadingHTTPServer):
    """`mode` may be changed between requests; `most` is how many were answered at the same time."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, mode: Mode) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode: Mode = mode
        self.bodies: list[Mapping[str, Any]] = []
        self.most = self._now = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def count(self, by: int) -> None:
        with self._lock:
            self._now += by
            self.most = max(self.most, self._now)


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._give({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        self.server.count(1)
        try:
            if self.path.endswith("/embeddings"):
                self._embed(body)
            elif self.server.mode == "refusing":
                self._give({"error": {"message": "no"}}, 500)
            else:
                self._stream(body)
        finally:
            self.server.count(-1)

    def _embed(self, body: Mapping[str, Any]) -> None:
        value = 0.0 if self.server.mode == "zeros" else 0.5
        data = [{"index": number, "embedding": [value, value]} for number, _ in enumerate(body["input"])]
        self._give({"data": data, "usage": {"prompt_tokens": 5 * len(data), "total_tokens": 5 * len(data)}})

    def _stream(self, body: Mapping[str, Any]) -> None:
        limit, endless = body["max_tokens"], bool(body.get("ignore_eos"))
        words = ["spam"] * 40 if self.server.mode == "garbage" else WORDS.split()
        words = (words * (1 + limit // len(words)) if endless else words)[:limit]
        # Two words a chunk: whoever counts chunks counts wrongly.
        chunks = [" ".join(words[at : at + 2]) + " " for at in range(0, len(words), 2)]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for number, chunk in enumerate(chunks):
            if self.server.mode == "broken" and number == 1:
                self._event({"error": {"message": "out of memory"}})
                return
            self._event({"choices": [{"index": 0, "delta": {"content": chunk}, "finish_reason": None}]})
        finish = "length" if len(words) == limit else "stop"
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if self.server.mode != "uncounted":
            usage = {"prompt_tokens": 7, "completion_tokens": len(words), "prompt_tokens_details": {"cached_tokens": 3}}
            self._event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, value: Mapping[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())

    def _give(self, value: Mapping[str, Any], status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def scripted(mode: Mode = "fine") -> Iterator[Scripted]:
    server = Scripted(mode)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
