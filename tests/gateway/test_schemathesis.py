"""The description at /openapi.json: it is complete, valid, and nothing that it allows or forbids brings a 5xx about."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_fakes import KEY, Plane, running
from scripted_engine import chunks, completion, scripted

from noria.backends.clock import SystemClock
from noria.gateway import app
from noria.gateway.batch.api import Desk
from noria.gateway.batch.files import FileStore
from noria.gateway.batch.store import BatchStore
from noria.gateway.endpoints import APIS
from noria.gateway.openapi import document

TEXT = {"text": "Press it.", "index": 0, "finish_reason": "stop"}
PATHS: tuple[str, ...] = (*APIS, *app._METHODS, f"{app._MODEL}{{model}}")
"""What the gateway answers at, below /v1."""
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "unsupported_method", "allow_header_conformance", "ignored_auth",
)  # fmt: skip


def _chat(body: dict[str, Any]) -> Any:
    if body.get("stream"):
        return chunks({"role": "assistant", "content": ""}, {"content": "Press "}, {"content": "it."})
    return completion({"content": "Press it."})


def _text(body: dict[str, Any]) -> Any:
    head = {"id": "c1", "object": "text_completion", "created": 1, "model": "alias"}
    return [{**head, "choices": [TEXT]}, None] if body.get("stream") else {**head, "choices": [TEXT]}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with scripted() as engine:
        vectors = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "model": "alias"}
        engine.answers = {
            "/v1/chat/completions": (200, _chat), "/v1/completions": (200, _text), "/v1/embeddings": (200, vectors),
            "/v1/rerank": (200, {"results": [{"index": 0, "relevance_score": 0.5}]}),
            "/v1/classify": (200, {"data": [{"index": 0, "label": "joy"}]}), "/v1/tokenize": (200, {"tokens": [1, 2]}),
        }  # fmt: skip
        with running(tmp_path_factory.mktemp("schema") / "state", engine.url) as plane:
            yield plane


def test_every_path_is_described_with_its_method(tmp_path: Path) -> None:
    described = {
        path: {name.upper() for name in methods if name != "parameters"}
        for path, methods in document()["paths"].items()
    }
    desk = Desk(FileStore(tmp_path), BatchStore(tmp_path), SystemClock(), lambda: None)
    stored = {
        f"/{path.replace('ID', '{file}' if path.startswith('files') else '{batch}')}": set(handlers)
        for path, handlers in desk._routes.items()
    }
    assert described == {path: {app._method(path)} for path in PATHS} | stored


def test_every_operation_has_a_name_of_its_own_and_tells_its_errors() -> None:
    operations = [
        each for methods in document()["paths"].values() for name, each in methods.items() if name != "parameters"
    ]
    names = [each["operationId"] for each in operations]
    assert len(set(names)) == len(names)
    error = "#/components/schemas/Error"
    for fault in document()["components"]["responses"].values():
        assert fault["content"]["application/json"]["schema"]["$ref"] == error
    assert all({"200", "405", "500"} <= each["responses"].keys() for each in operations)
    locked = {each["operationId"] for each in operations if each.get("security") != []}
    assert all("401" in each["responses"] for each in operations if each["operationId"] in locked)
    assert len(operations) - len(locked) == len(app._OPEN)


def test_it_is_served_without_a_key(plane: Plane) -> None:
    for path in ("/openapi.json", "/v1/openapi.json"):
        got = httpx.get(plane.url + path)
        assert (got.status_code, got.headers["content-type"]) == (200, "application/json")
        assert got.json() == document()


@pytest.mark.slow
def test_no_input_brings_a_server_error_about(plane: Plane, tmp_path: Path, examples: int) -> None:
    """Schemathesis: what the description allows, and what it forbids."""
    if find_spec("schemathesis") is None:
        pytest.skip("schemathesis is not installed (pip install 'noria[dev]')")
    told = document()
    # Of models that nobody has, little more than their absence can be learned.
    told["components"]["schemas"]["ModelName"] = {"enum": ["helpdesk", "alias"]}
    # Nor of a client that gives the engine no time.
    told["components"]["parameters"]["timeout"]["schema"]["minimum"] = 20
    (tmp_path / "openapi.json").write_text(json.dumps(told))
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", f"{plane.url}/v1",
        "-H", f"Authorization: Bearer {KEY}", "--checks", ",".join(CHECKS), "--max-examples", str(examples),
        "--phases", "examples,coverage,fuzzing", "--continue-on-failure",
        "--generation-deterministic", "--suppress-health-check", "all", "--warnings", "off", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert plane.process is not None
    assert plane.process.poll() is None
    assert httpx.get(f"{plane.url}/health").json()["inflight"] == {} or not any(
        httpx.get(f"{plane.url}/health").json()["inflight"].values()
    )
