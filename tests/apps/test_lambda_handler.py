"""Lambda: events of API Gateway (HTTP API, format 2.0) and of a load balancer are answered by an attached engine."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from mangum import Mangum
from mangum.types import ASGI, LambdaContext

from noria import pseudonyms
from noria.apps import lambda_handler, start
from noria.apps.access import ADMIN_VARIABLE
from noria.errors import Invalid
from noria.wiring import open_project

# Lambda freezes a function and drops it: nothing closes its connections, and what collects them warns of that.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
KEY = "k" * 40
CHAT = "/v1/chat/completions"
NOBODY = cast(LambdaContext, None)
"""The gateway asks nothing of Lambda's context."""


@pytest.fixture(autouse=True)
def dropped() -> Iterator[None]:
    """A loop of each test's own, which goes with the test: what is left in it would warn in somebody else's."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
    gc.collect()


class Engine(BaseHTTPRequestHandler):
    """An engine that lists one model and says hello, in one piece or three."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(b'{"object": "list", "data": [{"id": "qwen", "object": "model"}]}')

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        base: dict[str, Any] = {"id": "c", "created": 0, "model": "qwen"}
        if not asked.get("stream"):
            choice: dict[str, Any] = {
                "index": 0,
                "message": {"role": "assistant", "content": "hello"},
                "finish_reason": "stop",
            }
            usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
            self._send(json.dumps({**base, "object": "chat.completion", "choices": [choice], "usage": usage}).encode())
            return
        pieces: list[dict[str, Any]] = [
            {"index": 0, "delta": {"content": text}, "finish_reason": None} for text in ("hel", "lo")
        ]
        pieces.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        told = [{**base, "object": "chat.completion.chunk", "choices": [each]} for each in pieces]
        lines = [f"data: {json.dumps(each)}\n\n" for each in told]
        self._send("".join([*lines, "data: [DONE]\n\n"]).encode(), "text/event-stream")

    def _send(self, body: bytes, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as serving:
        serving.daemon_threads = True
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/v1"
        serving.shutdown()


@pytest.fixture
def project(tmp_path: Path, url: str) -> Path:
    start.make(tmp_path / "shop")
    file = tmp_path / "shop" / "noria.toml"
    text = file.read_text().replace('kind = "llamacpp"', 'kind = "openai"')
    text = text.replace('model = "smollm2-135m-instruct" # or a GGUF file', f'url = "{url}"')
    file.write_text(text.replace("slots = 4\n", "").replace("context = 2048\n", ""))
    return tmp_path / "shop"


@pytest.fixture
def function(project: Path, monkeypatch: pytest.MonkeyPatch) -> Mangum:
    from noria.apps import access

    monkeypatch.setenv(ADMIN_VARIABLE, KEY)
    access.admin_key(open_project(project))
    return Mangum(cast(ASGI, lambda_handler.opened(project)), lifespan="off")


def gateway_event(path: str, body: dict[str, Any] | None = None, key: str = KEY) -> dict[str, Any]:
    """What an HTTP API sends, in its format 2.0."""
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": {"authorization": f"Bearer {key}", "content-type": "application/json", "host": "api.example.org"},
        "requestContext": {
            "http": {"method": "POST" if body else "GET", "path": path, "protocol": "HTTP/1.1",
                     "sourceIp": "192.0.2.1", "userAgent": "test"},
            "stage": "$default", "requestId": "r", "time": "01/Nov/2026:00:00:00 +0000", "timeEpoch": 0,
        },
        "body": json.dumps(body) if body else None, "isBase64Encoded": False,
    }  # fmt: skip


def balancer_event(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What an Application Load Balancer sends to a target of type lambda."""
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:0:targetgroup/noria/0"}},
        "httpMethod": "POST", "path": path, "queryStringParameters": {},
        "headers": {"authorization": f"Bearer {KEY}", "content-type": "application/json", "host": "lb",
                    "x-forwarded-for": "192.0.2.1", "x-forwarded-port": "443", "x-forwarded-proto": "https"},
        "body": json.dumps(body), "isBase64Encoded": False,
    }  # fmt: skip


def question(**more: Any) -> dict[str, Any]:
    return {"model": "qwen", "messages": [{"role": "user", "content": "hi"}], **more}


def records(project: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in (project / "lake" / "traffic").glob("*.parquet"))


def test_events_are_answered_and_in_the_lake_before_the_answer_leaves(project: Path, function: Mangum) -> None:
    told = function(gateway_event(CHAT, question()), NOBODY)
    assert told["statusCode"] == 200
    assert json.loads(told["body"])["choices"][0]["message"]["content"] == "hello"
    assert records(project) == 1
    assert list((project / ".noria" / "segments").glob("*.jsonl")) == []
    balanced = function(balancer_event(CHAT, question()), NOBODY)
    assert balanced["statusCode"] == 200
    assert records(project) == 2
    # A stream comes in one piece.
    streamed = function(gateway_event(CHAT, question(stream=True)), NOBODY)
    assert streamed["statusCode"] == 200
    assert streamed["headers"]["content-type"].startswith("text/event-stream")
    assert streamed["body"].rstrip().endswith("data: [DONE]")
    assert "lo" in streamed["body"]
    assert records(project) == 3
    assert function(gateway_event("/health"), NOBODY)["statusCode"] == 200
    assert function(gateway_event(CHAT, question(), key="wrong"), NOBODY)["statusCode"] == 401
    assert function(gateway_event(CHAT, question(model="nobody")), NOBODY)["statusCode"] == 404


def test_an_answer_that_cannot_be_recorded_is_not_given(project: Path, function: Mangum) -> None:
    lake = project / "lake" / "traffic"
    assert function(gateway_event(CHAT, question()), NOBODY)["statusCode"] == 200
    lake.rename(project / "lake" / "away")
    lake.write_text("no folder")
    told = function(gateway_event(CHAT, question()), NOBODY)
    assert told["statusCode"] == 503
    assert "takes no record" in told["body"]


def test_a_function_launches_no_engine(tmp_path: Path) -> None:
    start.make(tmp_path / "shop")
    with pytest.raises(Invalid, match="only attaches") as refused:
        lambda_handler.opened(tmp_path / "shop")
    assert refused.value.where.startswith("noria.toml:")


def test_a_key_that_is_revoked_later_is_refused(
    project: Path, function: Mangum, monkeypatch: pytest.MonkeyPatch
) -> None:
    from noria.apps import access

    assert function(gateway_event(CHAT, question()), NOBODY)["statusCode"] == 200
    access.revoke(open_project(project), "admin")
    monkeypatch.setattr(lambda_handler, "FRESH_SECONDS", 0.0)
    assert function(gateway_event(CHAT, question()), NOBODY)["statusCode"] == 401


def test_instances_share_the_key_of_their_pseudonyms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Invalid, match="NORIA_PSEUDONYMS"):
        lambda_handler.share_pseudonyms(tmp_path / ".noria")
    monkeypatch.setenv(lambda_handler.PSEUDONYMS, "ab" * 32)
    lambda_handler.share_pseudonyms(tmp_path / ".noria")
    assert pseudonyms.read(tmp_path / ".noria" / "secret") == bytes.fromhex("ab" * 32)
    assert (tmp_path / ".noria" / "secret").stat().st_mode & 0o777 == 0o600
