"""Context by meaning, from the data set to the feature store: an attached engine makes the vectors."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from encoding_server import encoding_server
from tiny_llama import tiny_model

from noria.errors import Invalid
from noria.settings import load

TOML = """
[project]
name = "shop"
[engines.local]
kind = "llamacpp"
model = "tiny.gguf"
[engines.encoder]
kind = "openai"
url = "{url}"
[[sources]]
name = "faq"
kind = "csv"
path = "faq.csv"
map = {{ question = "question", answer = "answer" }}
[tasks.help]
sources = ["faq"]
base = "tiny.gguf"
engine = "local"
context = {{ source = "faq", k = 1, {context} }}
"""
FAQ = [
    ("How do I change my password?", "Use the link below the form."),
    ("Where is my order?", "Look under account, tab shipping."),
    ("When do you open?", "Every weekday at nine."),
    ("Do you repair pans?", "Bring them to the workshop."),
    ("May I return bowls?", "Within thirty days, unused."),
    ("Which cards do you take?", "All common ones, and cash."),
]


def noria(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "noria", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(
    ("context", "match"),
    [
        ('by = "meaning"', "name an engine that makes vectors"),
        ("rerank = true", "name an engine that makes vectors"),
        ('engine = "encoder"', "does not use"),
        ('by = "meaning", engine = "nobody"', "wants engine 'nobody'"),
        ('by = "smell"', "words"),
    ],
)
def test_a_context_that_cannot_be_is_refused_at_once(context: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text(TOML.format(url="http://127.0.0.1:1/v1", context=context))
    with pytest.raises(Invalid, match=match):
        load(tmp_path / "noria.toml")


@pytest.mark.slow
def test_rows_are_made_with_context_by_meaning_and_documents_go_online(tmp_path: Path) -> None:
    with (tmp_path / "faq.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("question", "answer"), *FAQ])
    tiny_model(tmp_path / "tiny.gguf")
    place = ("--project", str(tmp_path))
    with encoding_server() as server:
        text = TOML.format(url=server.url, context='by = "meaning", engine = "encoder"')
        (tmp_path / "noria.toml").write_text(text)
        done = noria("run", "features", *place)
        assert done.returncode == 0, done.stderr
        (dataset,) = (tmp_path / "lake" / "dataset" / "help").iterdir()
        rows = [row for side in ("train", "test") for row in pq.read_table(dataset / f"{side}.parquet").to_pylist()]
        assert {row["context"] for row in rows if row["target"] == FAQ[0][1]} == {rows_text(FAQ[0])}
        batches = [len(asked) for asked in server.asked]
        found = noria("features", "retrieve", "I forgot my login", "--json", *place)
        assert found.returncode == 0, found.stderr
        assert [each["text"] for each in json.loads(found.stdout)] == [rows_text(FAQ[0])]
        online = noria("features", "materialize", "--json", *place)
        assert online.returncode == 0, online.stderr
        assert json.loads(online.stdout)["documents"] == len(FAQ)
        assert json.loads(online.stdout)["online"] == pq.read_metadata(dataset / "train.parquet").num_rows
    # All documents at once, then all questions at once.
    assert batches == [len(FAQ), len(rows)]
    gone = noria("features", "retrieve", "I forgot my login", *place)
    assert gone.returncode == 1
    assert "does not answer" in gone.stderr


def rows_text(row: tuple[str, str]) -> str:
    return f"question: {row[0]}\nanswer: {row[1]}"
