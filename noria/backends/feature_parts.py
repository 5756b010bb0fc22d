"""The history of a feature view: Parquet files in one folder of the lake, each added once and as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria.errors import Invalid
from noria.ports import FeatureView

_KINDS = {
    "ints": pa.list_(pa.int64()),
    "floats": pa.list_(pa.float32()),
    "int": pa.int64(),
    "text": pa.string(),
}
_STAMP = pa.timestamp("us", "UTC")


def schema_of(view: FeatureView) -> pa.Schema:
    """Columns of the view's rows."""
    fields = [(name, _KINDS[kind]) for name, kind in view.fields.items()]
    return pa.schema([(view.entity, pa.string()), *fields, ("event_timestamp", _STAMP), ("created", _STAMP)])


def fitted(view: FeatureView, rows: pa.Table) -> pa.Table:
    """The rows with the view's columns and types; raises Invalid for others."""
    schema = schema_of(view)
    if missing := [name for name in schema.names if name not in rows.column_names]:
        raise Invalid(f"rows for '{view.name}' have no column '{missing[0]}'", f"give {', '.join(schema.names)}")
    try:
        return rows.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise Invalid(f"rows for '{view.name}' are of other types: {error}", f"{schema}".replace("\n", ", ")) from error


def parts(view: FeatureView) -> list[Path]:
    """Its files, in order of their names."""
    return sorted(view.table.glob("*.parquet"))


def add(view: FeatureView, rows: pa.Table, part: str) -> None:
    """Add a file by rename; one of this name that is there already stays."""
    file = view.table / f"{part}.parquet"
    if file.exists():
        return
    view.table.mkdir(parents=True, exist_ok=True)
    _write(fitted(view, rows), file)


def read(view: FeatureView, columns: Sequence[str]) -> pa.Table:
    """These columns of all rows, in the order in which they were added to each file."""
    empty = schema_of(view).empty_table().select(list(columns))
    return pa.concat_tables([empty, *(pq.read_table(file, columns=list(columns)) for file in parts(view))])


def remove(view: FeatureView, keys: Sequence[str]) -> int:
    """Write the files anew without these entities; returns how many rows went."""
    gone, wanted = 0, pa.array(keys, pa.string())
    for file in parts(view):
        table = pq.read_table(file)
        left = table.filter(pc.invert(pc.is_in(table[view.entity], value_set=wanted)))
        if left.num_rows < table.num_rows:
            gone += table.num_rows - left.num_rows
            _write(left, file)
    return gone


def _write(table: pa.Table, file: Path) -> None:
    fresh = file.with_name(f".{file.name}.new")
    pq.write_table(table, fresh, compression="zstd")
    fresh.replace(file)
