"""The readers of files, by kind of source. They run in a process of their own: see `contained`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files

from noria.lake.html import sections
from noria.lake.rows import Item
from noria.lake.tables import csv_rows, json_rows, jsonl_rows, yaml_rows
from noria.lake.text import paragraphs

Parser = Callable[[bytes], Iterator[Item]]
"""Takes a file's bytes, in UTF-8 where the kind is text, and gives its rows; a function of a module, not a closure."""

PARSERS: Mapping[str, Parser] = {
    "csv": csv_rows,
    "html": sections,
    "json": json_rows,
    "jsonl": jsonl_rows,
    "text": paragraphs,
    "yaml": yaml_rows,
}
"""Kind of source to the reader of its files; `sql` has no files."""

BINARY: frozenset[str] = frozenset()
"""Kinds whose files are no text: no encoding is looked for."""

DECLARING = frozenset({"html", "xml"})
"""Kinds whose files may say their own encoding, which their reader then heeds."""

BYTE_OFFSETS = frozenset({"csv", "jsonl", "text"})
"""Kinds whose offsets are bytes of the file, not numbers of rows."""

SEAMS: Mapping[str, tuple[bytes, ...]] = {"jsonl": (b"\n",), "text": (b"\n\n", b"\n\r\n")}
"""Where a large file of a kind may be cut, so that it is never in memory as a whole."""

ONE_ROW_A_PIECE = frozenset({"jsonl"})
"""Kinds in which there is one row between two seams."""


def version() -> str:
    """Digest of the readers' own code: rows that were read by other code are not used again."""
    sha = hashlib.sha256()
    for file in sorted(files("noria.lake").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".py"):
            sha.update(file.read_bytes())
    return sha.hexdigest()[:16]
