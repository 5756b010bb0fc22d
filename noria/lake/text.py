"""Reader of plain text: one document per paragraph."""

from __future__ import annotations

import re
from collections.abc import Iterator

from noria.lake.rows import Fault, Item, Row, broken, decode, size

_BREAK = re.compile(r"(?>\r\n|\n|\r)(?:[ \t]*(?>\r\n|\n|\r))+")


def paragraphs(data: bytes) -> Iterator[Item]:
    """Paragraphs of a text file, parted by blank lines; the offset is that of the paragraph's first byte."""
    text, offset = decode(data)
    at = 0
    for found in (*_BREAK.finditer(text), None):
        end = found.start() if found else len(text)
        yield from _paragraph(text[at:end], offset)
        after = found.end() if found else len(text)
        offset += size(text[at:after])
        at = after


def _paragraph(raw: str, offset: int) -> Iterator[Item]:
    folded = " ".join(raw.split())
    if not folded:
        return
    start = offset + size(raw[: len(raw) - len(raw.lstrip())])
    if reason := broken(folded):
        yield Fault(start, reason)
    else:
        yield Row({"text": folded}, start, text=folded)
