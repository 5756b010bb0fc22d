"""The central schema: columns of the tables that this room writes, by version, checked on write and on read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from noria import tables
from noria.errors import Invalid

KEY = b"noria.schema"
"""Key of a Parquet file's metadata; its value is `TABLE/VERSION`."""


def _table(name: str, version: int, columns: Iterable[pa.Field | tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(list(columns), metadata={KEY: f"{name}/{version}".encode()})


DOCUMENTS = _table("documents", 1, tables.DOCUMENTS)
"""The columns that the stage `sources` writes."""

EXAMPLES = _table(
    "examples",
    1,
    [
        ("id", pa.string()),
        ("origin", pa.string()),
        ("slice", pa.string()),
        ("conversation", pa.string()),
        ("messages", pa.string()),
        ("context", pa.string()),
        ("target", pa.string()),
        ("split", pa.string()),
        ("document", pa.string()),
    ],
)
"""`noria.types.Example`; `messages` is JSON text."""

SIDES = _table("sides", 1, [("member", pa.string()), ("side", pa.string()), ("sealed", pa.int32())])
"""Digest of a question, conversation or user; its side; the number of its sealed set, 0 for training."""

TIMES = _table("times", 1, [("id", pa.string()), ("at", pa.timestamp("us", "UTC"))])
"""When a training row was said, where it is known."""

PAIRS = _table(
    "pairs",
    1,
    [
        ("id", pa.string()),
        ("origin", pa.string()),
        ("conversation", pa.string()),
        ("messages", pa.string()),
        ("context", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
    ],
)
"""Preference pairs: to these messages `chosen` was preferred over `rejected`."""

SUSPECTS = _table("suspects", 1, [("row", pa.string()), ("rule", pa.string()), ("score", pa.float64())])
"""Ids of examples that look planted, by which rule, and how surely in [0, 1]; texts are not kept."""


def check(found: pa.Schema, wanted: pa.Schema, where: str) -> None:
    """Raise Invalid, with the columns that are expected and those that are there, unless they are the same.

    The order of columns does not count, nor does a missing version: other programs write none.
    """
    mark = wanted.metadata[KEY].decode()
    version = (found.metadata or {}).get(KEY, wanted.metadata[KEY]).decode(errors="replace")
    expected, there = _columns(wanted), _columns(found)
    if expected == there and version == mark:
        return
    faults = [f"'{name}' is missing" for name in expected if name not in there]
    faults += [f"'{name}' is unknown" for name in there if name not in expected]
    faults += [
        f"'{name}' is {there[name]}, not {kind}" for name, kind in expected.items() if there.get(name, kind) != kind
    ]
    if version != mark:
        faults.append(f"it is of schema '{version}'")
    raise Invalid(
        f"{where} is not of schema '{mark}': {'; '.join(faults)}. Expected: {_shown(expected)}. Found: {_shown(there)}",
        "make it anew with this version of noria: noria run",
    )


def files_of(table: Path) -> list[Path]:
    """The Parquet files of a table in the order of its rows: the file itself, or the parts in its folder."""
    return sorted(table.glob("*.parquet")) if table.is_dir() else [table]


def open_part(file: Path, wanted: pa.Schema) -> pq.ParquetFile:
    """Open one Parquet file; raises Invalid when its columns are not those of `wanted`."""
    opened = pq.ParquetFile(file)
    check(opened.schema_arrow, wanted, f"'{file.name}'")
    return opened


def rows_of(table: Path) -> int:
    """How many rows a table has, from the footers of its files."""
    return sum(pq.read_metadata(file).num_rows for file in files_of(table))


def _columns(schema: pa.Schema) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema}


def _shown(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items()) or "none"
