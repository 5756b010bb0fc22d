"""Reader of Word documents: one document per section, with its heading and its body."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from noria.errors import Unavailable
from noria.lake.archive import Archive, Unreadable
from noria.lake.html import clean_heading
from noria.lake.rows import Fault, Item, Skip, broken, section

if TYPE_CHECKING:
    from docx.document import Document
    from docx.table import Table
    from docx.text.paragraph import Paragraph
    from lxml.etree import _Element

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_LEFT_OUT = frozenset(
    {f"{_W}del", f"{_W}moveFrom", f"{_W}txbxContent", f"{_W}instrText"}
    | {"{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"}
)
_HEADING = re.compile(r"(?:Heading [1-4]|Title)", re.IGNORECASE)


def docx_rows(data: bytes) -> Iterator[Item]:
    """Sections of a DOCX file: each heading of levels 1 to 4 opens one; the offset is the section's number.

    Tables become lines of cells, list items lines with a hyphen. Headers, footers, comments and what was deleted
    under tracked changes are left out, as is text before the first heading; a file without headings is one section.
    """
    try:
        Archive(data)
        sections = _sections(_open(data))
    except Unreadable as error:
        yield Fault(0, str(error))
        return
    for number, (heading, lines) in enumerate(sections):
        body = "\n".join(lines)
        if reason := broken(heading) or broken(body):
            yield Fault(number, reason)
        elif number or len(sections) == 1:
            yield section(heading, body, number)
        elif body:
            yield Skip("text before the first heading")


def _open(data: bytes) -> Document:
    try:
        import docx
        from docx.opc.exceptions import OpcError
        from lxml.etree import LxmlError
    except ImportError as error:
        raise Unavailable("the reader of DOCX is not installed", "pip install 'noria[data]'") from error
    try:
        return docx.Document(io.BytesIO(data))
    except (OpcError, LxmlError, KeyError, ValueError, AttributeError, IndexError, TypeError, AssertionError) as error:
        raise Unreadable(f"not a valid DOCX file: {type(error).__name__}: {error}") from error
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise Unreadable(f"not a valid DOCX file: {error}") from error


def _sections(document: Document) -> list[tuple[str, list[str]]]:
    from docx.table import Table

    found: list[tuple[str, list[str]]] = [("", [])]
    try:
        for block in document.iter_inner_content():
            if isinstance(block, Table):
                found[-1][1].extend(_table(block))
            elif text := " ".join(_text(block._p).split()):
                if _HEADING.fullmatch(_style(block)):
                    found.append((clean_heading(text), []))
                else:
                    found[-1][1].append(f"- {text}" if _is_item(block) else text)
    except (KeyError, ValueError, AttributeError, IndexError, TypeError) as error:
        raise Unreadable(f"not a valid DOCX file: {type(error).__name__}: {error}") from error
    return found


def _style(paragraph: Paragraph) -> str:
    return (paragraph.style.name if paragraph.style is not None else None) or ""


def _is_item(paragraph: Paragraph) -> bool:
    properties = paragraph._p.pPr
    return _style(paragraph).startswith("List") or (properties is not None and properties.numPr is not None)


def _table(table: Table) -> Iterator[str]:
    for row in table._tbl.tr_lst:
        cells = [" ".join(_text(cell).split()) for cell in row.tc_lst]
        if line := " | ".join(cell for cell in cells if cell):
            yield line


def _text(element: _Element) -> str:
    """All text below an element, insertions under tracked changes too, which python-docx leaves out."""
    parts: list[str] = []
    stack: list[_Element] = [element]
    while stack:
        here = stack.pop()
        if here.tag == f"{_W}t":
            parts.append(here.text or "")
        elif here.tag in (f"{_W}tab", f"{_W}br", f"{_W}cr") or (here.tag == f"{_W}p" and here is not element):
            parts.append(" ")
        if here.tag not in _LEFT_OUT:
            stack.extend(reversed(here))
    return "".join(parts)
