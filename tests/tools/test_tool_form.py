"""In which form the model of an engine is told of tools: what was said, else what was seen, else the safe one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import completion, scripted

from noria.apps import start, tooling
from noria.settings import CallingSettings
from noria.wiring import open_project

LIMITS = CallingSettings(max_tokens=128)
TABLE = """
[engines.there]
kind = "{kind}"
url = "{url}"
{lines}
"""


def calls(body: dict[str, Any], **arguments: str) -> dict[str, Any]:
    name = body["tools"][0]["function"]["name"]
    word = body["tools"][0]["function"]["parameters"]["properties"]["word"]["enum"][0]
    function = {"name": name, "arguments": json.dumps({"word": word, **arguments})}
    return completion({"content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]})


def words(body: dict[str, Any]) -> dict[str, Any]:
    return completion({"content": '{"name": "say", "arguments": {"word": "zqxj"}}'})


def made_up(body: dict[str, Any]) -> dict[str, Any]:
    return calls(body, word="hello")


def form(folder: Path, url: str, lines: str = "", kind: str = "openai", limits: CallingSettings = LIMITS) -> str:
    file = folder / "noria.toml"
    file.unlink(missing_ok=True)
    shutil.rmtree(folder / "data", ignore_errors=True)
    start.make(folder)
    file.write_text(file.read_text() + TABLE.format(kind=kind, url=url, lines=lines))
    return tooling.form_of(open_project(folder), "there", limits)


@pytest.mark.parametrize(
    ("answer", "status", "wanted"),
    [(calls, 200, "native"), (words, 200, "schema"), (made_up, 200, "schema"), (words, 400, "schema")],
    ids=["calls", "words", "made up", "refused"],
)
@pytest.mark.parametrize("kind", ["openai", "vllm"])
def test_an_attached_engine_is_native_once_its_model_was_seen_to_call(
    tmp_path: Path, kind: str, answer: Callable[..., Any], status: int, wanted: str
) -> None:
    with scripted() as script:
        script.answers = {
            "/v1/models": (200, {"data": [{"id": "m"}]}), "/v1/chat/completions": (status, answer),
        }  # fmt: skip
        assert form(tmp_path, script.url, kind=kind) == wanted
    # As the conversation will: one free request, within its tokens.
    (asked,) = script.asked
    assert asked[1]["max_tokens"] == 128
    assert "tool_choice" not in asked[1]


def test_what_is_said_is_not_asked_and_what_is_away_is_held_to_a_schema(tmp_path: Path) -> None:
    with scripted() as script:
        assert form(tmp_path, script.url, 'tools = "native"') == "native"
        assert form(tmp_path, script.url, 'tools = "schema"', kind="vllm") == "schema"
        assert form(tmp_path, script.url, limits=CallingSettings(form="native")) == "native"
        url = script.url
    assert script.asked == []
    assert form(tmp_path, url) == "schema"
