"""Step `semantic`: of documents that say the same in other words one stays, by the cosine of their embeddings.

The one step of cleaning that runs where noria runs: texts go to an engine that makes vectors, one batch after the
other, and the vectors lie in a mapped file. As in SemDeDup (Abbas et al. 2023) only documents of one group are
compared; groups are drawn by random hyperplanes (Charikar 2002), so that it is known how many pairs are missed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
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

GROUP = 256
"""Documents of a group, about."""

BITS = 20
"""Most hyperplanes; groups beyond that are larger."""

BLOCK = 1024
"""Documents that are compared with their group at once, and texts that the engine is asked for at a time."""

Vectors = NDArray[np.float32]
Keys = NDArray[np.int64]


def alike(
    documents: DataFrame,
    rows: int,
    embed: Embed,
    similarity: float,
    chars: int,
    scratch: Path,
    told: Callable[[int], None],
) -> list[str]:
    """Ids of the documents to drop: each is alike to one of its source with a smaller id, which stays.

    Alike are two texts whose cosine is at least `similarity` and whose words with digits are the same: numbers are
    facts that vectors do not see. Texts of more than `chars` characters, of which a model would read the beginning
    only, are never alike. `rows` counts the documents; `told` hears how many of them have their vector. Raises Invalid
    for an engine whose vectors are of different lengths, and what `embed` raises.
    """
    folder = scratch / "texts"
    wanted = documents.where(f"char_length(text) <= {chars}").select("id", "source", "text")
    wanted.orderBy("id").write.mode("overwrite").parquet(str(folder))
    ids: list[str] = []
    keys: list[int] = []
    vectors: Vectors | None = None
    for batch in _batches(folder):
        made = np.asarray(embed(batch.column("text").to_pylist()), np.float32)
        if vectors is None:
            vectors = np.lib.format.open_memmap(scratch / "vectors.npy", "w+", np.float32, (rows, made.shape[1]))
        if made.shape[1:] != vectors.shape[1:]:
            raise Invalid("the engine gave vectors of different lengths", "ask one model for all of them")
        vectors[len(ids) : len(ids) + len(made)] = made
        ids += batch.column("id").to_pylist()
        keys += map(_key, batch.column("source").to_pylist(), batch.column("text").to_pylist())
        told(len(ids))
    if vectors is None:
        return []
    lost = losers(vectors[: len(ids)], np.array(keys, np.int64), similarity)
    return [ids[place] for place in lost]


def losers(vectors: Vectors, keys: Keys, similarity: float) -> list[int]:
    """Places of the vectors to drop, in ascending order; `vectors` are n rows of unit length.

    Each is at least this similar to one of the same key that stands before it and stays. What is dropped follows from
    the vectors and their order alone.
    """
    there, kept, lost = np.arange(len(vectors)), set[int](), set[int]()
    while True:
        found = {place: first for place, first in _firsts(vectors, keys, there, similarity) if place not in kept}
        # One that has nothing alike before it stays; who is alike to another one waits until that is decided.
        gone = {place for place, first in found.items() if first not in found}
        if not gone:
            return sorted(lost)
        kept |= {found[place] for place in gone}
        lost |= gone
        there = np.array([place for place in there.tolist() if place not in gone], np.int64)


def _firsts(vectors: Vectors, keys: Keys, there: Keys, similarity: float) -> list[tuple[int, int]]:
    """Of those that are there, each that has an alike one before it, with the first such of some group; in order."""
    bits, tables = _plan(len(there), similarity)
    random = np.random.default_rng(len(vectors))
    found: dict[int, int] = {}
    for _ in range(tables):
        planes = random.standard_normal((vectors.shape[1], bits)).astype(np.float32)
        for group in _groups(vectors, keys, there, planes):
            mine = vectors[group]
            for start in range(0, len(group), BLOCK):
                near = mine[start : start + BLOCK] @ mine.T >= similarity
                first = near.argmax(axis=1)
                for row in np.flatnonzero(first < np.arange(start, start + len(near))).tolist():
                    place, before = int(group[start + row]), int(group[first[row]])
                    found[place] = min(before, found.get(place, before))
    return sorted(found.items())


def _plan(count: int, similarity: float) -> tuple[int, int]:
    """Hyperplanes that part so many vectors into groups, and how often that is done."""
    bits = min(max(0, round(math.log2(max(count, 1) / GROUP))), BITS)
    # Two vectors lie on one side of a random hyperplane with probability 1 - angle / pi.
    together = (1 - math.acos(min(similarity, 1.0)) / math.pi) ** bits
    return bits, 1 if together == 1 else math.ceil(math.log(MISSED) / math.log1p(-together))


def _groups(vectors: Vectors, keys: Keys, there: Keys, planes: Vectors) -> Iterator[Keys]:
    """Places with the same key on the same side of every plane, in order, where there are several."""
    names = keys[there]
    if planes.shape[1]:
        sides = np.concatenate([vectors[there[at : at + BLOCK]] @ planes > 0 for at in range(0, len(there), BLOCK)])
        names = names * np.int64(1 << BITS) + sides @ (1 << np.arange(planes.shape[1], dtype=np.int64))
    order = np.argsort(names, kind="stable")
    edges = np.flatnonzero(np.diff(names[order])) + 1
    for group in np.split(order, edges):
        if len(group) > 1:
            yield there[group]


def _key(source: str, text: str) -> int:
    """What two documents must have in common: their source, and their words with digits."""
    told = "\0".join([source, *numbers(words(text))])
    return int.from_bytes(hashlib.blake2b(told.encode(), digest_size=5).digest())


def _batches(folder: Path) -> Iterator[pa.RecordBatch]:
    for file in sorted(folder.glob("*.parquet")):
        yield from pq.ParquetFile(file).iter_batches(BLOCK)


def write(ids: Sequence[str], folder: Path) -> None:
    """Write ids as an engine would: nothing where there is none."""
    if ids:
        folder.mkdir()
        pq.write_table(pa.table({"id": pa.array(ids, pa.string())}), folder / "part-0.parquet")
