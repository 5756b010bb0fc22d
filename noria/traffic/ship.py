"""Ships segments into the lake as Parquet, each byte exactly once.

A Parquet file is named after the bytes it holds, `<segment>-<start>-<end>.parquet`, and appears whole, by rename. What
is shipped of a segment is therefore read off the listing: the largest end among its files. A kill at any point leaves
either the file or not, and the next run goes on from there; there is no second record that could disagree.
"""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError

from noria.traffic.segments import SUFFIX
from noria.types import Feedback, Interaction

FOLDER = "traffic"
TORN = "torn"
PARQUET = ".parquet"
NOTHING = ".nothing"
"""Suffix of the empty file that stands for a shipped range without a single good record."""

SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("id", pa.string()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("task", pa.string()),
        ("record", pa.string()),
    ]
)

_Line = TypeAdapter[Interaction | Feedback](Annotated[Interaction | Feedback, Field(discriminator="kind")])


@dataclass(frozen=True, slots=True)
class Shipment:
    """What one run moved: whole records, and lines that were none and now lie in `torn`."""

    records: int
    torn: int


def ship(segments: Path, lake: Path) -> Shipment:
    """Move every complete line that is not yet in the lake; waits for another shipper to finish first.

    A segment is removed when no living writer holds it and all of it is in the lake. The unfinished last line of a
    segment whose writer is gone counts as torn; that of a living writer is left for the next run.
    """
    folder = lake / FOLDER
    (folder / TORN).mkdir(parents=True, exist_ok=True)
    records = torn = 0
    with locked(folder / ".lock"):
        for left in [*folder.glob(".*.tmp"), *folder.glob(f"{TORN}/.*.tmp")]:
            left.unlink()
        shipped = shipped_ends(folder)
        for segment in sorted(segments.glob(f"*{SUFFIX}")):
            moved = _ship_segment(segment, shipped.get(segment.stem, 0), folder)
            records += moved.records
            torn += moved.torn
    return Shipment(records, torn)


def shipped_ends(folder: Path) -> dict[str, int]:
    """Segment name to the number of its bytes that are in the lake."""
    ends: dict[str, int] = {}
    for entry in os.scandir(folder):
        name, suffix = os.path.splitext(entry.name)
        if suffix in (PARQUET, NOTHING) and not name.startswith("."):
            segment, _, end = name.rsplit("-", 2)
            ends[segment] = max(ends.get(segment, 0), int(end))
    return ends


def _ship_segment(segment: Path, start: int, folder: Path) -> Shipment:
    fd = os.open(segment, os.O_RDONLY)
    try:
        # Whether a writer lives must be known before the size is: the other way round, lines written in between
        # would be taken for shipped.
        abandoned = _try_lock(fd)
        end = os.fstat(fd).st_size
        data = _read(fd, start, end)
        if not abandoned:
            data = data[: data.rfind(b"\n") + 1]
        moved = _ship_bytes(segment.stem, start, data, folder) if data else Shipment(0, 0)
        if abandoned:
            segment.unlink()
        return moved
    finally:
        os.close(fd)


def _ship_bytes(segment: str, start: int, data: bytes, folder: Path) -> Shipment:
    rows: list[tuple[str, str, datetime, str | None, str]] = []
    torn = 0
    at = start
    for line in io.BytesIO(data):
        row = _row(line) if line.endswith(b"\n") else None
        if row is not None:
            rows.append(row)
        elif line.strip():
            torn += 1
            place(folder / TORN / f"{segment}-{at}-{at + len(line)}.bin", line)
        at += len(line)
    name = folder / f"{segment}-{start}-{at}"
    if rows:
        columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), sink, compression="zstd")
        place(name.with_name(name.name + PARQUET), sink.getvalue())
    else:
        place(name.with_name(name.name + NOTHING), b"")
    return Shipment(len(rows), torn)


def parsed(line: bytes) -> Interaction | Feedback | None:
    """The record of a line; None for one that is none."""
    try:
        return _Line.validate_json(line)
    except ValidationError:
        return None


def _row(line: bytes) -> tuple[str, str, datetime, str | None, str] | None:
    record = parsed(line)
    if record is None:
        return None
    task = record.task if isinstance(record, Interaction) else None
    return record.kind, record.id, record.at, task, line.decode().rstrip("\n")


def place(path: Path, content: bytes | pa.Buffer) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(path)
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(fd: int, start: int, end: int) -> bytes:
    parts = []
    while start < end and (part := os.pread(fd, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _try_lock(fd: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of the log's folder: nobody ships meanwhile."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
