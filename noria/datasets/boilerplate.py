"""Step `boilerplate`: lines that the documents of a source repeat, such as menus and footers, are left out.

Only fields of several lines count: that many orders have the same status does not make it boilerplate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from noria.datasets.texts import Batches, Opened, Texts, at, of, pieces, ready, through

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

Lines = Mapping[str, frozenset[str]]
"""By source."""

_COUNTS = "source string, line string, n long"
_MULTI_LINE = r"\\[nru]|[\x{85}\x{2028}\x{2029}]"
"""What the JSON of fields with several lines holds, before and after white space is folded."""


def boilerplate(lines: Lines) -> Opened:
    """Leave out these lines."""

    def step(texts: Texts) -> Texts:
        import pyarrow as pa
        import pyarrow.compute as pc

        for source, mine in lines.items():
            here = np.asarray(pc.equal(texts.source, source))
            texts = replace(texts, strings=at(texts.strings, pa.array(texts.strings_of(here)), _without(mine)))
        return texts

    return lambda: step


def repeated(documents: DataFrame, before: Sequence[Opened], had: Counter[str], share: float, least: int) -> Lines:
    """Lines of each source that at least `least` documents hold, and this share of all that it `had`.

    `before` are the steps that come first. Only documents of several lines are looked at, and only where a source has
    as many of them. Of a line that a share of these holds, some batch has that share too, however the engine cuts
    them: only lines that are frequent in a batch are counted over all.
    """
    from pyspark.sql import functions as F

    several = documents.where(F.col("fields").rlike(_MULTI_LINE)).select("source", "text", "fields")
    there = Counter({row["source"]: row["count"] for row in several.groupBy("source").count().collect()})
    wanted = {source: max(least, share * had[source]) for source in there}
    # A little less, so that no line is missed by rounding.
    shares = {source: 0.999 * wanted[source] / n for source, n in there.items() if n >= wanted[source]}
    if not shares:
        return {}
    several = several.where(F.col("source").isin(*shares))
    frequent = several.mapInArrow(_counted(before, shares, None), _COUNTS).select("source", "line").distinct()
    candidates = _by_source([(row["source"], row["line"]) for row in frequent.collect()])
    if not candidates:
        return {}
    counted = several.mapInArrow(_counted(before, shares, candidates), _COUNTS)
    sums = counted.groupBy("source", "line").agg({"n": "sum"}).toDF("source", "line", "n").collect()
    return _by_source([(row["source"], row["line"]) for row in sums if row["n"] >= wanted[row["source"]]])


def _by_source(pairs: Sequence[tuple[str, str]]) -> Lines:
    lines: dict[str, set[str]] = {}
    for source, line in pairs:
        lines.setdefault(source, set()).add(line)
    return {source: frozenset(lines[source]) for source in sorted(lines)}


def _counted(before: Sequence[Opened], shares: Mapping[str, float], only: Lines | None) -> Callable[[Batches], Batches]:
    """In how many documents of a batch each line is: of those that are frequent in it, or of `only` these."""

    def counted(batches: Batches) -> Batches:
        import pyarrow as pa

        steps = ready(before)
        for batch in pieces(batches):
            rows = Counter(batch.column("source").to_pylist())
            kept = [
                (source, line, n)
                for (source, line), n in _lines(through(steps, of(batch))[0]).items()
                if (n >= shares[source] * rows[source] if only is None else line in only.get(source, frozenset()))
            ]
            columns = [[row[place] for row in kept] for place in range(3)]
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(columns[0], pa.string()),
                    pa.array(columns[1], pa.string()),
                    pa.array(columns[2], pa.int64()),
                ],
                ["source", "line", "n"],
            )

    return counted


def _lines(texts: Texts) -> Counter[tuple[str, str]]:
    """In how many documents each source's lines are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    many = pc.match_substring(texts.values, "\n")
    owner = texts.owner[np.asarray(many)]
    if not len(owner):
        return Counter()
    parts = pc.split_pattern(texts.values.filter(many), "\n")
    lines = pc.list_flatten(parts).dictionary_encode()
    owner = owner[np.asarray(pc.list_parent_indices(parts))]
    sources = texts.source.dictionary_encode()
    wide = len(lines.dictionary)
    once = np.unique(owner * wide + np.asarray(lines.indices))
    source = np.asarray(sources.indices)[once // wide]
    keys, counts = np.unique(source.astype(np.int64) * wide + once % wide, return_counts=True)
    said = lines.dictionary.take(pa.array(keys % wide)).to_pylist()
    named = sources.dictionary.take(pa.array(keys // wide)).to_pylist()
    return Counter({pair: n for pair, n in zip(zip(named, said, strict=True), counts.tolist(), strict=True) if pair[1]})


def _without(lines: frozenset[str]) -> Callable[[pa.Array], pa.Array]:
    def without(strings: pa.Array) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        holding = pc.match_substring(strings, "\n")
        some = np.zeros(len(strings), dtype=bool)
        for line in lines:
            some |= np.asarray(pc.match_substring(strings, line))
        return at(strings, pc.and_(holding, pa.array(some)), _left)

    def _left(strings: pa.Array) -> pa.Array:
        import pyarrow as pa

        kept = ("\n".join(line for line in text.split("\n") if line not in lines) for text in strings.to_pylist())
        return pa.array(list(kept), pa.string())

    return without
