"""The leakage scan counts what is there in every kind of file, and keeps nothing of it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from noria.apps.cli import app
from noria.datasets import leaks
from noria.datasets.scrub import Rules
from noria.errors import Invalid, NotFound
from noria.settings import ScrubSettings

MAIL = "write to jane@shop.example"


def planted(folder: Path) -> Path:
    messages = json.dumps([{"role": "user", "content": f"line one\n{MAIL}"}])
    rows = {
        "id": ["4111111111111111", "2"], "messages": [messages, "[]"], "context": [None, MAIL],
        "target": ["no", MAIL], "conversation": ["4111111111111111", "c"],
    }  # fmt: skip
    pq.write_table(pa.table(rows), folder / "train.parquet")
    pq.write_table(pa.table({"name": ["x"], "mail": ["jane@shop.example"]}), folder / "own.parquet")
    (folder / "report.json").write_text(json.dumps({"rows": [{"question": "?", "candidate": MAIL}], "other": MAIL}))
    (folder / "chat.jsonl").write_text(json.dumps({"a": [f"x\n{MAIL}"], "n": 4111111111111111}) + "\n")
    (folder / "note.txt").write_text(f"first\n{MAIL}\n")
    (folder / "picture.png").write_bytes(b"\x89PNG jane@shop.example")
    with sqlite3.connect(folder / "index.sqlite") as database:
        database.execute("CREATE TABLE texts(id INTEGER PRIMARY KEY, text TEXT)")
        database.execute("INSERT INTO texts(text) VALUES (?)", (MAIL,))
    database.close()
    return folder


def test_every_kind_of_file_is_looked_at(tmp_path: Path) -> None:
    found = {each.file: (each.texts, dict(each.kinds)) for each in leaks.scan(planted(tmp_path))}
    assert found == {
        "train.parquet": (6, {"email": 3}),
        "own.parquet": (2, {"email": 1}),
        "report.json": (2, {"email": 1}),
        "chat.jsonl": (1, {"email": 1}),
        "note.txt": (2, {"email": 1}),
        "index.sqlite": (1, {"email": 1}),
    }


def test_what_the_task_leaves_alone_is_no_leak(tmp_path: Path) -> None:
    rules = Rules(ScrubSettings(allow=("jane@shop.example",)))
    assert leaks.kinds_of(leaks.scan(planted(tmp_path), rules)) == {}
    assert leaks.kinds_of(leaks.scan(tmp_path)) == {"email": 8}


def test_what_cannot_be_scanned_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no"):
        leaks.scan(tmp_path / "none")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(Invalid, match="holds no text"):
        leaks.scan(tmp_path)


def test_the_command_fails_where_something_is_found(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("nothing here\n")
    assert CliRunner().invoke(app, ["scan", str(tmp_path / "good.txt")]).exit_code == 0
    (tmp_path / "bad.txt").write_text(f"{MAIL} and 4111 1111 1111 1111\n")
    bad = CliRunner().invoke(app, ["scan", str(tmp_path / "bad.txt"), "--json"])
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["leaks"] == {"card": 1, "email": 1}
    assert "jane" not in bad.stdout
