"""Whatever bytes a reader gets, it gives rows, faults and skips, and never raises."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest
from files import DAY, FILES, MESSAGES, archive
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.lake.chat import chat_rows
from noria.lake.docx import docx_rows
from noria.lake.parsers import PARSERS
from noria.lake.rows import Fault, Item, Row, Skip

STARTS = (
    b"",
    b"PK\x03\x04",
    b"PAR1",
    b"ARROW1\x00\x00",
    b"\xff\xff\xff\xff",
    b"%PDF-1.7\n",
    b"From ",
    b"<?xml ",
    b"[{",
)


def read(kind: str, data: bytes) -> list[Item]:
    items = list(PARSERS[kind](data))
    for item in items:
        assert isinstance(item, Row | Fault | Skip)
        if not isinstance(item, Skip):
            assert item.offset >= 0
        if isinstance(item, Fault):
            assert item.reason
    return items


def test_every_reader_is_here() -> None:
    assert FILES.keys() == PARSERS.keys()


@pytest.mark.parametrize("kind", sorted(PARSERS))
def test_good_files_are_rows_only(kind: str) -> None:
    for data in FILES[kind]:
        items = read(kind, data)
        assert any(isinstance(item, Row) for item in items)
        assert not any(isinstance(item, Fault) for item in items)


@pytest.mark.parametrize("kind", sorted(PARSERS))
@given(start=st.sampled_from(STARTS), data=st.binary(max_size=300))
def test_random_bytes(kind: str, start: bytes, data: bytes) -> None:
    read(kind, start + data)


@pytest.mark.parametrize("kind", sorted(PARSERS))
@given(draw=st.data())
def test_damaged_files(kind: str, draw: st.DataObject) -> None:
    """Cut anywhere, or with some bytes replaced by others, fewer or more of them."""
    data = draw.draw(st.sampled_from(FILES[kind]))
    if draw.draw(st.booleans()):
        data = data[: draw.draw(st.integers(0, len(data)))]
    else:
        at, gone = draw.draw(st.integers(0, len(data))), draw.draw(st.integers(0, 40))
        data = data[:at] + draw.draw(st.binary(max_size=40)) + data[at + gone :]
    read(kind, data)


ODD: st.SearchStrategy[Any] = st.sampled_from([None, 1, "x", [], {}, [[]], {"a": {}}, "\ud800", 1e308, True])


@given(draw=st.data())
def test_json_of_another_shape_than_chats_have(draw: st.DataObject) -> None:
    def changed(value: Any) -> Any:
        if draw.draw(st.integers(0, 9)) == 0:
            return draw.draw(ODD)
        if isinstance(value, dict):
            return {key: changed(inner) for key, inner in value.items()}
        return [changed(inner) for inner in value] if isinstance(value, list) else value

    pair = {
        "input": {"messages": MESSAGES[:2]},
        "preferred_output": [MESSAGES[2]],
        "non_preferred_output": [MESSAGES[4]],
    }
    talk = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"}
    whole = draw.draw(st.sampled_from([{"messages": MESSAGES, "answer": "x"}, pair, talk, DAY, [MESSAGES]]))
    for item in chat_rows(json.dumps(changed(whole)).encode()):
        assert isinstance(item, Row | Fault | Skip)


@settings(max_examples=30)
@given(
    name=st.sampled_from(["word/document.xml", "[Content_Types].xml", "_rels/.rels", "word/styles.xml"]), draw=st.data()
)
def test_word_documents_with_damage_inside(name: str, draw: st.DataObject) -> None:
    with zipfile.ZipFile(io.BytesIO(FILES["docx"][0])) as made:
        parts = {part: made.read(part) for part in made.namelist()}
    at, gone = draw.draw(st.integers(0, len(parts[name]))), draw.draw(st.integers(0, 400))
    parts[name] = parts[name][:at] + parts[name][at + gone :]
    for item in docx_rows(archive(parts)):
        assert isinstance(item, Row | Fault | Skip)
