"""The stage `sources`: provenance, quarantine, what it observes and what it refuses."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path

import pytest
from small_project import Project

from noria.errors import Conflict, Invalid, NotFound, Unavailable
from noria.types import Document


def test_records_carry_their_provenance(tmp_path: Path) -> None:
    data = b"id,question,answer\n007,Why?,Because.\n008,Who?,\n009,caf\xe9,x\n"
    (tmp_path / "a.csv").write_bytes(data)
    project = Project(tmp_path, 'kind = "csv"\npath = "*.csv"\nmap = { question = "question", answer = "answer" }')
    tables = project.run()
    (row,) = tables["documents"]
    document = Document(**{**row, "fields": json.loads(row["fields"])})
    assert document.fields == {"id": "007", "question": "Why?", "answer": "Because."}
    assert document.text == "id: 007\nquestion: Why?\nanswer: Because."
    assert (document.file, document.offset) == ("a.csv", data.index(b"007"))
    assert document.digest == hashlib.sha256(data).hexdigest()
    assert document.conversation == document.id
    assert [(bad["offset"], bad["reason"]) for bad in tables["quarantine"]] == [
        (data.index(b"008"), "column 'answer' is empty"),
        (data.index(b"009"), "not valid UTF-8: byte 0xe9"),
    ]
    assert tables["interactions"] == tables["feedback"] == []


def test_a_conversation_column_groups_rows_and_stays_out_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"c": "7", "q": "A", "a": "B"}\n{"c": "8", "q": "A", "a": "B"}\n')
    names = 'map = { question = "q", answer = "a", conversation = "c" }'
    rows = Project(tmp_path, f'kind = "jsonl"\npath = "a.jsonl"\n{names}').run()["documents"]
    assert {row["conversation"] for row in rows} == {"7", "8"}
    assert {row["text"] for row in rows} == {"q: A\na: B"}
    assert len({row["id"] for row in rows}) == 2


def test_ids_outlive_moved_rows_and_files(tmp_path: Path) -> None:
    project = Project(tmp_path, 'kind = "jsonl"\npath = "*.jsonl"')
    (tmp_path / "a.jsonl").write_text('{"x": "1"}\n{"x": "2"}\n')
    before = {row["text"]: row["id"] for row in project.run()["documents"]}
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "b.jsonl").write_text('{"x": "0"}\n{"x": "2"}\n{"x": "1"}\n')
    after = {row["text"]: row["id"] for row in project.run()["documents"]}
    assert before.items() <= after.items()


def test_sql_rows_come_from_a_file_in_the_project(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("create table orders (id text, item text, due integer)")
        database.executemany("insert into orders values (?, ?, ?)", [("002", "Bowl", None), ("001", "Größe L", 3)])
    database.close()
    source = 'kind = "sql"\nurl = "sqlite:///shop.db"\nquery = "select * from orders order by item {}"'
    project = Project(tmp_path, source.format("asc"))
    rows = project.run()["documents"]
    assert {row["text"] for row in rows} == {"id: 001\nitem: Größe L\ndue: 3", "id: 002\nitem: Bowl"}
    assert {row["file"] for row in rows} == {"shop.db"}
    assert Project(tmp_path, source.format("desc")).observed() == project.observed()


@pytest.mark.parametrize(
    ("url", "query", "error"),
    [
        ("sqlite:///missing.db", "select 1", "there is no database 'missing.db'"),
        ("sqlite://", "select from", "the query failed"),
        ("nonsense", "select 1", "is no database address"),
    ],
)
def test_a_wrong_database_is_refused(tmp_path: Path, url: str, query: str, error: str) -> None:
    with pytest.raises(NotFound if "missing" in url else Invalid, match=error) as caught:
        Project(tmp_path, f'kind = "sql"\nurl = "{url}"\nquery = "{query}"').run()
    assert caught.value.where == "noria.toml:14"


def test_a_query_cannot_write(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("create table orders (id text)")
    database.close()
    with pytest.raises(Invalid, match="readonly"):
        Project(tmp_path, 'kind = "sql"\nurl = "sqlite:///shop.db"\nquery = "delete from orders returning id"').run()


def test_a_pattern_without_files_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"source 'data': no file matches 'data/\*.csv'") as caught:
        Project(tmp_path, 'kind = "csv"\npath = "data/*.csv"').run()
    assert caught.value.where == "noria.toml:14"


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        ("csv", b"", "its files hold no row"),
        ("csv", b"a,b\n1\n", "all of its 1 rows are faulty, the first: x, 4: the row has 1 values"),
        ("json", b"{", "not valid JSON"),
        ("html", b"<h1>Title</h1>", "1 times section without text"),
    ],
)
def test_an_empty_source_is_refused_with_the_reason(tmp_path: Path, kind: str, data: bytes, why: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(Invalid, match="source 'data' is empty") as caught:
        Project(tmp_path, f'kind = "{kind}"\npath = "x"').run()
    assert why in caught.value.fact
    assert caught.value.where == "noria.toml:11"


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"q,a\n1,2\n")
    with pytest.raises(Invalid, match="there is no column 'question', but: q, a"):
        Project(tmp_path, 'kind = "csv"\npath = "x"\nmap = { question = "question", answer = "a" }').run()


def test_what_is_observed_changes_with_the_files_and_only_with_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.")
    project = Project(tmp_path, 'kind = "text"\npath = "*.txt"')
    before = project.observed()
    assert project.observed() == before
    (tmp_path / "b.txt").write_text("Two.")
    assert project.observed() != before
    with pytest.raises(Conflict, match="changed while it was read"):
        project.run(before)


def test_an_absolute_path_may_lie_outside(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    (tmp_path / "far" / "a.txt").write_text("Here.")
    rows = Project(tmp_path / "near", f'kind = "text"\npath = "{tmp_path}/far/*.txt"').run()["documents"]
    assert [(row["file"], row["text"]) for row in rows] == [("a.txt", "Here.")]


def test_a_silent_database_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises((Unavailable, Invalid)):
        Project(tmp_path, 'kind = "sql"\nurl = "postgresql+psycopg://u:secret@127.0.0.1:9/x"\nquery = "select 1"').run()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ('kind = "html"', "needs path or url"),
        ('kind = "html"\npath = "x"\nurl = "http://127.0.0.1/"', "needs path or url"),
        ('kind = "html"\nurl = "ftp://127.0.0.1/"', "begins with http"),
        ('kind = "csv"\npath = "x"\nrecord = "item"', "record is for kind xml, not csv"),
        ('kind = "xml"\npath = "x"\nmain = true', "main is for kind html, not xml"),
        ('kind = "text"\npath = "x"\nassistants = ["a"]', "assistants is for kind chat and mbox"),
        ('kind = "html"\nurl = "http://127.0.0.1/"\ncrawl = { rate = 0 }', "greater than 0"),
    ],
)
def test_options_that_say_nothing_are_refused(tmp_path: Path, source: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        _ = Project(tmp_path, source).settings


def test_chats_need_no_columns_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "chat.txt").write_text("[12.03.24, 14:05:33] A: Hi\n[12.03.24, 14:05:40] B: Hello\n")
    source = 'kind = "chat"\npath = "*.txt"\nassistants = ["A"]\nmap = { question = "question", answer = "answer" }'
    with pytest.raises(Invalid, match="1 times question without an answer"):
        Project(tmp_path, source).run()
    (row,) = Project(tmp_path, source.replace('["A"]', '["B"]')).run()["documents"]
    assert json.loads(row["fields"])["question"] == "Hi"
    assert row["text"] == "Hi\nHello"


def test_the_element_of_a_record_is_an_option(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text("<f><e><i>1</i><i>2</i></e><e><i>3</i></e></f>")
    rows = Project(tmp_path, 'kind = "xml"\npath = "x.xml"\nrecord = "i"').run()["documents"]
    assert {row["text"] for row in rows} == {"i: 1", "i: 2", "i: 3"}
