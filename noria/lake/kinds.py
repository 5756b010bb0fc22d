"""What a file is, by its name and its first bytes, and which of its columns are question and answer."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

EXTENSIONS: Mapping[str, str] = {
    ".csv": "csv",
    ".docx": "docx",
    ".htm": "html",
    ".html": "html",
    ".json": "json",
    ".jsonl": "jsonl",
    ".markdown": "markdown",
    ".mbox": "mbox",
    ".md": "markdown",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pdf": "pdf",
    ".tab": "tsv",
    ".text": "text",
    ".tsv": "tsv",
    ".txt": "text",
    ".xhtml": "html",
    ".xml": "xml",
    ".yaml": "yaml",
    ".yml": "yaml",
}
"""Kind of source by the end of a file's name, where the content does not say better."""

PAGES = frozenset({"docx", "html", "markdown", "pdf", "text"})
"""Kinds whose files are alike: all of a folder are one source. Tables of one kind may have other columns each."""

HEAD = 1 << 16
_MAGIC = (
    (re.compile(rb"%PDF-"), "pdf"),
    (re.compile(rb"PAR1"), "parquet"),
    (re.compile(rb"SQLite format 3\0"), "sql"),
    (re.compile(rb"ARROW1"), "huggingface"),
    (re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html[\s>])", re.IGNORECASE), "html"),
    (re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml"), "xml"),
    (re.compile(rb"From \S+.*\d{4}\r?\n"), "mbox"),
)
_TURNS = re.compile(rb'"(?:messages|conversations)"\s*:\s*\[\s*\{')
_WHATSAPP = re.compile(
    r"[\u200e\ufeff]*\[?\d{1,4}[./-]\d{1,2}[./-]\d{1,4},? "
    r"\d{1,2}[:.]\d{2}(?:[:.]\d{2})?(?:\s?[ap]\.?m\.?)?(?:\]| -) .+?:",
    re.IGNORECASE,
)
_QUESTIONS = ("question", "prompt", "query", "instruction", "heading", "title", "frage", "pregunta", "domanda")
_ANSWERS = (
    "answer",
    "response",
    "completion",
    "reply",
    "output",
    "body",
    "antwort",
    "réponse",
    "respuesta",
    "risposta",
)
_CONVERSATIONS = ("conversation", "conversation_id", "chat", "chat_id", "thread", "thread_id", "session", "session_id")
FILLED = 0.9
"""Share of the rows in which question and answer must stand, or most rows would end in quarantine."""


def kind_of(file: Path) -> str | None:
    """The kind of a file, or None for one that none of noria's readers takes.

    Content goes before name: a page that is called `.txt` is a page, a database is `sql` however it is called.
    """
    with file.open("rb") as stream:
        head = stream.read(HEAD)
    if not head.strip():
        return None
    if head.startswith(b"PK\x03\x04"):
        return _archive(file)
    for magic, kind in _MAGIC:
        if magic.match(head):
            return EXTENSIONS.get(file.suffix.lower(), kind) if kind in ("xml", "mbox") else kind
    named = EXTENSIONS.get(file.suffix.lower())
    if named in ("json", "jsonl"):
        return "chat" if _TURNS.search(head) else _json(head)
    if named == "text" and _WHATSAPP.match(head.decode("utf-8", "replace")):
        return "chat"
    return named


def map_of(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The columns that are evidently question and answer (and conversation), or nothing."""
    if not rows:
        return {}
    question = _first(_QUESTIONS, rows)
    answer = _first(_ANSWERS, rows)
    if question is None or answer is None:
        return {}
    conversation = _first(_CONVERSATIONS, rows)
    return {"question": question, "answer": answer, **({"conversation": conversation} if conversation else {})}


def _first(names: Iterable[str], rows: Sequence[Mapping[str, str]]) -> str | None:
    columns = {column.strip().casefold(): column for column in rows[0]}
    for name in names:
        column = columns.get(name)
        if column and sum(bool(row.get(column, "").strip()) for row in rows) >= FILLED * len(rows):
            return column
    return None


def _archive(file: Path) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return None
    if "word/document.xml" in names:
        return "docx"
    slack = names & {"users.json", "channels.json"}
    return "chat" if slack or any(name.endswith("chat.txt") for name in names) else None


def _json(head: bytes) -> str:
    """Whether there is one value in the file, or one on each line."""
    lines = [line for line in head.split(b"\n", 2)[:2] if line.strip()]
    try:
        first = json.loads(lines[0])
    except ValueError:
        return "json"
    return "jsonl" if isinstance(first, dict) and (len(lines) == 1 or lines[1].lstrip()[:1] == b"{") else "json"
