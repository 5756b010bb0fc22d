"""Readers of columnar files: Parquet, and Arrow as Hugging Face's datasets keep it on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from noria.lake.rows import Fault, Item, Row, as_text

BATCH = 1024
"""Rows that are turned into text at a time."""

_PARQUET, _FILE, _STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"


def is_arrow(data: bytes) -> bool:
    """Whether a file is Parquet or Arrow, by its first bytes."""
    return data.startswith((_PARQUET, _FILE, _STREAM))


def arrow_rows(data: bytes) -> Iterator[Item]:
    """Rows of a Parquet or Arrow file, every column as text; the offset is the row's number.

    Times, decimals and single precision are written as Arrow prints them, bytes as UTF-8 where they are and as
    hexadecimal where not, what is nested as JSON, null as nothing. A group of rows that cannot be read is one fault.
    """
    for row, number in records(data):
        if isinstance(row, list):
            yield from row
            continue
        try:
            yield Row({name: _text(value) for name, value in row.items()}, number)
        except (ValueError, TypeError, RecursionError) as error:
            yield Fault(number, f"a column cannot be written as text: {error}")


def records(data: bytes) -> Iterator[tuple[dict[str, Any] | list[Fault], int]]:
    """Rows as Python values with their numbers; a list of one fault stands for those that cannot be read."""
    number = 0
    try:
        for batch in _parquet(data) if data.startswith(_PARQUET) else _arrow(data):
            if isinstance(batch, pa.RecordBatch):
                for row in _values(batch):
                    yield row, number
                    number += 1
            else:
                skipped, fault = batch
                yield [Fault(number, fault)], number
                number += skipped
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        yield [Fault(number, f"not valid {'Parquet' if data.startswith(_PARQUET) else 'Arrow'}: {error}")], number


def _parquet(data: bytes) -> Iterator[pa.RecordBatch | tuple[int, str]]:
    """Batches; a group of rows that is damaged gives the number of its rows that are lost, and why."""
    file = pq.ParquetFile(pa.BufferReader(data))
    _check(file.schema_arrow)
    for group in range(file.num_row_groups):
        left = file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(BATCH, row_groups=[group]):
                yield batch
                left -= batch.num_rows
        except (pa.ArrowException, OSError) as error:
            yield left, f"row group {group} cannot be read: {error}"


def _arrow(data: bytes) -> Iterator[pa.RecordBatch]:
    source = pa.BufferReader(data)
    if not data.startswith(_FILE):
        stream = pa.ipc.open_stream(source)
        _check(stream.schema)
        for batch in stream:
            yield from _sliced(batch)
        return
    file = pa.ipc.open_file(source)
    _check(file.schema)
    for number in range(file.num_record_batches):
        yield from _sliced(file.get_batch(number))


def _sliced(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    # A damaged file may state any length; reading past the end of a buffer would end the process.
    batch.validate(full=True)
    for start in range(0, batch.num_rows, BATCH):
        yield batch.slice(start, BATCH)


def _check(schema: pa.Schema) -> None:
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise ValueError(f"two columns are called '{twice[0]}'")


def _values(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows; columns whose Python values would lose digits are text already."""
    columns = [_column(batch.column(at)) for at in range(batch.num_columns)]
    names = batch.schema.names
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] if columns else []


def _column(column: pa.Array) -> list[Any]:
    kind = column.type
    exact = (
        pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_date(kind) or pa.types.is_duration(kind)
    )
    if exact or pa.types.is_float32(kind) or pa.types.is_float16(kind):
        column = column.cast(pa.string())
    found: list[Any] = column.to_pylist()
    return found


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=_inner)
    return as_text(value)


def _inner(value: object) -> str:
    return _bytes(value) if isinstance(value, bytes) else as_text(value)


def _bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()
