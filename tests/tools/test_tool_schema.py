"""Functions as tools: what a model is told, what it may pass, what it gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tool_functions
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from noria.errors import Invalid
from noria.tools.functions import FunctionTool, arguments_of, cut, plain_schema


def test_a_schema_comes_from_signature_and_docstring() -> None:
    spec = FunctionTool(tool_functions.visit).spec
    assert (spec.name, spec.description) == ("visit", "Plan a visit. It is only planned, never booked.")
    Draft202012Validator.check_schema(spec.parameters)
    assert spec.parameters["required"] == ["place", "day"]
    assert spec.parameters["additionalProperties"] is False
    parts: Any = spec.parameters["properties"]
    assert parts["day"] == {"description": "when to go, as YYYY-MM-DD", "format": "date", "type": "string"}
    assert (parts["people"]["minimum"], parts["how"]["enum"]) == (1, ["train", "car"])
    assert parts["tags"]["description"] == "words on more: lines"
    # A model that stands in the signature is written out: the schema may be put inside another one.
    assert parts["place"]["properties"]["city"] == {"type": "string"}
    assert "$ref" not in json.dumps(spec.parameters)


def test_arguments_are_checked_strictly() -> None:
    tool = FunctionTool(tool_functions.visit)
    good = tool.call({"place": {"city": "Lyon"}, "day": "2026-01-21", "people": 2}, 1000)
    assert json.loads(good.text) == {"city": "Lyon", "day": "2026-01-21", "people": 2, "how": "train", "tags": None}
    for wrong, told in [
        ({}, "'place' is missing; 'day' is missing"),
        ({"place": {"city": "Lyon"}, "day": "2026-01-21", "people": "2"}, "'people' input should be a valid integer"),
        ({"place": {"city": 1}, "day": "2026-01-21"}, "'place.city' input should be a valid string (it is 1)"),
        ({"place": {"city": "Lyon"}, "day": "soon"}, "'day' input should be a valid date"),
        ({"place": {"city": "Lyon"}, "day": "2026-01-21", "who": 1}, "'who' is no parameter of this tool"),
        ({"place": {"city": "Lyon"}, "day": "2026-01-21", "people": 10}, "less than or equal to 9"),
    ]:
        found = tool.call(wrong, 1000)  # type: ignore[arg-type]
        assert found.outcome == "invalid"
        assert told in found.text


def test_async_functions_and_names_of_pydantic_s_own_are_no_matter() -> None:
    assert FunctionTool(tool_functions.later).call({"schema": "ab"}, 100).text == "abab"


def test_what_a_function_raises_is_told() -> None:
    found = FunctionTool(tool_functions.raises).call({}, 100)
    assert (found.outcome, found.text) == ("failed", "RuntimeError: the shelf fell")
    assert "no JSON form" in FunctionTool(tool_functions.odd).call({}, 100).text


def bare(x) -> str:  # type: ignore[no-untyped-def]
    """One."""
    return str(x)


def many(*x: str) -> str:
    """One."""
    return str(x)


def mute(x: str) -> str:
    return x


class Tree(BaseModel):
    children: list[Tree]


def grows(tree: Tree) -> str:
    """One."""
    return str(tree)


@pytest.mark.parametrize(
    ("function", "told"),
    [(bare, "'x' has no type"), (many, "'*x: 'str'' cannot"), (mute, "no docstring"), (grows, "within itself")],
)
def test_what_cannot_be_described_is_refused(function: Any, told: str) -> None:
    with pytest.raises(Invalid, match=told.replace("*", r"\*")):
        FunctionTool(function)


def test_a_property_may_be_called_like_a_word_of_json_schema() -> None:
    given_ = {"type": "object", "properties": {"title": {"type": "string", "title": "Title"}, "$ref": {"type": "null"}}}
    assert plain_schema(given_) == {
        "type": "object", "properties": {"title": {"type": "string"}, "$ref": {"type": "null"}},
    }  # fmt: skip


@given(st.text(max_size=300), st.integers(20, 200))
def test_a_result_never_gets_longer_than_its_limit(text: str, limit: int) -> None:
    found = cut(text, limit)
    assert len(found) <= limit
    assert found == text or "characters in all" in found


@given(st.text())
def test_any_docstring_can_be_read(text: str) -> None:
    arguments_of(text)
    arguments_of(f"One.\n\nArgs:\n    a: {text}")
