"""An engine that makes vectors: a real HTTP server whose meaning is a table of words that say the same."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SAME = {"forgot": "password", "login": "password", "sign": "password", "parcel": "order", "shipment": "order"}
SIZE = 64


class EncodingServer(ThreadingHTTPServer):
    """Counts what it is asked; `broken` says how it fails."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[list[str]] = []
        self.broken = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: EncodingServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body["input"])
        vectors = [vector(text) for text in body["input"]]
        data = [{"index": number, "embedding": each} for number, each in enumerate(vectors)]
        answer = {"object": "list", "model": body["model"], "data": data[::-1]}
        said = b"<html>" if self.server.broken == "nonsense" else json.dumps(answer).encode()
        self.send_response(503 if self.server.broken == "busy" else 200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def do_GET(self) -> None:
        said = json.dumps({"object": "list", "data": [{"id": "encoder", "object": "model"}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        return


def vector(text: str) -> list[float]:
    """Words that say the same have the same place."""
    found = [0.0] * SIZE
    for word in re.findall(r"\w{4,}", text.lower()):
        meant = SAME.get(word, word)
        found[hashlib.sha256(meant.encode()).digest()[0] % SIZE] += 6.0 if meant in SAME.values() else 3.0
    return found if any(found) else [1e-3] * SIZE


@contextmanager
def encoding_server() -> Iterator[EncodingServer]:
    server = EncodingServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
