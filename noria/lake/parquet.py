"""The tables that the stage `sources` writes. The same rows give the same bytes, in whatever order they came."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria.types import Feedback, Interaction

QUARANTINE = pa.schema(
    [("source", pa.string()), ("file", pa.string()), ("offset", pa.int64()), ("reason", pa.string())]
)
TRAFFIC = pa.schema([("id", pa.string()), ("at", pa.string()), ("record", pa.string())])
"""`record` is the JSON of an Interaction or a Feedback, `at` its time in ISO 8601."""

GROUP_ROWS, GROUP_BYTES = 1 << 16, 64 << 20
"""Most rows, and about the most bytes, of a row group."""
_BATCH = 8192
_HELD = 64 << 20


class Rows:
    """Gathers rows in Arrow batches, and writes them sorted; those beyond 64 MiB wait in files in `spill`.

    In memory there are then the columns to sort by, 64 MiB of rows and one row group.
    """

    def __init__(self, schema: pa.Schema, spill: Path | None = None) -> None:
        self.schema = schema
        self.count = 0
        self._spill = spill
        self._batches: list[pa.RecordBatch] = []
        self._held = 0
        self._parts: list[pa.Table] = []
        self._pending: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row with the schema's columns."""
        self._pending.append(row)
        if len(self._pending) >= _BATCH:
            self._seal()

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Take a batch of rows."""
        self.count += batch.num_rows
        self._batches.append(batch)
        self._held += batch.nbytes
        if self._spill is not None and self._held > _HELD:
            self._part()

    def write(self, file: Path) -> None:
        """Write one Parquet file, sorted by all sortable keys of the schema's order."""
        self._seal()
        self._part(last=True)
        keys = ["id"] if "id" in self.schema.names else self.schema.names
        index = pa.concat_tables([part.select(keys) for part in self._parts])
        order = pc.sort_indices(index, sort_keys=[(key, "ascending") for key in keys]).to_numpy().astype(np.int64)
        sizes = np.concatenate([_sizes(part) for part in self._parts])[order]
        starts = np.cumsum([0, *(part.num_rows for part in self._parts)])
        with pq.ParquetWriter(file, self.schema, compression="zstd") as out:
            for begin, end in _groups(sizes):
                out.write_table(self._gathered(order[begin:end], starts), row_group_size=GROUP_ROWS)
        self._parts = []
        if self._spill is not None:
            shutil.rmtree(self._spill, ignore_errors=True)

    def _seal(self) -> None:
        batch, self._pending = pa.RecordBatch.from_pylist(self._pending, schema=self.schema), []
        self.add_batch(batch)

    def _part(self, last: bool = False) -> None:
        table = pa.Table.from_batches(self._batches, schema=self.schema).combine_chunks()
        self._batches, self._held = [], 0
        if self._spill is not None and not last:
            self._spill.mkdir(parents=True, exist_ok=True)
            file = self._spill / f"{len(self._parts)}.arrow"
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, self.schema) as out:
                out.write_table(table)
            table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        self._parts.append(table)

    def _gathered(self, rows: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> pa.Table:
        """The rows of these numbers, in this order."""
        part_of = np.searchsorted(starts, rows, side="right") - 1
        places = [np.flatnonzero(part_of == number) for number in range(len(self._parts))]
        taken = [
            part.take(rows[place] - start)
            for part, place, start in zip(self._parts, places, starts, strict=False)
            if len(place)
        ]
        if not taken:
            return self.schema.empty_table()
        back = np.argsort(np.concatenate(places), kind="stable")
        return pa.concat_tables(taken).combine_chunks().take(back).combine_chunks()


def _sizes(table: pa.Table) -> npt.NDArray[np.int64]:
    """Bytes of text of each row."""
    sizes = np.zeros(table.num_rows, dtype=np.int64)
    for column in table.columns:
        if pa.types.is_string(column.type):
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy()
    return sizes


def _groups(sizes: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where row groups begin and end; there is one at least."""
    ends, begin = np.cumsum(sizes), 0
    while True:
        before = ends[begin - 1] if begin else 0
        full = int(np.searchsorted(ends, before + GROUP_BYTES, side="right"))
        end = min(max(full, begin + 1), begin + GROUP_ROWS, len(sizes))
        yield begin, end
        begin = end
        if begin >= len(sizes):
            return


def write_traffic(records: Iterable[Interaction | Feedback], file: Path) -> int:
    """Write interactions or feedback; returns their number."""
    rows = Rows(TRAFFIC)
    for record in records:
        text = json.dumps(record.model_dump(mode="json"), ensure_ascii=True, sort_keys=True)
        rows.add({"id": record.id, "at": record.at.isoformat(), "record": text})
    rows.write(file)
    return rows.count
