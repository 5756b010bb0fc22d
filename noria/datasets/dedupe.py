"""Duplicates among the documents of one source, found with Spark DataFrames; other sources' documents do not count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from noria.datasets.shingles import jaccard, word_shingles, words
from noria.datasets.sketches import (
    BANDS,
    Counts,
    Hashes,
    Shingler,
    buckets,
    jaccards,
    signatures,
    starts_of,
    unique,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession, WindowSpec

SIMILAR = 0.7
"""Two texts are near duplicates from this Jaccard similarity of their word 3-grams on."""

NUMBERS_MATTER = 50
"""In texts of fewer words numbers are facts: two that differ in a number are never near duplicates."""

APART = 20
"""Pairs whose sketches of 64 bits differ in more are not looked at: 1 of 4,000 with a similarity of 0.7, more of others."""

PASSES = 8
"""So often what is left is compared anew. Each document is compared with two of each bucket, however many it holds."""

Columns = Mapping[str, tuple[str, ...]]
"""Source to the fields that must all be similar; the whole text where a source is not named."""

Batches = Iterator[pa.RecordBatch]


def exact(documents: DataFrame) -> DataFrame:
    """The first document, by id, of each source and `sha`; the helper columns are gone."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy("source", "sha").orderBy("id")
    first = documents.withColumn("place", F.row_number().over(order)).where("place = 1")
    return first.drop("place", "sha", "speaks")


def near(spark: SparkSession, documents: DataFrame, columns: Columns, scratch: Path) -> DataFrame:
    """The column `id` of the documents to drop: near duplicates of one with a smaller id.

    Documents are compared that share a band of their MinHash signatures, and verified by their Jaccard similarity: a
    cluster keeps its smallest id, always. In each bucket a document is compared with the first one and with the one
    whose sketch stands before its own, so that cost grows with documents, not with pairs; then what is left of the
    buckets that lost a document is compared again. The result follows from ids and texts alone, not from how rows
    are spread. Everything between is kept in Parquet files under `scratch`.
    """
    from pyspark.sql import functions as F

    bands = _kept(
        spark, documents.mapInArrow(_bands(columns), "id string, bucket long, sketch long"), scratch / "bands"
    )
    shared = bands.groupBy("bucket").agg(F.count("*").alias("n")).where("n > 1")
    members = _kept(spark, bands.join(shared, "bucket", "left_semi"), scratch / "members")
    losers, number, left = members.select("id").limit(0), 0, members
    for _ in range(PASSES):
        found = []
        for pairs in (_with_first, _with_neighbour):
            folder, number = scratch / f"losers-{number}", number + 1
            found.append(_kept(spark, _losers(spark, pairs(left), documents, columns, folder), folder / "ids"))
            losers = losers.union(found[-1])
            left = left.join(found[-1], "id", "left_anti")
        lost = members.join(found[0].union(found[1]), "id", "left_semi").select("bucket").distinct()
        left = left.join(lost, "bucket", "left_semi")
        if left.isEmpty():
            break
    return losers


def without(documents: DataFrame, losers: DataFrame) -> DataFrame:
    """The documents whose id is not among `losers`."""
    return documents.join(losers, "id", "left_anti")


def similar(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Whether two documents, given by the parts that count, are near duplicates in every part."""
    return all(map(_same, left, right))


def _same(left: str, right: str) -> bool:
    if jaccard(word_shingles(left), word_shingles(right)) < SIMILAR:
        return False
    mine, theirs = words(left), words(right)
    return max(len(mine), len(theirs)) >= NUMBERS_MATTER or _numbers(mine) == _numbers(theirs)


def _numbers(found: list[str]) -> list[str]:
    return sorted(word for word in found if any(map(str.isdigit, word)))


def _kept(spark: SparkSession, rows: DataFrame, folder: Path) -> DataFrame:
    """The rows, computed once: Spark would compute them anew for every use."""
    rows.write.mode("overwrite").parquet(str(folder))
    return spark.read.schema(rows.schema).parquet(str(folder))


def _with_first(members: DataFrame) -> DataFrame:
    """Each member of a bucket with the one of the smallest id."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy("bucket").orderBy("id")
    return _pairs(members, F.first, order.rowsBetween(Window.unboundedPreceding, Window.currentRow))


def _with_neighbour(members: DataFrame) -> DataFrame:
    """Each member of a bucket with the one before it, by sketch."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    return _pairs(members, F.lag, Window.partitionBy("bucket").orderBy("sketch", "id"))


def _pairs(members: DataFrame, other: Callable[[str], Column], order: WindowSpec) -> DataFrame:
    """Pairs of ids, a < b, whose sketches are alike."""
    both = members.select("id", "sketch", other("id").over(order).alias("o"), other("sketch").over(order).alias("s"))
    alike = both.where(f"o <> id and bit_count(sketch ^ s) <= {APART}")
    return alike.selectExpr("least(id, o) as a", "greatest(id, o) as b").distinct()


def _losers(
    spark: SparkSession, candidates: DataFrame, documents: DataFrame, columns: Columns, scratch: Path
) -> DataFrame:
    """The larger ids of the pairs that are near duplicates."""
    pairs = _kept(spark, candidates, scratch / "pairs")
    ids = pairs.selectExpr("a as id").union(pairs.selectExpr("b as id")).distinct()
    texts = documents.select("id", "source", "text", "fields").join(ids, "id", "left_semi")
    schema = "id string, part int, hashes binary, words long, numbers long"
    marks = _kept(spark, texts.mapInArrow(_marks(columns), schema), scratch / "marks")
    left = marks.toDF("a", "part", "hashes_a", "words_a", "numbers_a")
    right = marks.toDF("b", "part", "hashes_b", "words_b", "numbers_b")
    compared = (
        pairs.join(left, "a").join(right, ["b", "part"]).mapInArrow(_compared, "a string, b string, same boolean")
    )
    return compared.groupBy("a", "b").agg({"same": "min"}).toDF("a", "id", "same").where("same").select("id").distinct()


def _bands(columns: Columns) -> Callable[[Batches], Batches]:
    """A function from documents to one row for each band."""

    def bands(batches: Batches) -> Batches:
        shingler = Shingler()
        for batch in batches:
            parts, counts = _parts(batch, columns)
            shingles = shingler.shingles(parts)
            sources = batch.column("source").to_pylist()
            salts = {s: int.from_bytes(hashlib.blake2b(s.encode(), digest_size=8).digest()) for s in set(sources)}
            salt = np.array([salts[source] for source in sources], np.uint64)
            names, orders = buckets(signatures(shingles.hashes, shingles.starts[starts_of(counts)]), salt)
            ids = batch.column("id").cast(pa.string()).take(pa.array(np.repeat(np.arange(len(salt)), BANDS)))
            yield pa.RecordBatch.from_arrays(
                [ids, pa.array(names.ravel()), pa.array(orders.ravel())], ["id", "bucket", "sketch"]
            )

    return bands


def _marks(columns: Columns) -> Callable[[Batches], Batches]:
    """A function from documents to what tells whether their parts are alike, a row for each part."""

    def marks(batches: Batches) -> Batches:
        shingler = Shingler()
        for batch in batches:
            parts, counts = _parts(batch, columns)
            shingles = shingler.shingles(parts)
            hashes, starts = unique(shingles.hashes, shingles.starts)
            offsets = pa.py_buffer((starts * hashes.itemsize).astype(np.int32))
            yield pa.RecordBatch.from_arrays(
                [
                    batch.column("id").cast(pa.string()).take(pa.array(np.repeat(np.arange(len(counts)), counts))),
                    pa.array(np.arange(len(parts)) - np.repeat(starts_of(counts)[:-1], counts), pa.int32()),
                    pa.Array.from_buffers(pa.binary(), len(parts), [None, offsets, pa.py_buffer(hashes)]),
                    pa.array(shingles.words),
                    pa.array(shingles.numbers.view(np.int64)),
                ],
                ["id", "part", "hashes", "words", "numbers"],
            )

    return marks


def _compared(batches: Batches) -> Batches:
    """Pairs of parts, and whether they are near duplicates: what `similar` says of texts."""
    for batch in batches:
        pairs = {name: batch.column(name) for name in batch.schema.names}
        sets = [_sets(pairs[f"hashes_{side}"]) for side in "ab"]
        alike = jaccards(*sets[0], *sets[1]) >= SIMILAR
        words, numbers = ([pairs[f"{name}_{side}"].to_numpy() for side in "ab"] for name in ("words", "numbers"))
        same = alike & ((np.maximum(*words) >= NUMBERS_MATTER) | (numbers[0] == numbers[1]))
        yield pa.RecordBatch.from_arrays(
            [pairs["a"].cast(pa.string()), pairs["b"].cast(pa.string()), pa.array(same)], ["a", "b", "same"]
        )


def _sets(column: pa.Array) -> tuple[Hashes, Counts]:
    """Hashes and starts of a binary column."""
    values = column.cast(pa.binary())
    starts = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1] // 4
    data = values.buffers()[2]
    hashes = np.frombuffer(data, np.uint32, starts[-1]) if data else np.empty(0, np.uint32)
    return hashes[starts[0] :], (starts - starts[0]).astype(np.int64)


def _parts(batch: pa.RecordBatch, columns: Columns) -> tuple[list[str], Counts]:
    """The texts that count, document by document, and how many of each."""
    rows = zip(*(batch.column(name).to_pylist() for name in ("source", "text", "fields")), strict=True)
    parts = [_counting(source, text, fields, columns) for source, text, fields in rows]
    return [text for texts in parts for text in texts], np.fromiter(map(len, parts), np.int64, len(parts))


def _counting(source: str, text: str, fields: str, columns: Columns) -> tuple[str, ...]:
    if source not in columns:
        return (text,)
    values = json.loads(fields)
    return tuple(values.get(name, "") for name in columns[source])
