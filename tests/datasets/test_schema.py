"""The central schema: one for both rooms, checked on write and on read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from noria import tables
from noria.datasets.rows import read_documents, read_examples, read_sides, write_examples, write_sides, write_table
from noria.datasets.schema import DOCUMENTS, EXAMPLES, KEY, SIDES, check, rows_of
from noria.datasets.split import Side
from noria.errors import Invalid
from noria.types import Document, Example


def test_the_tables_have_the_columns_that_rooms_share_and_those_of_the_types() -> None:
    assert tables.DOCUMENTS.equals(DOCUMENTS)
    assert set(DOCUMENTS.names) == set(Document.model_fields)
    assert set(EXAMPLES.names) == set(Example.model_fields)


def test_files_tell_their_schema(tmp_path: Path) -> None:
    write_examples([], tmp_path / "train.parquet")
    write_sides({"m": Side("train", 0)}, tmp_path / "sides.parquet")
    assert pq.read_schema(tmp_path / "train.parquet").metadata[KEY] == b"examples/1"
    assert read_examples(tmp_path / "train.parquet") == []
    assert read_sides(tmp_path / "sides.parquet") == {"m": Side("train", 0)}


def test_a_fault_shows_what_is_expected_and_what_is_there(tmp_path: Path) -> None:
    table = pa.table({"member": pa.array([1]), "page": ["x"]})
    pq.write_table(table, tmp_path / "sides.parquet")
    with pytest.raises(Invalid) as caught:
        read_sides(tmp_path / "sides.parquet")
    fact = caught.value.fact
    assert "'sides.parquet' is not of schema 'sides/1'" in fact
    assert "'side' is missing; 'sealed' is missing; 'page' is unknown; 'member' is int64, not string" in fact
    assert "Expected: member string, side string, sealed int32. Found: member int64, page string" in fact


def test_a_table_of_another_schema_is_not_written(tmp_path: Path) -> None:
    table = pa.table({"member": ["m"], "side": ["train"], "more": [1]}).replace_schema_metadata(SIDES.metadata)
    with pytest.raises(Invalid, match="'more' is unknown"):
        write_table(table, SIDES, "member", tmp_path / "sides.parquet")
    assert not (tmp_path / "sides.parquet").exists()


def test_another_version_is_refused_and_none_is_taken(tmp_path: Path) -> None:
    newer = DOCUMENTS.with_metadata({KEY: b"documents/2"})
    pq.write_table(newer.empty_table(), tmp_path / "documents.parquet")
    with pytest.raises(Invalid, match="it is of schema 'documents/2'"):
        list(read_documents(tmp_path / "documents.parquet", ["s"]))
    check(DOCUMENTS.remove_metadata(), DOCUMENTS, "it")


def test_a_table_in_parts_is_read_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "documents.parquet"
    folder.mkdir()
    for part in (1, 0):
        row = {name: ["x"] for name in DOCUMENTS.names} | {"fields": ["{}"], "offset": [part], "digest": ["ab" * 8]}
        table = pa.table({**row, "id": [f"{part:016x}"], "source": ["s"]}, schema=DOCUMENTS)
        pq.write_table(table, folder / f"part-{part:05d}.parquet")
    assert [document.offset for document in read_documents(folder, ["s"])] == [0, 1]
    assert list(read_documents(folder, ["t"])) == []
    assert rows_of(folder) == 2


def test_sides_of_the_first_version_are_of_the_first_sealed_set(tmp_path: Path) -> None:
    pq.write_table(pa.table({"member": ["a", "b"], "side": ["test", "train"]}), tmp_path / "sides.parquet")
    assert read_sides(tmp_path / "sides.parquet") == {"a": Side("test", 1), "b": Side("train", 0)}
