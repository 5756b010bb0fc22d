"""Duplicates among the documents of one source, found with Spark DataFrames; other sources' documents do not count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from noria.datasets.shingles import jaccard, word_shingles, words
from noria.datasets.sketches import (
    BANDS,
    ROWS,
    Counts,
    Hashes,
    Shingler,
    buckets,
    jaccards,
    signatures,
    starts_of,
    unique,
)
from noria.datasets.texts import pieces

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SIMILAR = 0.7
"""Two texts are near duplicates from this Jaccard similarity of their word 3-grams on."""

NUMBERS_MATTER = 50
"""In texts of fewer words numbers are facts: two that differ in a number are never near duplicates."""

DISTANT = 20
"""Pairs whose sketches of 64 bits differ in more are left out unseen: of similarity 0.7 that is 1 in 3,500."""

STEPS = 16
"""So often, at most, members of buckets are brought together anew."""

LOT = 1 << 22
"""Bytes of texts that are sketched at once, so that their hashes stay in a processor's cache."""

PAIRS = 500_000
"""So many pairs are verified at a time: their shingles are held, about 500 bytes for a pair of short texts."""

Columns = Mapping[str, tuple[str, ...]]
"""Source to the fields that must all be similar; the whole text where a source is not named."""

Batches = Iterator[pa.RecordBatch]

_SKETCHES = "id string, part int, buckets array<long>, sketch long, hashes binary, words long, numbers long"


def near(spark: SparkSession, documents: DataFrame, columns: Columns, scratch: Path) -> DataFrame:
    """The column `id` of the documents to drop: near duplicates of one with a smaller id.

    Documents are compared that share a band of their MinHash signatures, and verified by their Jaccard similarity: a
    cluster keeps its smallest id, always. In each bucket a document is compared with the first one and with the one
    whose sketch stands before its own, so that cost grows with documents, not with pairs; what is left is compared in
    the same way until nothing new comes together. The result follows from ids and texts alone, not from how rows are
    spread. What is found on the way is kept in Parquet files under `scratch`.
    """
    wanted = documents.selectExpr("id", "source", "text", "fields" if columns else "'{}' as fields")
    sketches = _kept(spark, wanted.mapInArrow(_sketched(columns), _SKETCHES), scratch / "sketches")
    left = _kept(spark, _crowded(_members(sketches)), scratch / "members")
    losers: list[DataFrame] = []
    compared: list[DataFrame] = []
    fruitless = 0
    for step in range(STEPS):
        folder = scratch / f"step-{step}"
        pairs = (_with_neighbour if step % 2 else _with_first)(left)
        if compared:
            pairs = pairs.join(_union(compared), ["a", "b"], "left_anti")
        compared.append(_kept(spark, pairs, folder / "pairs"))
        count = compared[-1].count()
        fruitless = 0 if count else fruitless + 1
        if fruitless == 2:
            break
        if count:
            slices = -(-count // PAIRS)
            found = [
                _kept(spark, _verified(_slice(compared[-1], number, slices), sketches), folder / f"losers-{number}")
                for number in range(slices)
            ]
            losers += found
            left = _kept(spark, _crowded(without(left, _union(found))), folder / "left")
    return _union(losers) if losers else documents.select("id").where("false")


def without(documents: DataFrame, losers: DataFrame) -> DataFrame:
    """The documents whose id is not among `losers`."""
    # An engine may hold what stands on the left of a join: of an anti join all documents.
    marked = losers.distinct().selectExpr("id", "true as lost")
    return marked.join(documents, "id", "right").where("lost is null").select(*documents.columns)


def similar(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Whether two documents, given by the parts that count, are near duplicates in every part."""
    return all(map(_same, left, right))


def _same(left: str, right: str) -> bool:
    if jaccard(word_shingles(left), word_shingles(right)) < SIMILAR:
        return False
    mine, theirs = words(left), words(right)
    return max(len(mine), len(theirs)) >= NUMBERS_MATTER or numbers(mine) == numbers(theirs)


def numbers(found: list[str]) -> list[str]:
    """Those of the words that hold a digit, sorted."""
    return sorted(word for word in found if any(map(str.isdigit, word)))


def _kept(spark: SparkSession, rows: DataFrame, folder: Path) -> DataFrame:
    """The rows, written into a folder and read back: Spark would compute them anew for every use."""
    rows.write.mode("overwrite").option("compression", "snappy").parquet(str(folder))
    return spark.read.schema(rows.schema).parquet(str(folder))


def _members(sketches: DataFrame) -> DataFrame:
    """A row for each document and bucket; the sketch is turned, so that bits of other bands than this come first."""
    turn = f"cast((band + 1) * {ROWS} % 64 as int)"
    # Sail's shiftrightunsigned fails at negative numbers.
    turned = f"shiftleft(sketch, {turn}) | shiftright(sketch, 64 - {turn}) & (shiftleft(1L, {turn}) - 1)"
    rows = sketches.selectExpr("id", "sketch", "posexplode(buckets) as (band, bucket)")
    return rows.selectExpr("id", "bucket", f"{turned} as sketch")


def _crowded(members: DataFrame) -> DataFrame:
    """Members of buckets that hold more than one."""
    crowded = members.groupBy("bucket").count().where("count > 1").select("bucket")
    return crowded.join(members, "bucket").select(*members.columns)


def _with_first(members: DataFrame) -> DataFrame:
    """Each member of a bucket with the one of the smallest id."""
    from pyspark.sql import functions as F

    # A window function would take four times as long.
    first = members.groupBy("bucket").agg(F.min("id").alias("other"), F.min_by("sketch", "id").alias("its"))
    return _alike(first.join(members, "bucket"))


def _with_neighbour(members: DataFrame) -> DataFrame:
    """Each member of a bucket with the one before it, by sketch."""
    order = "over (partition by bucket order by sketch, id)"
    return _alike(members.selectExpr("id", "sketch", f"lag(id) {order} as other", f"lag(sketch) {order} as its"))


def _alike(pairs: DataFrame) -> DataFrame:
    """The different pairs of ids, a < b, whose sketches are alike."""
    alike = pairs.where(f"other <> id and bit_count(sketch ^ its) <= {DISTANT}")
    return alike.selectExpr("least(id, other) as a", "greatest(id, other) as b").distinct()


def _union(tables: list[DataFrame]) -> DataFrame:
    return reduce(lambda above, below: above.union(below), tables)


def _slice(pairs: DataFrame, number: int, of: int) -> DataFrame:
    return pairs.where(f"pmod(xxhash64(b), {of}) = {number}") if of > 1 else pairs


def _verified(pairs: DataFrame, sketches: DataFrame) -> DataFrame:
    """The larger ids of the pairs that are near duplicates."""
    marks = sketches.select("id", "part", "hashes", "words", "numbers")
    left = marks.toDF("a", "part", "hashes_a", "words_a", "numbers_a")
    right = marks.toDF("b", "part", "hashes_b", "words_b", "numbers_b")
    both = pairs.join(left, "a").join(right, ["b", "part"])
    parts = both.mapInArrow(_compared, "a string, b string, same boolean")
    return parts.groupBy("a", "b").agg({"same": "min"}).toDF("a", "id", "same").where("same").select("id").distinct()


def _sketched(columns: Columns) -> Callable[[Batches], Batches]:
    """A function from documents to a row for each of their parts; the buckets stand with the first one."""

    def sketched(batches: Batches) -> Batches:
        shingler = Shingler()
        for batch in pieces(batches, LOT):
            parts, counts = _parts(batch, columns)
            shingles, firsts = shingler.shingles(parts), starts_of(counts)
            sources = batch.column("source").to_pylist()
            salts = {
                name: int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) for name in set(sources)
            }
            signature = signatures(shingles.hashes, shingles.starts[firsts])
            names, sketch = buckets(signature, np.array([salts[name] for name in sources], np.uint64))
            owner = np.repeat(np.arange(len(counts)), counts)
            part = np.arange(len(parts)) - firsts[owner]
            yield pa.RecordBatch.from_arrays(
                [
                    batch.column("id").cast(pa.string()).take(pa.array(owner)),
                    pa.array(part, pa.int32()),
                    pa.ListArray.from_arrays(starts_of(BANDS * (part == 0)).astype(np.int32), names.ravel()),
                    pa.array(sketch[owner]),
                    pa.Array.from_buffers(
                        pa.binary(),
                        len(parts),
                        [None, pa.py_buffer((shingles.starts * 4).astype(np.int32)), pa.py_buffer(shingles.hashes)],
                    ),
                    pa.array(shingles.words),
                    pa.array(shingles.numbers.view(np.int64)),
                ],
                ["id", "part", "buckets", "sketch", "hashes", "words", "numbers"],
            )

    return sketched


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
    """The different hashes of each row of a binary column, and where each row starts."""
    values = column.cast(pa.binary())
    starts = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1] // 4
    data = values.buffers()[2]
    hashes = np.frombuffer(data, np.uint32, starts[-1]) if data else np.empty(0, np.uint32)
    return unique(hashes[starts[0] :], (starts - starts[0]).astype(np.int64))


def _parts(batch: pa.RecordBatch, columns: Columns) -> tuple[pa.Array, Counts]:
    """The texts that count, document by document, and how many of each."""
    text = batch.column("text").cast(pa.string())
    sources = batch.column("source").to_pylist()
    if columns.keys().isdisjoint(sources):
        return text, np.ones(len(text), np.int64)
    rows = zip(sources, text.to_pylist(), batch.column("fields").to_pylist(), strict=True)
    parts = [_counting(source, text, fields, columns) for source, text, fields in rows]
    texts = [text for texts in parts for text in texts]
    return pa.array(texts, pa.string()), np.fromiter(map(len, parts), np.int64, len(parts))


def _counting(source: str, text: str, fields: str, columns: Columns) -> tuple[str, ...]:
    if source not in columns:
        return (text,)
    values = json.loads(fields)
    return tuple(values.get(name, "") for name in columns[source])
