"""The stage `documents` on a real engine: the steps a task asks for, their counts, and the table they leave."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import JsonValue

from noria.backends.folder_lake import FolderLake
from noria.backends.spark import session
from noria.datasets import clean, parts
from noria.datasets.rows import read_documents
from noria.datasets.schema import DOCUMENTS, KEY, files_of
from noria.errors import Invalid
from noria.ports import Platform
from noria.settings import load
from noria.stage import Look, Work
from noria.types import Artifact, Ref, digest_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.slow

TOML = """
[project]
name = "shop"
[engines.local]
kind = "llamacpp"
model = "none"
[[sources]]
name = "faq"
kind = "jsonl"
path = "faq.jsonl"
map = {{ question = "q", answer = "a" }}
[[sources]]
name = "pages"
kind = "html"
path = "*.html"
[tasks.help]
sources = ["faq", "pages"]
base = "none"
engine = "local"
{clean}
"""
Row = tuple[str, Mapping[str, str]]


class Quiet:
    """Progress that nobody watches."""

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        assert done <= total


@dataclass
class Kitchen:
    """A project with what the stage `sources` gave."""

    root: Path
    spark: SparkSession
    runs: int = 0
    rows: list[dict[str, object]] = field(default_factory=list)

    def add(self, source: str, rows: Sequence[Row]) -> None:
        for number, (text, found) in enumerate(rows, len(self.rows)):
            values = json.dumps(found, ensure_ascii=False)
            row = {"id": digest_of([source, text, values, number]), "source": source, "text": text, "fields": values}
            self.rows.append({**row, "conversation": "c", "file": "f", "offset": number, "digest": "ab" * 8})

    def cook(self, steps: str = "", cuts: int = 1) -> tuple[Path, Mapping[str, JsonValue]]:
        """Run the stage on input in so many files; returns its folder and what it measured."""
        (self.root / "noria.toml").write_text(TOML.format(clean=steps))
        settings = load(self.root / "noria.toml")
        lake = FolderLake(self.root / "lake")
        self.runs += 1
        ref = self._sources(lake, cuts)

        @contextmanager
        def spark() -> Iterator[SparkSession]:
            yield self.spark

        used = {"settings": settings, "lake": lake, "spark": spark}
        given: dict[str, Any] = {part.name: used.get(part.name) for part in fields(Platform)}
        task = settings.tasks["help"]
        inputs = {"sources": Artifact(ref=ref, parents=(), run_key="ab" * 8)}
        out = lake.scratch(f"run{self.runs}")
        work = Work(Platform(**given), "help", task, "c", inputs, None, out, Quiet())
        assert clean.params(Look(work.platform, "help", task, inputs))
        return out, clean.work(work)

    def _sources(self, lake: FolderLake, cuts: int) -> Ref:
        folder = lake.scratch(f"sources{self.runs}")
        table = pa.Table.from_pylist(self.rows, schema=DOCUMENTS.remove_metadata()).sort_by("id")
        if cuts == 1:
            pq.write_table(table, folder / "documents.parquet")
        else:
            (folder / "documents.parquet").mkdir()
            for cut in range(cuts):
                start, end = len(table) * cut // cuts, len(table) * (cut + 1) // cuts
                file = folder / "documents.parquet" / f"{cuts - cut}.parquet"
                pq.write_table(table.slice(start, end - start), file, row_group_size=cut + 1)
        return lake.commit(folder, "sources", "help")


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    with session("embedded") as opened:
        yield opened


@pytest.fixture
def kitchen(tmp_path: Path, spark: SparkSession) -> Kitchen:
    return Kitchen(tmp_path, spark)


def texts(out: Path, source: str = "faq") -> list[str]:
    return sorted(document.text for document in read_documents(out / "documents.parquet", [source]))


def told(measured: Mapping[str, JsonValue]) -> list[tuple[object, object, object]]:
    found = measured["steps"]
    assert isinstance(found, list)
    return [(step["step"], step["in"], step["out"]) for step in found if isinstance(step, dict)]


def digests(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def mixed(kitchen: Kitchen) -> None:
    said = [
        f"Grüße  number {n} of\u00a0the day, {'ＦＵＬＬ ' if n % 3 else ''}about topic{n * 7 % 11} and more"
        for n in range(60)
    ]
    kitchen.add("faq", [(text, {"q": text, "a": f"Answer {n}"}) for n, text in enumerate(said)])
    kitchen.add("faq", [(text.upper(), {"q": text.upper(), "a": f"Answer {n}"}) for n, text in enumerate(said[:20])])
    pages = [f"Menu\nPage {n} tells of wheel{n} and water{n * 3}\nTop" for n in range(30)]
    kitchen.add("pages", [(page, {"heading": f"Page {n}", "body": page}) for n, page in enumerate(pages)])
    kitchen.add("pages", [("!", {"body": "!"})])


def test_the_default_steps_account_for_every_row_of_every_source(kitchen: Kitchen) -> None:
    mixed(kitchen)
    out, measured = kitchen.cook()
    assert [name for name, _, _ in told(measured)] == [
        "unicode",
        "whitespace",
        "boilerplate",
        "length",
        "exact",
        "near",
    ]
    assert told(measured)[2:5] == [("boilerplate", 111, 111), ("length", 111, 110), ("exact", 110, 90)]
    steps = measured["steps"]
    assert isinstance(steps, list)
    assert isinstance(steps[2], dict)
    assert isinstance(steps[3], dict)
    assert steps[2]["lines"] == {"pages": 2}
    assert steps[3]["sources"] == {"faq": {"in": 80, "out": 80}, "pages": {"in": 31, "out": 30}}
    assert json.loads((out / "steps.json").read_text())["steps"] == steps
    assert measured["rows"] == told(measured)[-1][2]
    assert all("Menu" not in text and "Top" not in text for text in texts(out, "pages"))
    assert sorted(file.name for file in out.iterdir()) == ["documents.parquet", "steps.json"]


def test_the_table_does_not_depend_on_how_the_input_is_cut(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed(kitchen)
    whole, _ = kitchen.cook()
    assert digests(kitchen.cook(cuts=7)[0]) == digests(whole)
    monkeypatch.setattr(parts, "PART_ROWS", 20)
    large, _ = kitchen.cook()
    assert digests(kitchen.cook(cuts=5)[0]) == digests(large)
    names = [file.name for file in files_of(large / "documents.parquet")]
    assert names == [f"part-{part:05d}.parquet" for part in range(len(names))]
    assert len(names) > 2
    for source in ("faq", "pages"):
        rows = [list(read_documents(out / "documents.parquet", [source])) for out in (whole, large)]
        assert rows[0] == rows[1]
        assert [row.id for row in rows[0]] == sorted(row.id for row in rows[0])


def test_cleaning_what_is_clean_changes_nothing(kitchen: Kitchen) -> None:
    mixed(kitchen)
    out, _ = kitchen.cook()
    table = pq.read_table(out / "documents.parquet")
    assert table.schema.metadata[KEY] == b"documents/1"
    kitchen.rows = table.to_pylist()
    again, _ = kitchen.cook()
    assert pq.read_table(again / "documents.parquet").equals(table)


def test_the_raw_text_of_a_document_is_found_by_its_id(kitchen: Kitchen) -> None:
    kitchen.add("faq", [("Straße ＡＢ  \u200b 5", {"q": "Straße ＡＢ  \u200b 5", "a": "x"})])
    out, _ = kitchen.cook('clean = ["unicode", "whitespace", "booklet-regex", "lowercase"]')
    (document,) = read_documents(out / "documents.parquet", ["faq"])
    assert document.text == "strae ab 5"
    assert document.fields == {"q": "strae ab 5", "a": "x"}
    raw = {row["id"]: row["text"] for row in kitchen.rows}
    assert raw[document.id] == "Straße ＡＢ  \u200b 5"


def test_steps_run_in_the_order_of_the_task(kitchen: Kitchen) -> None:
    kitchen.add("faq", [("See https://x.de/1", {}), ("See https://x.de/2", {}), ("Other text", {})])
    before, _ = kitchen.cook('clean = ["exact", "urls"]')
    assert texts(before) == ["Other text", "See <url>", "See <url>"]
    after, measured = kitchen.cook(
        'clean = [{ step = "urls", replace = "" }, "whitespace", "exact", "lowercase", "exact"]'
    )
    assert texts(after) == ["other text", "see"]
    assert told(measured)[2:] == [("exact", 3, 2), ("lowercase", 2, 2), ("exact", 2, 2)]
    untouched, measured = kitchen.cook("clean = []")
    assert texts(untouched) == ["Other text", "See https://x.de/1", "See https://x.de/2"]
    assert told(measured) == []


def test_the_regex_of_books_warns_of_what_it_destroys(kitchen: Kitchen) -> None:
    kitchen.add("faq", [("Grüße aus Köln", {}), ("plain words", {})])
    out, measured = kitchen.cook('clean = ["booklet-regex"]')
    assert texts(out) == ["Gre aus Kln", "plain words"]
    (warning,) = json.loads((out / "steps.json").read_text())["warnings"]
    assert measured["warnings"] == [warning]
    assert warning == "booklet-regex destroys 13.6% of the letters, such as 'Grüße' → 'Gre', and all punctuation"
    kitchen.rows = []
    kitchen.add("faq", [("plain words", {})])
    assert kitchen.cook('clean = ["booklet-regex"]')[1]["warnings"] == []


def test_mapped_columns_may_not_be_missing(kitchen: Kitchen) -> None:
    kitchen.add("faq", [("a", {"q": "Q", "a": "A"}), ("b", {"q": "Q", "a": "\u200b"}), ("c", {"q": "Q"})])
    kitchen.add("pages", [("page", {})])
    out, measured = kitchen.cook('clean = ["unicode", "missing"]')
    assert texts(out) == ["a"]
    assert told(measured)[1] == ("missing", 4, 2)
    out, _ = kitchen.cook('clean = ["unicode", { step = "missing", fill = "unknown" }]')
    assert [row.fields["a"] for row in read_documents(out / "documents.parquet", ["faq"])].count("unknown") == 2


def test_a_line_that_many_documents_hold_is_found_in_whatever_batches(kitchen: Kitchen) -> None:
    held = [f"Text {n} here\nFooter" if n % 2 else f"Text {n} there\nEnd {n}" for n in range(40)]
    kitchen.add("pages", [(text, {"body": text}) for text in held])
    kitchen.add("faq", [("One\nFooter", {"q": "One\nFooter"})])
    for cuts in (1, 40):
        out, _ = kitchen.cook('clean = ["boilerplate"]', cuts)
        assert sum("Footer" in text for text in texts(out, "pages")) == 0
        assert texts(out) == ["One\nFooter"]
        out, _ = kitchen.cook('clean = [{ step = "boilerplate", share = 0.51 }]', cuts)
        assert sum("Footer" in text for text in texts(out, "pages")) == 20


def test_nothing_left_says_which_step_took_the_last(kitchen: Kitchen) -> None:
    kitchen.add("faq", [("short", {})])
    with pytest.raises(Invalid, match="no document is left after cleaning: step 'length' dropped the last 1") as caught:
        kitchen.cook('clean = [{ step = "length", min_chars = 20 }]')
    assert caught.value.where == f"noria.toml:{len(TOML.splitlines())}"


def test_sources_of_another_schema_are_refused(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    kitchen.add("faq", [("text", {})])
    newer = pa.schema([*DOCUMENTS, ("page", pa.int64())])
    monkeypatch.setitem(globals(), "DOCUMENTS", newer)
    with pytest.raises(Invalid, match="of the sources is not of schema 'documents/1': 'page' is unknown"):
        kitchen.cook()
