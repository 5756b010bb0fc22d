"""Training examples of a chat task become token ids, with a mask that says what is learned.

One definition, in Arrow batches: `encoded` is a closure over plain values that runs in this process where there are
few rows, and on the workers of the data engine where there are many. The rows and the bytes are the same either way.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import JsonValue

from noria import prompts
from noria.errors import Invalid
from noria.ports import Encode, Portable
from noria.prompts import answer_part, dress
from noria.stage import Look, Work
from noria.types import digest_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Batches = Iterator[pa.RecordBatch]

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("origin", pa.string()),
        ("slice", pa.string()),
        ("split", pa.string()),
        ("document", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("input_ids", pa.list_(pa.int32())),
        ("attention_mask", pa.list_(pa.int8())),
        ("loss_mask", pa.list_(pa.int8())),
        ("tokens", pa.int32()),
    ]
)
"""One row an example, in order of ids; the three lists have the length `tokens`.

In `loss_mask` 1 marks answer, terminator and end. `at` is when the row was said, null where nobody knows.
"""

GIVEN = ("id", "origin", "slice", "split", "document", "messages", "context", "target")
"""Columns of the examples that a worker is given."""
MADE = (
    "id string, origin string, slice string, split string, document string, "
    "input_ids array<int>, attention_mask array<tinyint>, loss_mask array<tinyint>, tokens int"
)
"""Columns that a worker gives back: the schema without `at`."""

ENGINE_ROWS = 50_000
"""Examples from which the data engine is started: below, its start takes longer than the work."""
BATCH = 1024
GROUP = 1 << 13
"""Rows of a row group."""
RANGE = 1 << 16
"""About so many rows are put in order at a time."""


def params(look: Look) -> JsonValue:
    """What changes the tokens: the tokenizer, the prompt definition and the longest row."""
    tokenizer = look.platform.tokenizer(look.platform.model(look.task.base))
    return {
        "tokenizer": tokenizer.digest,
        "prompt": prompts.definition(look.task.system),
        "max_length": look.task.recipe.max_length,
    }


def version(tokenizer: str, prompt: str) -> str:
    """Version of the feature view: other token ids for the same example are another version."""
    return digest_of({"tokenizer": tokenizer, "prompt": prompt})


def work(work: Work, *, engine_rows: int = ENGINE_ROWS) -> Mapping[str, JsonValue]:
    """Write `features.parquet`; rows longer than the recipe's `max_length` are left out and counted.

    From `engine_rows` examples on the data engine does it, on a cluster its workers: the lake must lie where they
    reach it.
    """
    tokenizer = work.platform.tokenizer(work.platform.model(work.task.base))
    if not isinstance(tokenizer, Portable):
        raise Invalid(f"the tokenizer of '{work.task.base}' cannot be sent to where the rows are", "take another base")
    file = work.folder("dataset") / "train.parquet"
    rows = pq.read_metadata(file).num_rows
    encode = encoded(work.task.system, tokenizer.sent(), work.task.recipe.max_length)
    work.progress.update("features", 0, rows)
    times = _times(work.folder("dataset") / "times.parquet")
    if rows < engine_rows:
        counts = _write(_here(file, encode), times, work.out / "features.parquet", work, rows)
    else:
        scratch = work.out / "spark"
        with work.platform.spark() as spark:
            found = _on_engine(spark, file, encode, rows, scratch)
            counts = _write(found, times, work.out / "features.parquet", work, rows)
        # An engine may write no folder where there is no row.
        shutil.rmtree(scratch, ignore_errors=True)
    if not counts["rows"]:
        raise Invalid(
            f"no training row of '{work.name}' fits into {work.task.recipe.max_length} tokens",
            f"raise max_length in {work.platform.settings.place('tasks', work.name, 'recipe')}",
        )
    made = version(tokenizer.digest, prompts.definition(work.task.system))
    return {**counts, "too_long": rows - counts["rows"], "version": made, "tokenizer": tokenizer.digest}


def encoded(system: str | None, opened: Callable[[], Encode], longest: int) -> Callable[[Batches], Batches]:
    """A pass over batches of examples (columns GIVEN) that gives features (columns MADE), none longer than `longest`.

    Workers get it by value: it may use nothing that cannot be sent along.
    """

    def run(batches: Batches) -> Batches:
        import json

        import numpy as np
        import pyarrow as pa

        def flat(parts: list[list[int]], kind: pa.DataType) -> pa.Array:
            ends = np.cumsum([0, *map(len, parts)], dtype=np.int32)
            return pa.ListArray.from_arrays(pa.array(ends), pa.array([each for part in parts for each in part], kind))

        encode = opened()
        for batch in batches:
            if not batch.num_rows:
                continue
            columns = {name: batch.column(name).to_pylist() for name in ("messages", "context", "target")}
            asked = [
                dress(system, json.loads(messages), context)
                for messages, context in zip(columns["messages"], columns["context"], strict=True)
            ]
            questions, answers = encode(asked, [answer_part(target) for target in columns["target"]])
            fits = [len(a) + len(b) <= longest for a, b in zip(questions, answers, strict=True)]
            pairs = [(a, b) for a, b, fit in zip(questions, answers, fits, strict=True) if fit]
            kept = batch.filter(pa.array(fits, pa.bool_()))
            words = [kept.column(name).cast(pa.string()) for name in ("id", "origin", "slice", "split", "document")]
            ids = flat([a + b for a, b in pairs], pa.int32())
            seen = flat([[1] * (len(a) + len(b)) for a, b in pairs], pa.int8())
            learned = flat([[0] * len(a) + [1] * len(b) for a, b in pairs], pa.int8())
            tokens = pa.array([len(a) + len(b) for a, b in pairs], pa.int32())
            names = ["id", "origin", "slice", "split", "document", "input_ids", "attention_mask", "loss_mask", "tokens"]
            yield pa.RecordBatch.from_arrays([*words, ids, seen, learned, tokens], names)

    return run


def _here(file: Path, encode: Callable[[Batches], Batches]) -> Iterator[pa.Table]:
    """The features in order of ids, which is that of the examples."""
    for batch in encode(pq.ParquetFile(file).iter_batches(BATCH, columns=list(GIVEN))):
        yield pa.Table.from_batches([batch])


def _on_engine(
    spark: SparkSession, file: Path, encode: Callable[[Batches], Batches], rows: int, scratch: Path
) -> Iterator[pa.Table]:
    """The features in order of ids: the workers write them by ranges of ids, and each range is put in order here."""
    from pyspark.sql import functions as F

    ranges = min(-(-rows // RANGE), 1 << 12)
    # Ids are hexadecimal digests: as many lie in each range.
    place = F.conv(F.substring("id", 1, 4), 16, 10).cast("long") * ranges
    made = spark.read.parquet(str(file)).select(*GIVEN).mapInArrow(encode, MADE)
    made = made.withColumn("range", F.shiftright(place, 16).cast("int"))
    made.write.mode("overwrite").partitionBy("range").parquet(str(scratch))
    for number in range(ranges):
        folder = scratch / f"range={number}"
        if parts := sorted(folder.glob("*.parquet")):
            tables = [pq.read_table(part, partitioning=None) for part in parts]
            yield pa.concat_tables(tables).sort_by("id")


def _write(tables: Iterator[pa.Table], times: pa.Table, file: Path, work: Work, total: int) -> dict[str, int]:
    """Write the features in row groups of the same size, however they came; returns rows, tokens and learned ones."""
    counts = {"rows": 0, "tokens": 0, "learned": 0}
    left = SCHEMA.empty_table()
    with pq.ParquetWriter(file, SCHEMA) as writer:
        for table in tables:
            left = pa.concat_tables([left, _dated(table, times)])
            counts["rows"] += table.num_rows
            counts["tokens"] += pc.sum(table["tokens"]).as_py() or 0
            counts["learned"] += pc.sum(pc.list_flatten(table["loss_mask"])).as_py() or 0
            while left.num_rows >= GROUP:
                writer.write_table(left.slice(0, GROUP).combine_chunks(), row_group_size=GROUP)
                left = left.slice(GROUP)
            work.progress.update("features", counts["rows"], total)
        if left.num_rows:
            writer.write_table(left.combine_chunks(), row_group_size=GROUP)
    return counts


def _dated(table: pa.Table, times: pa.Table) -> pa.Table:
    places = pc.index_in(table["id"].cast(pa.string()), value_set=times["id"].combine_chunks())
    at = times["at"].combine_chunks().take(places.combine_chunks())
    return table.append_column("at", at).select(SCHEMA.names).cast(SCHEMA)


def _times(file: Path) -> pa.Table:
    """When rows were said, by id; nothing where the data set does not tell."""
    if file.is_file():
        return pq.read_table(file)
    return pa.table({"id": pa.array([], pa.string()), "at": pa.array([], pa.timestamp("us", "UTC"))})


def row(example: Mapping[str, str], system: str | None, encode: Encode) -> dict[str, Any]:
    """One row of `train.parquet` as a row of the features, however long."""
    columns = {name: [example.get(name)] for name in GIVEN}
    batch = pa.RecordBatch.from_pydict(columns, schema=pa.schema([(name, pa.string()) for name in GIVEN]))
    (made,) = encoded(system, lambda: encode, 1 << 30)(iter([batch]))
    found: dict[str, Any] = made.to_pylist()[0]
    return found
