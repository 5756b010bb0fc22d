"""The tables of the data room: documents in, examples out. The same rows give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from noria.datasets.split import Side
from noria.types import Document, Example, Feedback, Interaction, Message

DOCUMENT_COLUMNS = ("id", "source", "text", "fields", "conversation", "file", "offset", "digest")
"""Columns of `documents.parquet`; `fields` is JSON text, `offset` an integer, all others are strings."""

EXAMPLES = pa.schema(
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
    ]
)
"""Columns of `noria.types.Example`; `messages` is JSON text."""

SIDES = pa.schema([("member", pa.string()), ("side", pa.string()), ("sealed", pa.int32())])
"""Digest of a question, conversation or user; its side; the number of its sealed set, 0 for training."""

PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("origin", pa.string()),
        ("conversation", pa.string()),
        ("messages", pa.string()),
        ("context", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
    ]
)
"""Preference pairs: to these messages `chosen` was preferred over `rejected`."""

SUSPECTS = pa.schema([("row", pa.string()), ("rule", pa.string()), ("score", pa.float64())])
"""Ids of examples that look planted, by which rule, and how surely in [0, 1]; texts are not kept."""


def read_documents(file: Path, sources: Sequence[str]) -> Iterator[Document]:
    """The documents of these sources, in order of their ids."""
    table = pq.read_table(file, filters=[("source", "in", list(sources))], partitioning=None)
    for batch in table.sort_by("id").to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            yield Document(**{**row, "fields": json.loads(row["fields"])})


def read_interactions(file: Path) -> list[Interaction]:
    """All interactions of a table that the stage `sources` wrote."""
    return [Interaction.model_validate_json(text) for text in _records(file)]


def read_feedback(file: Path) -> list[Feedback]:
    """All feedback of a table that the stage `sources` wrote."""
    return [Feedback.model_validate_json(text) for text in _records(file)]


def write_examples(examples: Iterable[Example], file: Path) -> None:
    """Write examples, sorted by id."""
    rows = list(examples)
    columns: list[list[str | None]] = [
        [as_json(row.messages) if name == "messages" else getattr(row, name) for row in rows] for name in EXAMPLES.names
    ]
    write_table(pa.table(columns, schema=EXAMPLES), "id", file)


def as_json(messages: Sequence[Message]) -> str:
    """Messages as the tables hold them."""
    return json.dumps([{"role": each.role, "content": each.content} for each in messages], ensure_ascii=False)


def read_examples(file: Path) -> list[Example]:
    """Read back what `write_examples` wrote."""
    rows = pq.read_table(file, partitioning=None).to_pylist()
    return [Example(**{**row, "messages": json.loads(row["messages"])}) for row in rows]


def write_sides(sides: Mapping[str, Side], file: Path) -> None:
    """Write which side each member was assigned to."""
    members = list(sides)
    columns = [members, [sides[member].split for member in members], [sides[member].sealed for member in members]]
    write_table(pa.table(columns, schema=SIDES), "member", file)


def read_sides(file: Path) -> dict[str, Side]:
    """Read back what `write_sides` wrote; test rows of old tables are of the first sealed set."""
    table = pq.read_table(file, partitioning=None)
    members, sides = table["member"].to_pylist(), table["side"].to_pylist()
    old = "sealed" not in table.column_names
    sealed = [int(side == "test") for side in sides] if old else table["sealed"].to_pylist()
    return {member: Side(side, number) for member, side, number in zip(members, sides, sealed, strict=True)}


def write_table(table: pa.Table, key: str, file: Path) -> None:
    """Write one Parquet file, sorted by `key`, in one chunk: the bytes do not depend on how the rows came."""
    table = table.sort_by(key).combine_chunks().replace_schema_metadata(None)
    pq.write_table(table, file, compression="zstd")


def write_json(value: JsonValue, file: Path) -> None:
    """Write JSON for people and programs: indented, keys in the order given."""
    file.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _records(file: Path) -> list[Any]:
    table = pq.read_table(file, partitioning=None).sort_by([("at", "ascending"), ("id", "ascending")])
    return list(table["record"].to_pylist())
