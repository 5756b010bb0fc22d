"""Readers of files: what becomes a row, what a fault, and where it stood."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.lake.html import clean_heading, sections
from noria.lake.rows import Fault, Item, Row, Skip
from noria.lake.tables import csv_rows, json_rows, jsonl_rows, yaml_rows
from noria.lake.text import paragraphs


def fields(items: list[Item]) -> list[dict[str, str]]:
    return [item.fields for item in items if isinstance(item, Row)]


def faults(items: list[Item]) -> list[tuple[int, str]]:
    return [(item.offset, item.reason) for item in items if isinstance(item, Fault)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_keeps_strings_and_finds_its_delimiter(delimiter: str) -> None:
    lines = [["zip", "name", "note"], ["00123", "Zoë", 'a "b", c; d'], ["0", "李", "two\nlines"]]
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(lines)
    assert fields(list(csv_rows(b"\xef\xbb\xbf" + stream.getvalue().encode()))) == [
        {"zip": "00123", "name": "Zoë", "note": 'a "b", c; d'},
        {"zip": "0", "name": "李", "note": "two\nlines"},
    ]


def test_a_ragged_csv_row_costs_itself_only() -> None:
    data = b"a,b\n1,2\n3,4,5\n\n6\n7,8\n"
    items = list(csv_rows(data))
    assert fields(items) == [{"a": "1", "b": "2"}, {"a": "7", "b": "8"}]
    assert faults(items) == [
        (data.index(b"3"), "the row has 3 values, the header has 2"),
        (data.index(b"6"), "the row has 1 values, the header has 2"),
    ]


def test_bytes_that_are_no_text_are_kept_for_the_check_of_their_row() -> None:
    rows = fields(list(csv_rows(b"a,b\n1,caf\xe9\n2,tea\n")))
    assert rows[1] == {"a": "2", "b": "tea"}
    assert rows[0]["b"] == "caf\udce9"


def test_csv_offsets_are_bytes() -> None:
    data = 'a,b\né,2\n"x\ny",3\nz,4\n'.encode()
    offsets = [item.offset for item in csv_rows(data) if isinstance(item, Row)]
    assert [data[offset:][:2] for offset in offsets] == ["é".encode(), b'"x', b"z,"]


def test_csv_with_a_column_twice_is_a_fault() -> None:
    assert faults(list(csv_rows(b"a,a\n1,2\n"))) == [(0, "two columns are called 'a'")]


def test_json_takes_an_array_or_one_object() -> None:
    row = {"n": 1, "on": True, "none": None, "more": {"ü": [1, 2]}}
    want = {"n": "1", "on": "true", "none": "", "more": '{"ü": [1, 2]}'}
    assert fields(list(json_rows(json.dumps(row).encode()))) == [want]
    items = list(json_rows(json.dumps([row, 3]).encode("utf-8-sig")))
    assert fields(items) == [want]
    assert faults(items) == [(1, "row 1 is not an object with columns")]
    assert "not valid JSON" in faults(list(json_rows(b"[{]")))[0][1]
    assert "nested too deeply" in faults(list(json_rows(b"[" * 100_000)))[0][1]


def test_a_broken_line_costs_itself_only() -> None:
    data = b'{"a": "1"}\n{"a": \n\n[1]\n{"a": "\xff"}\n{"a": "2"}'
    items = list(jsonl_rows(data))
    assert fields(items) == [{"a": "1"}, {"a": "2"}]
    places = [offset for offset, _ in faults(items)]
    assert places == [data.index(b'{"a": \n'), data.index(b"[1]"), data.index(b'{"a": "\xff')]
    assert faults(items)[2][1] == "not valid UTF-8: byte 0xff"


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=5))
def test_json_lines_come_back(rows: list[dict[str, str]]) -> None:
    assert fields(list(jsonl_rows("\n".join(map(json.dumps, rows)).encode()))) == rows


def test_yaml_scalars_stay_as_written() -> None:
    data = b"- {zip: 01234, price: 1.10, ok: no, day: 2024-01-02, none: ~}\n- &a {zip: 1}\n- {<<: *a, x: y}\n- word\n"
    items = list(yaml_rows(data))
    assert fields(items) == [
        {"zip": "01234", "price": "1.10", "ok": "no", "day": "2024-01-02", "none": ""},
        {"zip": "1"},
        {"zip": "1", "x": "y"},
    ]
    assert faults(items) == [(3, "row 3 is not an object with columns")]
    assert faults(list(yaml_rows(b"a: [1")))[0][1].startswith("not valid YAML in line")


def test_yaml_conversations_become_pairs() -> None:
    data = b"categories: [x]\nconversations:\n- [Q1, A1, Q2, A2]\n- [Q3, A3, odd]\n- not a list\n- [2008, yes]\n"
    items = list(yaml_rows(data))
    rows = [item for item in items if isinstance(item, Row)]
    assert [(row.fields["question"], row.fields["answer"]) for row in rows] == [
        ("Q1", "A1"), ("Q2", "A2"), ("Q3", "A3"), ("2008", "yes"),
    ]  # fmt: skip
    assert rows[0].conversation == rows[1].conversation != rows[2].conversation
    assert faults(items) == [(2, "conversation 2 is not a list of texts")]
    assert Skip("last turn without an answer") in items


def test_paragraphs_know_their_bytes() -> None:
    data = "Ein schöner\r\nTag.\r\n \r\n\n  Zwei.\n\n\n".encode()
    rows = [item for item in paragraphs(data) if isinstance(item, Row)]
    assert [row.text for row in rows] == ["Ein schöner Tag.", "Zwei."]
    assert data[rows[1].offset :].startswith(b"Zwei.")


PAGE = """<html><head><title>Shop</title><style>p {}</style></head><body>
<nav><a href="/">Home</a></nav><div class="navheader"><h1>No</h1></div>
<header><h1>Site</h1></header>
<p>Before any heading.</p>
<h1>7.&nbsp;Help<a class="headerlink" href="#x">¶</a></h1><div class="toc"><p>Contents</p></div>
<div class="section"><h2>7.1.\u00a0What is it?</h2><p>First   <b>bold</b>&amp;<i>light</i>.<br/>Next line.</p>
<ul><li>one</li><li><p>two</p></li></ul><ol><li>a</li><li>b</li></ol>
<div><h3>Nested</h3><pre>  code  x\n  more</pre></div></div>
<h2>Empty</h2>
<h2>Links</h2><ul><li><a href="a">Alpha beta</a></li><li><a href="b">Gamma delta</a></li></ul>
<h2>Table</h2><table><tr><th>Size</th><th>Price</th></tr><tr><td>L</td><td>€3</td></tr></table><script>x()</script>
<h4>3 ways to pay</h4><p hidden>secret</p><p>Cash.</p>
<footer><p>Imprint</p></footer></body></html>"""


def test_sections_of_a_page() -> None:
    items = list(sections(PAGE.encode()))
    assert {row["heading"]: row["body"] for row in fields(items)} == {
        "What is it?": "First bold&light.\nNext line.\n- one\n- two\n1. a\n2. b",
        "Nested": "code x\nmore",
        "Table": "Size | Price\nL | €3",
        "3 ways to pay": "Cash.",
    }
    reasons = [item.reason for item in items if isinstance(item, Skip)]
    assert sorted(reasons) == ["section of links", "section without text", "section without text"]
    rows = [item for item in items if isinstance(item, Row)]
    assert rows[0].text is not None
    assert rows[0].text.startswith("What is it?\nFirst")


def test_a_page_without_headings_is_one_section() -> None:
    assert fields(list(sections(b"<title>T</title><p>Text."))) == [{"heading": "T", "body": "Text."}]
    assert fields(list(sections(b""))) == []


def test_main_is_the_page_where_there_is_one() -> None:
    page = (
        b"<body><h2>Menu</h2><p>no</p><main><article><header><h2>Yes</h2></header><p>text</p></article></main></body>"
    )
    assert fields(list(sections(page))) == [{"heading": "Yes", "body": "text"}]


def test_a_page_says_its_own_encoding() -> None:
    page = '<meta charset="iso-8859-1"><h1>Größe</h1><p>café</p>'.encode("latin-1")
    assert fields(list(sections(page))) == [{"heading": "Größe", "body": "café"}]
    assert "not valid UTF-8" in faults(list(sections("<h1>Größe</h1>".encode("latin-1"))))[0][1]


def test_deep_pages_do_not_exhaust_the_stack() -> None:
    page = b"<h1>Deep</h1>" + b"<div>" * 5000 + b"text"
    assert fields(list(sections(page))) == [{"heading": "Deep", "body": "text"}]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("7.1.\u00a0What is …", "What is …"),
        ("Chapter 3. Choosing", "Choosing"),
        ("2) Pay", "Pay"),
        ("4.2 Setup", "Setup"),
        ("3 ways to pay", "3 ways to pay"),
        ("2024", "2024"),
        ("Windows 11. And now?", "Windows 11. And now?"),
    ],
)
def test_headings_lose_their_numbers(text: str, clean: str) -> None:
    assert clean_heading(text) == clean
