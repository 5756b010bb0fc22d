"""The tables that the stage `sources` writes. The same rows give the same bytes, in whatever order they came."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from noria.types import Feedback, Interaction

DOCUMENTS = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("text", pa.string()),
        ("fields", pa.string()),
        ("conversation", pa.string()),
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("digest", pa.string()),
    ]
)
"""Columns of `noria.types.Document`; `fields` is JSON text."""

QUARANTINE = pa.schema(
    [("source", pa.string()), ("file", pa.string()), ("offset", pa.int64()), ("reason", pa.string())]
)
TRAFFIC = pa.schema([("id", pa.string()), ("at", pa.string()), ("record", pa.string())])
"""`record` is the JSON of an Interaction or a Feedback, `at` its time in ISO 8601."""

_BATCH = 8192


class Rows:
    """Gathers rows in Arrow batches, which take a fraction of the memory of Python's own objects."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.count = 0
        self._batches: list[pa.RecordBatch] = []
        self._pending: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row with the schema's columns."""
        self.count += 1
        self._pending.append(row)
        if len(self._pending) >= _BATCH:
            self._seal()

    def write(self, file: Path) -> None:
        """Write one Parquet file, sorted by all sortable keys of the schema's order."""
        self._seal()
        table = pa.Table.from_batches(self._batches, schema=self.schema)
        keys = ["id"] if "id" in self.schema.names else self.schema.names
        pq.write_table(table.sort_by([(key, "ascending") for key in keys]), file, compression="zstd")

    def _seal(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._pending, schema=self.schema))
        self._pending = []


def write_traffic(records: Iterable[Interaction | Feedback], file: Path) -> int:
    """Write interactions or feedback; returns their number."""
    rows = Rows(TRAFFIC)
    for record in records:
        text = json.dumps(record.model_dump(mode="json"), ensure_ascii=True, sort_keys=True)
        rows.add({"id": record.id, "at": record.at.isoformat(), "record": text})
    rows.write(file)
    return rows.count
