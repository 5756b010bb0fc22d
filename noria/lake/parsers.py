"""Which reader takes the files of which kind of source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

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


def parser(source: SourceSettings, kind: str | None = None) -> Parser:
    """The reader of a source's files with the source's options; it can be pickled, to run in another process.

    `kind` is that of one file where the files of a source differ, as those of a site do.
    """
    kind = kind or source.kind
    if kind == "xml" and source.record:
        return partial(xml_rows, record=source.record)
    if kind == "html" and source.main:
        return main_sections
    if source.assistants and kind == "chat":
        return partial(chat_rows, assistants=source.assistants)
    if source.assistants and kind == "mbox":
        return partial(mbox_rows, assistants=source.assistants)
    return PARSERS[kind]
