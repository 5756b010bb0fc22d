"""Nearest documents by words: SQLite's full-text index FTS5 with BM25 ranking, held in memory."""

from __future__ import annotations

import math
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from noria.backends import vectors
from noria.errors import Invalid, NotFound
from noria.ports import Embed, Hit, Meant
from noria.types import Document

_FILE = "index.sqlite"
_PAGE = 4096
_WORDS = 32
"""Most words of a query that are looked up."""

_QUERY_CHARS = 4000
_COMMON = 0.4
_FEW = 20
"""Words in more than the share `_COMMON` of more than `_FEW` documents say nothing about which one is meant."""

_COVERED = 0.3
"""Least share of a query's weight that a text must hold. Measured on examples/helpdesk: 93 % of the customers'
questions pass, and 11 % of those about what stands in no document."""

_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
"""Scripts that are written without spaces: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""

_TABLES = """
CREATE TABLE texts(id INTEGER PRIMARY KEY, text TEXT NOT NULL, document TEXT NOT NULL DEFAULT '');
CREATE VIRTUAL TABLE words USING fts5(
    heading, body, content='',
    tokenize="porter unicode61 remove_diacritics 2 categories 'L* N* M* Co'"
);
"""
_SEARCH = """
SELECT words.rowid FROM words WHERE words MATCH ?
ORDER BY bm25(words, 2.0, 1.0), words.rowid LIMIT ?
"""


class FtsIndex:
    """Port `Index`: an index in memory, for reading; safe to call from several threads."""

    def __init__(self, data: bytes) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.deserialize(data)
        self._database.execute("PRAGMA query_only = ON")
        (self._size,) = self._database.execute("SELECT count(*) FROM texts").fetchone()
        columns = [row[1] for row in self._database.execute("PRAGMA table_info(texts)")]
        self._hit = "SELECT text, document FROM texts" if "document" in columns else "SELECT text, '' FROM texts"

    def search(self, text: str, k: int, meant: Meant | None = None) -> list[Hit]:
        """At most `k` documents, nearest first by BM25 (a match in a heading counts twice).

        A text that holds less than `_COVERED` of the query's weight (its words by their inverse document frequency)
        is not about the question and is left out: no context is better than a misleading one. Among very few texts
        frequencies tell nothing, and every match counts.
        """
        return [self.hit(number) for number in self.numbers(text, k)]

    def hit(self, number: int) -> Hit:
        """The document with this number, from 1."""
        with self._lock:
            return Hit(*self._database.execute(f"{self._hit} WHERE id = ?", (number,)).fetchone())

    def numbers(self, text: str, k: int) -> list[int]:
        """As `search`: the numbers of the documents, in the order of their ids, from 1."""
        words = _words(text)
        if not words or k < 1:
            return []
        with self._lock:
            frequency = {word: self._frequency(word) for word in words}
            rare = [word for word in words if self._size <= _FEW or frequency[word] <= _COMMON * self._size]
            weight = {word: self._weight(frequency[word]) for word in rare or words}
            query = " OR ".join(f'"{word}"' for word in weight)
            hits = self._database.execute(_SEARCH, (query, k)).fetchall()
            few = self._size <= _FEW
            return [number for (number,) in hits if few or self._covered(number, weight) >= _COVERED]

    def close(self) -> None:
        """Give the memory back; the index cannot be searched any more."""
        with self._lock:
            self._database.close()

    def _frequency(self, word: str) -> int:
        count: int
        (count,) = self._database.execute("SELECT count(*) FROM words WHERE words MATCH ?", (f'"{word}"',)).fetchone()
        return count

    def _weight(self, frequency: int) -> float:
        """Inverse document frequency as BM25 counts it (Robertson and Zaragoza 2009)."""
        return math.log(1 + (self._size - frequency + 0.5) / (frequency + 0.5))

    def _covered(self, number: int, weight: Mapping[str, float]) -> float:
        """Share of the query's weight that stands in the text with this number."""
        found = sum(value for word, value in weight.items() if self._holds(number, word))
        return found / sum(weight.values())

    def _holds(self, number: int, word: str) -> bool:
        query = "SELECT 1 FROM words WHERE words MATCH ? AND rowid = ?"
        return self._database.execute(query, (f'"{word}"', number)).fetchone() is not None


class Indexes:
    """Port `Indexes` on SQLite files."""

    def build(self, documents: Iterable[Document], folder: Path, embed: Embed | None = None) -> None:
        """Write `index.sqlite` and, with `embed`, `vectors.npy`; the order of the documents does not matter.

        What is found is a document's field `body` where it has one, else its text; its field `heading` is searched too.
        """
        folder.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(":memory:")
        texts = []
        try:
            database.execute(f"PRAGMA page_size = {_PAGE:d}")
            database.executescript(_TABLES)
            with database:
                for number, document in enumerate(sorted(documents, key=lambda document: document.id), 1):
                    body = document.fields.get("body") or document.text
                    heading = document.fields.get("heading") or ""
                    texts.append(f"{heading}\n{body}".strip())
                    database.execute("INSERT INTO texts VALUES (?, ?, ?)", (number, body, document.id))
                    database.execute(
                        "INSERT INTO words(rowid, heading, body) VALUES (?, ?, ?)",
                        (number, _spaced(heading), _spaced(body)),
                    )
                database.execute("INSERT INTO words(words) VALUES ('optimize')")
            database.execute("VACUUM")
            (folder / _FILE).write_bytes(database.serialize())
        finally:
            database.close()
        if embed is not None:
            vectors.write(embed(texts), folder)

    def open(self, folder: Path) -> FtsIndex | vectors.MeaningIndex:
        """Read one into memory; raises NotFound where there is none, Invalid for a file that is no index."""
        file = folder / _FILE
        if not file.is_file():
            raise NotFound(f"there is no index in '{folder}'", "run the stage that makes it: noria run dataset")
        try:
            words = FtsIndex(file.read_bytes())
        except sqlite3.DatabaseError as error:
            raise Invalid(f"'{file}' is no index: {error}", "make it again: noria run dataset") from error
        return vectors.opened(words, folder) or words

    def rows(self, folder: Path) -> Iterator[tuple[Hit, list[float]]]:
        """The documents in order of their ids."""
        matrix, found = vectors.read(folder), self.open(folder)
        try:
            for number in range(1, 1 + (0 if matrix is None else len(matrix))):
                assert matrix is not None
                yield found.hit(number), matrix[number - 1].tolist()
        finally:
            found.close()


def _words(text: str) -> list[str]:
    """The first different words of a query. Only letters, numbers and marks are left, so that no query has syntax."""
    normal = unicodedata.normalize("NFKC", text[:_QUERY_CHARS]).casefold()
    plain = "".join(char if unicodedata.category(char)[0] in "LNM" else " " for char in normal)
    return list(dict.fromkeys(_spaced(plain).split()))[:_WORDS]


def _spaced(text: str) -> str:
    """The text with runs of unspaced scripts as overlapping pairs of characters, so that parts of them can be found."""
    return _UNSPACED.sub(lambda run: f" {' '.join(_pairs(run[0]))} ", text)


def _pairs(run: str) -> Iterator[str]:
    if len(run) == 1:
        yield run
    for at in range(len(run) - 1):
        yield run[at : at + 2]
