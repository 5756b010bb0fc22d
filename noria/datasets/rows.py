"""The tables of the data room: documents in, examples out. The same rows give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from noria.types import Document, Example, Feedback, Interaction, Split

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

SIDES = pa.schema([("member", pa.string()), ("side", pa.string())])


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
    rows = [example.model_dump(mode="json") for example in examples]
    for row in rows:
        row["messages"] = json.dumps(row["messages"], ensure_ascii=False)
    write_table(pa.Table.from_pylist(rows, schema=EXAMPLES), "id", file)


def read_examples(file: Path) -> list[Example]:
    """Read back what `write_examples` wrote."""
    rows = pq.read_table(file, partitioning=None).to_pylist()
    return [Example(**{**row, "messages": json.loads(row["messages"])}) for row in rows]


def write_sides(sides: Mapping[str, Split], file: Path) -> None:
    """Write which side each member was assigned to."""
    rows = [{"member": member, "side": side} for member, side in sides.items()]
    write_table(pa.Table.from_pylist(rows, schema=SIDES), "member", file)


def read_sides(file: Path) -> dict[str, Split]:
    """Read back what `write_sides` wrote."""
    table = pq.read_table(file, partitioning=None)
    return dict(zip(table["member"].to_pylist(), table["side"].to_pylist(), strict=True))


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
