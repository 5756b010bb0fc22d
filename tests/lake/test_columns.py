"""Readers of tables: tab-separated values, Parquet and Arrow."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from files import arrow, parquet, table
from hypothesis import given
from hypothesis import strategies as st

from noria.lake.arrow import arrow_rows
from noria.lake.rows import Fault, Item, Row
from noria.lake.tables import csv_rows, tsv_rows


def fields(items: list[Item]) -> list[dict[str, str]]:
    return [item.fields for item in items if isinstance(item, Row)]


def faults(items: list[Item]) -> list[tuple[int, str]]:
    return [(item.offset, item.reason) for item in items if isinstance(item, Fault)]


def test_tabs_with_and_without_quotes() -> None:
    assert fields(list(tsv_rows(b'zip\tsaid\n007\t"quoted" and more\n008\tx "y"\n'))) == [
        {"zip": "007", "said": '"quoted" and more'},
        {"zip": "008", "said": 'x "y"'},
    ]
    assert fields(list(tsv_rows(b'zip\tsaid\n007\t"a\tb\nc ""d"""\n'))) == [{"zip": "007", "said": 'a\tb\nc "d"'}]


def test_a_ragged_line_of_tabs_costs_itself_only() -> None:
    data = b'a\tb\n"x\t1\n2\n3\t4\n'
    items = list(tsv_rows(data))
    assert fields(items) == [{"a": '"x', "b": "1"}, {"a": "3", "b": "4"}]
    assert faults(items) == [(data.index(b"2\n"), "the row has 1 values, the header has 2")]


@pytest.mark.parametrize("data", [parquet(), arrow()], ids=["parquet", "arrow"])
def test_columnar_rows_are_text_and_numbered(data: bytes) -> None:
    rows = [item for item in arrow_rows(data) if isinstance(item, Row)]
    assert [row.fields for row in rows] == [
        {"id": "007", "n": "1", "tags": '["a", "ü"]'},
        {"id": "008", "n": "", "tags": "[]"},
    ]
    assert [row.offset for row in rows] == [0, 1]


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array([1], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (pa.array([1_700_000_000], pa.timestamp("s", tz="UTC")), "2023-11-14 22:13:20Z"),
        (pa.array([19_000], pa.date32()), "2022-01-08"),
        (pa.array([5], pa.time64("ns")), "00:00:00.000000005"),
        (pa.array([timedelta(seconds=5)], pa.duration("ms")), "5000"),
        (pa.array([0.1], pa.float32()), "0.1"),
        (pa.array([0.1]), "0.1"),
        (pa.array([2**64 - 1], pa.uint64()), "18446744073709551615"),
        (pa.array([Decimal("1.10")]), "1.10"),
        (pa.array([True]), "true"),
        (pa.array([b"\xff\x00"]), "ff00"),
        (pa.array([b"caf\xc3\xa9"]), "café"),
        (pa.array(["x"]).dictionary_encode(), "x"),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), '[["k", 1]]'),
        (pa.array([{"a": [b"\xff"], "b": None}]), '{"a": ["ff"], "b": null}'),
        (pa.nulls(1), ""),
    ],
)
def test_every_type_has_one_text(column: pa.Array, text: str) -> None:
    assert fields(list(arrow_rows(arrow(pa.table({"c": column}))))) == [{"c": text}]


def test_a_damaged_row_group_costs_itself_only() -> None:
    made = pa.table({"t": pa.array([f"a row with its number {n} " * 9 for n in range(30)])})
    out = io.BytesIO()
    pq.write_table(made, out, row_group_size=10, compression="gzip", use_dictionary=False)
    data = bytearray(out.getvalue())
    start = pq.ParquetFile(io.BytesIO(out.getvalue())).metadata.row_group(1).column(0).data_page_offset
    data[start + 20 : start + 60] = b"\xff" * 40
    items = list(arrow_rows(bytes(data)))
    assert [item.offset for item in items if isinstance(item, Row)] == [*range(10), *range(20, 30)]
    ((offset, reason),) = faults(items)
    assert offset == 10
    assert reason.startswith("row group 1 cannot be read")


def test_a_cut_arrow_stream_gives_the_rows_before_the_cut() -> None:
    whole = table()
    out = io.BytesIO()
    with pa.ipc.new_stream(out, whole.schema) as writer:
        for _ in range(3):
            writer.write_table(whole)
    items = list(arrow_rows(out.getvalue()[:-60]))
    assert 2 <= len(fields(items)) < 6
    assert "not valid Arrow" in faults(items)[0][1]
    assert faults(list(arrow_rows(b"PAR1")))[0][1].startswith("not valid Parquet")


def test_a_column_twice_is_a_fault() -> None:
    made = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert "two columns are called 'a'" in faults(list(arrow_rows(arrow(made))))[0][1]


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6))
def test_csv_to_parquet_to_csv_keeps_every_row(rows: list[tuple[str, str]]) -> None:
    """C5: what stood in a CSV stands in the Parquet, as text, and comes back."""
    rows = [(f"x{first}", second) for first, second in rows]
    given_file = io.StringIO(newline="")
    csv.writer(given_file).writerows([("id", "said"), *rows])
    had = fields(list(csv_rows(given_file.getvalue().encode())))
    stored = parquet(pa.Table.from_pylist(had), rows=2)
    back = io.BytesIO()
    pyarrow.csv.write_csv(pa.Table.from_pylist(fields(list(arrow_rows(stored)))), back)
    assert fields(list(csv_rows(back.getvalue()))) == had
    assert len(had) == len(rows)
    assert pq.read_table(io.BytesIO(stored))["id"].to_pylist() == [row["id"] for row in had]
