"""What every reader of a source gives: rows, faults and what it left out, with where each began."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One document of a file before it has an id.

    `text` is None for records, whose text is made of their columns. `conversation` groups rows of one dialogue.
    """

    fields: dict[str, str]
    offset: int
    text: str | None = None
    conversation: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that could not be read, for the quarantine."""

    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Skip:
    """Something that was left out on purpose: counted, not a fault."""

    reason: str


Item = Row | Fault | Skip


def section(heading: str, body: str, offset: int, fields: dict[str, str] | None = None) -> Row | Skip:
    """A row of a heading and the text below it; nothing where there is no text."""
    if not body.strip():
        return Skip("section without text")
    text = f"{heading}\n{body}" if heading else body
    return Row({"heading": heading, "body": body, **(fields or {})}, offset, text=text)


_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_SURROGATE = re.compile("[\ud800-\udfff]")


def decode(data: bytes) -> tuple[str, int]:
    """Text of a file, and the length of its byte order mark.

    UTF-8 unless the mark says UTF-16. Bytes that are no text become lone surrogates, which `broken` finds, so that
    one bad byte costs one row and not the file.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            errors = "surrogateescape" if name == "utf-8" else "replace"
            return data[len(mark) :].decode(name, errors), len(mark)
    return data.decode("utf-8", "surrogateescape"), 0


def broken(text: str) -> str | None:
    """Why this text cannot be stored, or None when it can."""
    found = None if text.isascii() else _SURROGATE.search(text)
    if not found:
        return None
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"not valid UTF-8: byte 0x{code - 0xDC00:02x}"
    return f"not valid Unicode: half a surrogate pair (U+{code:04X})"


def size(text: str) -> int:
    """Bytes that a decoded text took in its UTF-8 file."""
    return len(text.encode("utf-8", "surrogateescape"))


def as_text(value: object) -> str:
    """A column's value as a string: nothing for null, JSON for what is nested."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
