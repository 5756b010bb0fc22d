"""The real stages on a folder with planted rows: no item of a validated kind lies past the sources' raw copy."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks.personal.rows import Row, rows

pytestmark = pytest.mark.slow

TOML = """
[project]
name = "shop"
[engines.local]
kind = "llamacpp"
model = "smollm2-135m-instruct"
[[sources]]
name = "mail"
kind = "csv"
path = "mail.csv"
map = { question = "question", answer = "answer" }
[tasks.help]
sources = ["mail"]
base = "smollm2-135m-instruct"
engine = "local"
answer_chars = 4000
context = { source = "mail" }
recipe = { kind = "lora", max_length = 4096 }
"""

LOOSE = ("cz.birth", "se.person")
"""Carriers of these may hold no word of the country, and one of the forms is ten or twelve bare digits."""


def noria(*words: str) -> Any:
    done = subprocess.run([sys.executable, "-m", "noria", *words], capture_output=True, text=True, timeout=600)
    return done


def planted() -> list[Row]:
    """Rows whose items are all of a kind that is believed as it stands or announced by its carrier."""
    found = rows(600)
    return [
        row
        for row in found
        if not any(item.maker in LOOSE and row.text[item.start : item.end].isdigit() for item in row.planted)
    ]


def held(texts: list[str], values: set[str]) -> set[str]:
    whole = "\n".join(texts)
    return {value for value in values if value in whole}


def test_no_planted_item_is_in_the_tables_the_index_or_the_features(tmp_path: Path) -> None:
    made = planted()
    values = {row.text[item.start : item.end] for row in made for item in row.planted}
    assert len(values) > 500
    (tmp_path / "noria.toml").write_text(TOML)
    with (tmp_path / "mail.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("question", "answer"))
        for number, row in enumerate(made):
            other = made[(number + 1) % len(made)]
            writer.writerow((f"Case {number}: {row.text}", other.text))
    done = noria("run", "features", "--json", "--project", str(tmp_path))
    assert done.returncode == 0, done.stderr
    folders = {stage: next((tmp_path / "lake" / stage / "help").iterdir()) for stage in ("dataset", "features")}
    raw = next((tmp_path / "lake" / "sources" / "help").iterdir()) / "documents.parquet"
    assert held(pq.read_table(raw)["text"].to_pylist(), values) == values
    for side in ("train", "test"):
        table = pq.read_table(folders["dataset"] / f"{side}.parquet").to_pylist()
        assert table
        assert held([json.dumps(row, ensure_ascii=False) for row in table], values) == set()
    assert held(_decoded(folders["features"], tmp_path), values) == set()
    assert noria("scan", "help", "--project", str(tmp_path)).returncode == 0
    assert noria("scan", str(raw), "--project", str(tmp_path)).returncode == 1


def _decoded(features: Path, root: Path) -> list[str]:
    from tokenizers import Tokenizer

    file = next((root / ".noria" / "models").rglob("tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(file))
    tokens = pq.read_table(features / "features.parquet")["input_ids"].to_pylist()
    return [tokenizer.decode(each) for each in tokens]
