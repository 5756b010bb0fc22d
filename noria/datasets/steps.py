"""The steps of cleaning: from what a task says to functions, and all that goes row by row fused into one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from noria.datasets import boilerplate, booklet, language, missing, normalise, quality
from noria.datasets.schema import DOCUMENTS
from noria.datasets.texts import Batches, Opened, Texts, of, pieces, ready, through
from noria.settings import CleanStep

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

WHOLE = frozenset({"exact", "near", "semantic"})
"""Steps that compare documents with each other."""

ROWS: Mapping[str, Callable[..., Opened]] = {
    "unicode": normalise.unicode,
    "whitespace": normalise.whitespace,
    "boilerplate": boilerplate.boilerplate,
    "markup": normalise.markup,
    "urls": normalise.urls,
    "special-characters": normalise.special_characters,
    "booklet-regex": booklet.booklet_regex,
    "lowercase": normalise.lowercase,
    "missing": missing.missing,
    "language": language.language,
    "length": quality.length,
    "c4": quality.c4,
    "gopher": quality.gopher,
    "repetition": quality.repetition,
}
"""Steps that take one document at a time: functions of their options, but `boilerplate`, which is told the lines."""

COLUMNS = ", ".join(f"`{column.name}` {'long' if column.type == 'int64' else 'string'}" for column in DOCUMENTS)
CLEANED = f"{COLUMNS}, sha string, dropped int, size long, bucket int"
"""What a pass gives: documents, with what exact duplicates have in common, and bytes of text and fields.

Of those that a step dropped only id and source are there, and the step's number in `dropped`.
"""


@dataclass(slots=True)
class Segment:
    """Steps that go row by row, then steps that compare what is left."""

    rows: list[CleanStep] = field(default_factory=list)
    whole: list[CleanStep] = field(default_factory=list)


def segments(steps: Sequence[CleanStep]) -> list[Segment]:
    """The steps in their order, in as few passes as there can be; at least one."""
    found = [Segment()]
    for step in steps:
        if step.step in WHOLE:
            found[-1].whole.append(step)
        elif found[-1].whole:
            found.append(Segment([step]))
        else:
            found[-1].rows.append(step)
    return found


def cleaned(documents: DataFrame, steps: Sequence[Opened], parts: int, digest: bool) -> DataFrame:
    """All steps in one pass; the result has the columns CLEANED.

    `bucket` numbers the `parts` ranges of ids, in their order; `sha` is there where `digest` is true.
    """
    return documents.select(*DOCUMENTS.names).mapInArrow(_pass(steps, parts, digest), CLEANED)


def exact(documents: DataFrame) -> DataFrame:
    """Ids of exact duplicates: all but the first, by id, of each source and `sha`."""
    from pyspark.sql import functions as F

    # A window function would take three times as long.
    first = documents.groupBy("source", "sha").agg(F.min("id").alias("first"), F.count("*").alias("n")).where("n > 1")
    return first.join(documents.select("id", "source", "sha"), ["source", "sha"]).where("id <> first").select("id")


def _pass(steps: Sequence[Opened], parts: int, digest: bool) -> Callable[[Batches], Batches]:
    def run(batches: Batches) -> Batches:
        import pyarrow as pa

        opened = ready(steps)
        for batch in pieces(batches):
            texts, dropped = through(opened, of(batch))
            yield _kept(batch, texts, parts, digest)
            for number, places in dropped.items():
                gone = batch.take(pa.array(places))
                columns = [
                    gone.column(name) if name in ("id", "source") else pa.nulls(len(gone), kind)
                    for name, kind in zip(DOCUMENTS.names, DOCUMENTS.types, strict=True)
                ]
                numbers = pa.array(np.full(len(gone), number), pa.int32())
                yield _batch([*columns, pa.nulls(len(gone), pa.string()), numbers, _zeros(gone), _buckets(gone, parts)])

    return run


def _kept(batch: pa.RecordBatch, texts: Texts, parts: int, digest: bool) -> pa.RecordBatch:
    import pyarrow as pa
    import pyarrow.compute as pc

    left = batch if len(texts) == batch.num_rows else batch.take(pa.array(texts.place))
    text, fields = texts.text, texts.fields(left.column("fields").cast(pa.string()))
    columns = [{"text": text, "fields": fields}.get(name, left.column(name)) for name in DOCUMENTS.names]
    sha = normalise.digests(texts) if digest else pa.nulls(len(texts), pa.string())
    size = pc.cast(pc.add(pc.binary_length(text), pc.binary_length(fields)), pa.int64())
    return _batch([*columns, sha, pa.nulls(len(texts), pa.int32()), size, _buckets(left, parts)])


def _batch(columns: Sequence[pa.Array]) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays(list(columns), [*DOCUMENTS.names, "sha", "dropped", "size", "bucket"])


def _buckets(batch: pa.RecordBatch, parts: int) -> pa.Array:
    """Number of each id's range: ids are hexadecimal digests, and as many lie in each."""
    import pyarrow as pa

    heads = bytes.fromhex("".join([name[:4] for name in batch.column("id").to_pylist()]))
    return pa.array((np.frombuffer(heads, ">u2").astype(np.int64) * parts >> 16).astype(np.int32))


def _zeros(batch: pa.RecordBatch) -> pa.Array:
    import pyarrow as pa

    return pa.array(np.zeros(batch.num_rows, dtype=np.int64))
