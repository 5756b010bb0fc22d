"""Step `semantic`: of documents that say the same in other words one stays, by the cosine of their embeddings.

The one step of cleaning that runs where noria runs: texts go to an engine that makes vectors, one batch after the
other, and the vectors lie in a mapped file. As in SemDeDup (Abbas et al. 2023) only documents of one group are
compared; groups are drawn by random hyperplanes (Charikar 2002), so that it is known how many of the pairs at the
threshold are missed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from noria.datasets.dedupe import numbers
from noria.datasets.shingles import words
from noria.errors import Invalid

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from noria.ports import Embed

MISSED = 1e-3
"""Share of the pairs just at the wanted similarity that share no group."""

GROUP = 64
"""Documents of a group, about, where their vectors point everywhere."""

BITS = 20
"""Most hyperplanes; groups beyond that are larger."""

ASKED = 64
"""Texts that the engine is asked for at a time."""

ROUNDING = 1e-6
"""So much less than 1 may the cosine of two equal vectors be in single precision."""

Vectors = NDArray[np.float32]
Keys = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Found:
    """Ids of the documents to drop, and how many were left alone because no vector stands for all of their text."""

    ids: list[str]
    alone: int


def alike(
    documents: DataFrame, embed: Embed, similarity: float, chars: int, scratch: Path, told: Callable[[int, int], None]
) -> Found:
    """Documents each of which is alike to one of its source with a smaller id, which stays.

    `documents` have the columns id, source, text and bucket, a number that grows with the ids. Alike are two texts
    whose cosine is at least `similarity` and whose words with digits are the same: numbers are facts that vectors do
    not see. Texts of more than `chars` characters, and those that the engine refuses, are left alone. `told` hears of
    how many documents the vectors are asked for, and how many there are. Raises Invalid for an engine that makes no
    vectors, or of different lengths, and what else `embed` raises.
    """
    folder = scratch / "texts"
    short = documents.where(f"char_length(text) between 1 and {chars}").select("id", "source", "text", "bucket")
    short.write.mode("overwrite").partitionBy("bucket").parquet(str(folder))
    files = sorted(folder.rglob("*.parquet"))
    count = sum(pq.read_metadata(file).num_rows for file in files)
    ids: list[str] = []
    keys = np.empty(count, np.int64)
    vectors: Vectors | None = None
    asked = 0
    for batch in _in_order(folder):
        texts, sources = batch.column("text").to_pylist(), batch.column("source").to_pylist()
        made = _made(texts, embed, strict=vectors is None)
        there = [place for place, vector in enumerate(made) if vector is not None]
        rows = np.asarray([made[place] for place in there], np.float32).reshape(len(there), -1)
        if vectors is None:
            vectors = np.lib.format.open_memmap(scratch / "vectors.npy", "w+", np.float32, (count, rows.shape[1]))
        if there and rows.shape[1] != vectors.shape[1]:
            raise Invalid("the engine gave vectors of different lengths", "ask one model for all of them")
        end = len(ids) + len(there)
        vectors[len(ids) : end] = rows.reshape(len(there), vectors.shape[1])
        keys[len(ids) : end] = [_key(sources[place], texts[place]) for place in there]
        ids += batch.column("id").take(pa.array(there, pa.int64())).to_pylist()
        asked += len(texts)
        told(asked, count)
    lost = [] if vectors is None else losers(vectors[: len(ids)], keys[: len(ids)], similarity)
    return Found([ids[place] for place in lost], documents.count() - len(ids))


def losers(vectors: Vectors, keys: Keys, similarity: float) -> list[int]:
    """Places of the vectors to drop, in ascending order; `vectors` are n rows of unit length.

    Each is at least this similar to one of the same key that stands before it and stays. What is dropped follows from
    the vectors and their order alone; a flood of look-alikes costs no more than other vectors, since only those that
    stay are compared with.
    """
    planes = _planes(len(vectors), vectors.shape[1], similarity)
    least = min(similarity, 1 - ROUNDING)
    kept: list[dict[int, list[int]]] = [{} for _ in planes]
    lost = []
    for start in range(0, len(vectors), ASKED):
        some = np.asarray(vectors[start : start + ASKED])
        names = _groups(some, keys[start : start + ASKED], planes)
        for place, mine in enumerate(names.tolist(), start):
            groups = [table.setdefault(name, []) for table, name in zip(kept, mine, strict=True)]
            near = sorted(set().union(*groups))
            if near and (vectors[near] @ some[place - start] >= least).any():
                lost.append(place)
            else:
                for group in groups:
                    group.append(place)
    return lost


def _planes(count: int, width: int, similarity: float) -> Vectors:
    """Hyperplanes: for each time that so many vectors are parted into groups, one row of `width` for each bit."""
    bits = min(max(0, round(math.log2(max(count, 1) / GROUP))), BITS)
    # Two vectors lie on one side of a random hyperplane with probability 1 - angle / pi.
    together = (1 - math.acos(min(similarity, 1.0)) / math.pi) ** bits
    tables = 1 if together == 1 else math.ceil(math.log(MISSED) / math.log1p(-together))
    return np.random.default_rng(count).standard_normal((tables, bits, width)).astype(np.float32)


def _groups(vectors: Vectors, keys: Keys, planes: Vectors) -> Keys:
    """Names of the groups of each vector, one a table: its key, and on which side of each plane it lies."""
    sides = np.einsum("nw,tbw->ntb", vectors, planes, optimize=True) > 0
    names: Keys = keys[:, None] * np.int64(1 << BITS) + sides @ (1 << np.arange(planes.shape[1], dtype=np.int64))
    return names


def _key(source: str, text: str) -> int:
    """What two documents must have in common: their source, and their words with digits."""
    told = "\0".join([source, *numbers(words(text))])
    return int.from_bytes(hashlib.blake2b(told.encode(), digest_size=5).digest())


def _in_order(folder: Path) -> Iterator[pa.RecordBatch]:
    """The rows in order of their ids: an engine's files are in none. One bucket is held at a time."""
    buckets = {int(place.name.partition("=")[2]): place for place in folder.glob("bucket=*")}
    for number in sorted(buckets):
        rows = ds.dataset(buckets[number], format="parquet").to_table(columns=["id", "source", "text"])
        yield from rows.sort_by("id").combine_chunks().to_batches(ASKED)


def _made(texts: Sequence[str], embed: Embed, strict: bool) -> list[Sequence[float] | None]:
    """Vectors of texts, None where the engine refuses one; where it refuses all, that is raised if `strict`."""
    try:
        return [*embed(texts)]
    except Invalid:
        # A text within `chars` may still have more tokens than the model reads.
        if len(texts) == 1 and not strict:
            return [None]
        halves = texts[: len(texts) // 2], texts[len(texts) // 2 :]
        found = [vector for half in halves if half for vector in _made(half, embed, strict=False)]
        if strict and not any(vector is not None for vector in found):
            raise
        return found


def write(ids: Sequence[str], folder: Path) -> None:
    """Write ids as an engine would: nothing where there is none."""
    if ids:
        folder.mkdir()
        pq.write_table(pa.table({"id": pa.array(ids, pa.string())}), folder / "part-0.parquet")
