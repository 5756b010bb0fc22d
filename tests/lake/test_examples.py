"""Worked examples and real files: what each kind of source gives."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from small_project import Project

from noria.lake.arrow import arrow_rows
from noria.lake.rows import Row

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_support_bot_reads_six_kinds_of_sources(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "support-bot", tmp_path, dirs_exist_ok=True)
    with sqlite3.connect(tmp_path / "data" / "services.db") as database:
        database.executescript((tmp_path / "data" / "services.sql").read_text(encoding="utf-8"))
    database.close()
    project = Project(tmp_path, None, task="support")
    tables = project.run()
    counts = Counter(row["source"] for row in tables["documents"])
    assert counts == {"orders": 12, "chat": 7, "services": 6, "reviews": 6, "products": 6, "faq": 5}
    assert tables["quarantine"] == []
    assert len({row["file"] for row in tables["documents"]}) == 7


@pytest.mark.slow
def test_datasets_on_disk_as_hugging_face_writes_them(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"id": f"{n:03}", "said": ["ü", str(n)], "score": n / 4} for n in range(50)]
    sides = {"train": datasets.Dataset.from_list(rows[:40]), "test": datasets.Dataset.from_list(rows[40:])}
    datasets.DatasetDict(sides).save_to_disk(str(tmp_path / "saved"), num_shards={"train": 3, "test": 1})
    files = sorted((tmp_path / "saved").glob("**/*.arrow"))
    assert len(files) == 4
    found = [item.fields for file in files for item in arrow_rows(file.read_bytes()) if isinstance(item, Row)]
    assert sorted(found, key=lambda row: row["id"]) == [
        {"id": row["id"], "said": f'["ü", "{n}"]', "score": str(row["score"])} for n, row in enumerate(rows)
    ]
