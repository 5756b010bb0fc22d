"""The readers of files, by kind of source. They run in a process of their own: see `contained`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.resources import files

from noria.lake.arrow import arrow_rows
from noria.lake.chat import chat_rows
from noria.lake.docx import docx_rows
from noria.lake.html import main_sections, sections
from noria.lake.mail import mbox_rows
from noria.lake.markdown import markdown_rows
from noria.lake.pdf import pdf_rows
from noria.lake.rows import Item
from noria.lake.tables import csv_rows, json_rows, jsonl_rows, tsv_rows, yaml_rows
from noria.lake.text import paragraphs
from noria.lake.xml import xml_rows
from noria.settings import SourceSettings

Parser = Callable[[bytes], Iterator[Item]]
"""Takes a file's bytes, in UTF-8 where the kind is text, and gives its rows; a function of a module, not a closure."""

PARSERS: Mapping[str, Parser] = {
    "chat": chat_rows,
    "csv": csv_rows,
    "docx": docx_rows,
    "html": sections,
    "huggingface": arrow_rows,
    "json": json_rows,
    "jsonl": jsonl_rows,
    "markdown": markdown_rows,
    "mbox": mbox_rows,
    "parquet": arrow_rows,
    "pdf": pdf_rows,
    "text": paragraphs,
    "tsv": tsv_rows,
    "xml": xml_rows,
    "yaml": yaml_rows,
}
"""Kind of source to the reader of its files; `sql` has no files."""


def parser(source: SourceSettings, kind: str | None = None) -> partial[Iterator[Item]]:
    """The reader of a source's files and its options by name, all plain values, so that it can run in another process.

    `kind` is that of one file where the files of a source differ, as those of a site do.
    """
    kind = kind or source.kind
    if kind == "html" and source.main:
        return partial(main_sections)
    options: dict[str, str | tuple[str, ...]] = {}
    if kind == "xml" and source.record:
        options["record"] = source.record
    if kind in ("chat", "mbox") and source.assistants:
        options["assistants"] = source.assistants
    return partial(PARSERS[kind], **options)


def version() -> str:
    """Digest of the readers' own code: rows that were read by other code are not used again."""
    sha = hashlib.sha256()
    for file in sorted(files("noria.lake").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".py"):
            sha.update(file.read_bytes())
    return sha.hexdigest()[:16]
