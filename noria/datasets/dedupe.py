"""Duplicates among the documents of one source, found with Spark DataFrames; other sources' documents do not count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from noria.datasets.shingles import Clusters, band_keys, jaccard, word_shingles, words

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

BANDS = 16
SIMILAR = 0.7
"""Two texts are near duplicates from this Jaccard similarity of their word 3-grams on."""

NUMBERS_MATTER = 50
"""In texts of fewer words numbers are facts: two that differ in a number are never near duplicates."""

Columns = Mapping[str, tuple[str, ...]]
"""Source to the fields that must all be similar; the whole text where a source is not named."""

Batches = Iterator["pa.RecordBatch"]


def exact(documents: DataFrame) -> DataFrame:
    """The first document, by id, of each source and `sha`; the helper columns are gone."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy("source", "sha").orderBy("id")
    first = documents.withColumn("place", F.row_number().over(order)).where("place = 1")
    return first.drop("place", "sha", "speaks")


def near(spark: SparkSession, documents: DataFrame, columns: Columns, scratch: Path) -> set[str]:
    """Ids of the documents to drop as near duplicates: all but the smallest id of each cluster.

    Candidates share a band of their MinHash signatures; each pair is verified by its Jaccard similarity, so that a
    cluster never loses its last document. The search is repeated on what is left until nothing more is found:
    doing all of it again drops nothing.
    """
    folder = str(scratch / "bands")
    documents.mapInArrow(_bands(columns), "id string, bucket string").write.mode("overwrite").parquet(folder)
    bands = spark.read.parquet(folder)
    losers: set[str] = set()
    while found := _losers(_without(spark, bands, losers), documents, columns):
        losers |= found
    return losers


def without(spark: SparkSession, documents: DataFrame, losers: set[str]) -> DataFrame:
    """The documents whose id is not among `losers`."""
    return _without(spark, documents, losers)


def similar(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Whether two documents, given by the parts that count, are near duplicates in every part."""
    return all(map(_same, left, right))


def _without(spark: SparkSession, rows: DataFrame, losers: set[str]) -> DataFrame:
    import pyarrow as pa

    if not losers:
        return rows
    table = pa.table({"id": pa.array(sorted(losers), pa.string())})
    return rows.join(spark.createDataFrame(table), "id", "left_anti")


def _losers(bands: DataFrame, documents: DataFrame, columns: Columns) -> set[str]:
    """One pass: compare each document with the first of its bucket and with the one before it."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    shared = bands.groupBy("bucket").agg(F.min("id").alias("first"), F.count("*").alias("n")).where("n > 1")
    before = F.lag("id").over(Window.partitionBy("bucket").orderBy("id"))
    members = bands.join(shared, "bucket").withColumn("before", before).where("before is not null")
    pairs = members.selectExpr("first as a", "id as b").union(members.selectExpr("before as a", "id as b")).distinct()
    left = documents.selectExpr("id as a", "source", "text as text_a", "fields as fields_a")
    right = documents.selectExpr("id as b", "text as text_b", "fields as fields_b")
    verified = pairs.join(left, "a").join(right, "b").mapInArrow(_verified(columns), "a string, b string").toArrow()
    clusters = Clusters()
    ids = list(zip(verified["a"].to_pylist(), verified["b"].to_pylist(), strict=True))
    for a, b in ids:
        clusters.join(a, b)
    return {member for pair in ids for member in pair if clusters.find(member) != member}


def _bands(columns: Columns) -> Callable[[Batches], Batches]:
    """A function from documents to one row per band; the bucket's name holds source, band and signature."""

    def bands(batches: Batches) -> Batches:
        import pyarrow as pa

        for batch in batches:
            ids: list[str] = []
            buckets: list[str] = []
            for row in batch.to_pylist():
                parts = _parts(row["source"], row["text"], row["fields"], columns)
                shingles = frozenset[str]().union(*map(word_shingles, parts))
                for number, key in enumerate(band_keys(shingles, BANDS)):
                    name = b"%s\0%d\0%s" % (row["source"].encode(), number, key)
                    buckets.append(hashlib.blake2b(name, digest_size=12).hexdigest())
                    ids.append(row["id"])
            yield pa.RecordBatch.from_arrays(
                [pa.array(ids, pa.string()), pa.array(buckets, pa.string())], ["id", "bucket"]
            )

    return bands


def _verified(columns: Columns) -> Callable[[Batches], Batches]:
    """A function from candidate pairs to those that are near duplicates."""

    def verified(batches: Batches) -> Batches:
        import pyarrow as pa

        for batch in batches:
            kept = [
                (row["a"], row["b"])
                for row in batch.to_pylist()
                if similar(
                    _parts(row["source"], row["text_a"], row["fields_a"], columns),
                    _parts(row["source"], row["text_b"], row["fields_b"], columns),
                )
            ]
            sides = [pa.array([pair[side] for pair in kept], pa.string()) for side in (0, 1)]
            yield pa.RecordBatch.from_arrays(sides, ["a", "b"])

    return verified


def _parts(source: str, text: str, fields: str, columns: Columns) -> tuple[str, ...]:
    if source not in columns:
        return (text,)
    values = json.loads(fields)
    return tuple(values.get(name, "") for name in columns[source])


def _same(left: str, right: str) -> bool:
    if jaccard(word_shingles(left), word_shingles(right)) < SIMILAR:
        return False
    mine, theirs = words(left), words(right)
    return max(len(mine), len(theirs)) >= NUMBERS_MATTER or _numbers(mine) == _numbers(theirs)


def _numbers(found: list[str]) -> list[str]:
    return sorted(word for word in found if any(map(str.isdigit, word)))
