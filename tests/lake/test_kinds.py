"""What a file is, by its first bytes and its name, and which columns are evidently question and answer."""

from __future__ import annotations

import io
import sqlite3
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.lake.kinds import EXTENSIONS, kind_of, map_of


def archive(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name in names:
            made.writestr(name, "x")
    return out.getvalue()


FILES: dict[str, tuple[str, bytes, str | None]] = {
    "pdf by content": ("manual.txt", b"%PDF-1.7\n", "pdf"),
    "page by content": ("page.txt", b"\xef\xbb\xbf \n<!DOCTYPE html><p>x", "html"),
    "page by name": ("page.HTML", b"<p>x", "html"),
    "feed": ("feed.xml", b"<?xml version='1.0'?><r/>", "xml"),
    "xhtml": ("page.html", b"<?xml version='1.0'?><html/>", "html"),
    "xml without a name": ("feed", b"<?xml version='1.0'?><r/>", "xml"),
    "word": ("letter.docx", archive("word/document.xml"), "docx"),
    "slack": ("export.zip", archive("users.json", "general/2026-01-01.json"), "chat"),
    "whatsapp archive": ("WhatsApp.zip", archive("_chat.txt"), "chat"),
    "another archive": ("photos.zip", archive("a.jpg"), None),
    "no archive": ("broken.docx", b"PK\x03\x04broken", None),
    "whatsapp of an iPhone": ("_chat.txt", "\u200e[31.12.25, 23:59:59] Ann: Hi".encode(), "chat"),
    "whatsapp of an Android": ("WhatsApp Chat.txt", b"12/31/25, 11:59 PM - Ann: Hi", "chat"),
    "notes with a date": ("notes.txt", b"31.12.25 was a good day: yes", "text"),
    "openai": ("a.jsonl", b'{"messages": [{"role": "user", "content": "x"}]}\n', "chat"),
    "sharegpt": ("a.json", b'[{"conversations": [{"from": "human", "value": "x"}]}]', "chat"),
    "lines called json": ("a.json", b'{"a": 1}\n{"a": 2}\n', "jsonl"),
    "one object": ("a.json", b'{"a":\n 1}', "json"),
    "one object in lines": ("a.jsonl", b'{"a": 1}\n', "jsonl"),
    "array": ("a.json", b'[{"a": 1}]', "json"),
    "mail": ("inbox", b"From ann@example.org Thu Jan  1 00:00:00 2026\nSubject: x\n", "mbox"),
    "tabs": ("a.tsv", b"a\tb\n", "tsv"),
    "markdown": ("README.md", b"# x", "markdown"),
    "nothing": ("a.csv", b"  \n", None),
    "unknown": ("a.raw", b"\x00\x01", None),
}


@pytest.mark.parametrize("case", FILES)
def test_content_goes_before_name(tmp_path: Path, case: str) -> None:
    name, data, kind = FILES[case]
    (tmp_path / name).write_bytes(data)
    assert kind_of(tmp_path / name) == kind


def test_databases_and_tables(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.bin") as database:
        database.execute("create table t (a int)")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "part-0")
    assert kind_of(tmp_path / "shop.bin") == "sql"
    assert kind_of(tmp_path / "part-0") == "parquet"


@given(st.binary(max_size=300), st.sampled_from(["", ".zip", ".json", *EXTENSIONS]))
def test_no_content_is_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    file = tmp_path_factory.getbasetemp() / f"any{suffix}"
    file.write_bytes(data)
    assert kind_of(file) in {None, "chat", "huggingface", "sql", *EXTENSIONS.values()}


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([], {}),
        ([{"Question ": "a", "ANSWER": "b"}], {"question": "Question ", "answer": "ANSWER"}),
        ([{"prompt": "a", "completion": "b", "thread_id": "c"}],
         {"question": "prompt", "answer": "completion", "conversation": "thread_id"}),
        ([{"heading": "a", "body": "b"}] * 9 + [{"heading": "", "body": "b"}],
         {"question": "heading", "answer": "body"}),
        ([{"heading": "", "body": "b"}] * 2 + [{"heading": "a", "body": "b"}] * 8, {}),
        ([{"item": "a", "price": "b"}], {}),
        ([{"question": "a"}], {}),
    ],
)  # fmt: skip
def test_columns_are_taken_where_they_are_evident_and_filled(rows: list[dict[str, str]], found: dict[str, str]) -> None:
    assert map_of(rows) == found
