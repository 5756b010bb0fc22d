"""The tables of the data room: documents in, examples out. The same rows give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import JsonValue

from noria.datasets.schema import DOCUMENTS, EXAMPLES, SIDES, TIMES, check, files_of, open_part
from noria.datasets.split import Side
from noria.types import Document, Example, Feedback, Interaction, Message

_BATCH = 4096


def read_documents(file: Path, sources: Sequence[str]) -> Iterator[Document]:
    """The documents of these sources, in order of their ids."""
    wanted = pa.array(sources, pa.string())
    for part in files_of(file):
        for batch in open_part(part, DOCUMENTS).iter_batches(_BATCH, columns=DOCUMENTS.names):
            mine = batch.filter(pc.is_in(batch.column("source"), value_set=wanted))
            for row in mine.to_pylist():
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
    write_table(pa.table(columns, schema=EXAMPLES), EXAMPLES, "id", file)


def as_json(messages: Sequence[Message]) -> str:
    """Messages as the tables hold them."""
    return json.dumps([{"role": each.role, "content": each.content} for each in messages], ensure_ascii=False)


def read_examples(file: Path) -> list[Example]:
    """Read back what `write_examples` wrote."""
    rows = open_part(file, EXAMPLES).read().to_pylist()
    return [Example(**{**row, "messages": json.loads(row["messages"])}) for row in rows]


def write_sides(sides: Mapping[str, Side], file: Path) -> None:
    """Write which side each member was assigned to."""
    members = list(sides)
    columns = [members, [sides[member].split for member in members], [sides[member].sealed for member in members]]
    write_table(pa.table(columns, schema=SIDES), SIDES, "member", file)


def write_times(times: Mapping[str, datetime], file: Path) -> None:
    """Write when rows were said, by id."""
    write_table(pa.table([list(times), list(times.values())], schema=TIMES), TIMES, "id", file)


def read_sides(file: Path) -> dict[str, Side]:
    """Read back what `write_sides` wrote; test rows of version 1 of the table are of the first sealed set."""
    if pq.read_schema(file).names == ["member", "side"]:
        table = pq.read_table(file, partitioning=None)
        old = zip(table["member"].to_pylist(), table["side"].to_pylist(), strict=True)
        return {member: Side(side, int(side == "test")) for member, side in old}
    table = open_part(file, SIDES).read()
    columns = (table[name].to_pylist() for name in SIDES.names)
    return {member: Side(side, sealed) for member, side, sealed in zip(*columns, strict=True)}


def write_table(table: pa.Table, schema: pa.Schema, key: str, file: Path) -> None:
    """Write one Parquet file, sorted by `key`, in one chunk: the bytes do not depend on how the rows came.

    Raises Invalid when the columns are not those of the schema.
    """
    check(table.schema, schema, f"'{file.name}'")
    pq.write_table(table.sort_by(key).combine_chunks(), file, compression="zstd")


def write_json(value: JsonValue, file: Path) -> None:
    """Write JSON for people and programs: indented, keys in the order given."""
    file.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _records(file: Path) -> list[Any]:
    table = pq.read_table(file, partitioning=None).sort_by([("at", "ascending"), ("id", "ascending")])
    return list(table["record"].to_pylist())
