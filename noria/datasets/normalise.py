"""Cleaning, text by text, as functions over Arrow batches: they run wherever Spark runs them.

Letters, accents and scripts survive; lower case and punctuation are left as they are. The raw text stays in the
product of the stage `sources`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

MIN_LETTERS = 2
"""A document with fewer letters and digits says nothing; a single Chinese word has two."""

REPEATED_SHARE = 0.5
REPEATED_DOCUMENTS = 5
"""A line is boilerplate when at least this many documents of a source, and this share of them, hold it."""

_DROPPED = re.compile(
    # Controls but tab and line ends, soft hyphens, zero-width spaces, direction marks, byte order marks, noncharacters.
    # Zero-width joiners stay: Persian, Hindi and emoji need them.
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffe\uffff]"
)
_LINE_END = re.compile("\r\n|[\r\x85\u2028\u2029]")

Batches = Iterator["pa.RecordBatch"]


def clean_text(text: str) -> str:
    """One text: Unicode NFKC, no control characters, white space folded within lines, no empty lines.

    Cleaning twice is cleaning once.
    """
    text = _DROPPED.sub("", unicodedata.normalize("NFKC", _LINE_END.sub("\n", text)))
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return unicodedata.normalize("NFKC", "\n".join(line for line in lines if line))


def fold(text: str) -> str:
    """What two exact duplicates have in common: case and white space do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def repeated_lines(batches: Batches) -> Batches:
    """For each document the different lines of its multi-line fields: columns source, line.

    Values of one line are left alone: that many orders have the same status does not make it boilerplate.
    """
    import pyarrow as pa

    for batch in batches:
        sources: list[str] = []
        lines: list[str] = []
        for source, text in zip(batch.column("source").to_pylist(), batch.column("fields").to_pylist(), strict=True):
            fields = json.loads(text).values()
            found = {line for value in fields if "\n" in value for line in clean_text(value).split("\n")}
            lines += sorted(found)
            sources += [source] * len(found)
        yield pa.RecordBatch.from_arrays(
            [pa.array(sources, pa.string()), pa.array(lines, pa.string())], ["source", "line"]
        )


def cleaner(boilerplate: dict[str, frozenset[str]]) -> Callable[[Batches], Batches]:
    """A function over batches of documents that cleans text and fields, and adds the columns sha and speaks.

    `boilerplate` holds the lines to leave out, by source. `sha` is equal for exact duplicates, `speaks` is false
    for those with fewer than MIN_LETTERS letters and digits.
    """

    def clean(batches: Batches) -> Batches:
        import pyarrow as pa

        for batch in batches:
            columns = {name: batch.column(name) for name in batch.schema.names}
            dropped = [boilerplate.get(source, frozenset()) for source in columns["source"].to_pylist()]
            texts = [
                _without(clean_text(text or ""), lines)
                for text, lines in zip(columns["text"].to_pylist(), dropped, strict=True)
            ]
            fields = [
                json.dumps({k: _without(clean_text(v), lines) for k, v in json.loads(text).items()}, ensure_ascii=False)
                for text, lines in zip(columns["fields"].to_pylist(), dropped, strict=True)
            ]
            columns["text"] = pa.array(texts, pa.string())
            columns["fields"] = pa.array(fields, pa.string())
            shas = [hashlib.sha256(fold(text).encode()).hexdigest() for text in texts]
            columns["sha"] = pa.array(shas, pa.string())
            columns["speaks"] = pa.array([_speaks(text) for text in texts], pa.bool_())
            yield pa.RecordBatch.from_arrays(list(columns.values()), list(columns))

    return clean


def boilerplate_of(counts: list[tuple[str, str, int]], documents: Counter[str]) -> dict[str, frozenset[str]]:
    """Lines to leave out, by source, from how many documents of a source hold a line and how many it has."""
    lines: dict[str, set[str]] = {}
    for source, line, count in counts:
        if count >= REPEATED_DOCUMENTS and count >= REPEATED_SHARE * documents[source]:
            lines.setdefault(source, set()).add(line)
    return {source: frozenset(found) for source, found in lines.items()}


def _speaks(text: str) -> bool:
    return len(list(itertools.islice(filter(str.isalnum, text), MIN_LETTERS))) == MIN_LETTERS


def _without(text: str, lines: frozenset[str]) -> str:
    if not lines or "\n" not in text:
        return text
    return "\n".join(line for line in text.split("\n") if line not in lines)
