"""Reader of PDF: the text layer, one document per heading where the outline or the type shows them, else per page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median
from typing import TYPE_CHECKING

from noria.errors import Unavailable
from noria.lake.html import clean_heading
from noria.lake.rows import Fault, Item, Skip, broken, section

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

LARGER = 1.15
"""Type that is this much larger than most of the text is a heading's."""

_LONGEST_HEADING = 200
_REPEATED = 3
"""A line at the edge of this many pages, with other numbers, is a header or footer."""

_HYPHEN = re.compile("[\ufffe\u00ad\x02](?:\r?\n)?")
_CONTENTS = re.compile(r"[^\n]{0,300}?(?:\. ?){4,}+\s?[\divxlc]{0,8}")
_BULLET = re.compile(r"[•‣◦▪–—*-]\s|\(?\d{1,3}[.)]\s")
_DIGITS = re.compile(r"\d+|\b[ivxlc]+\b")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a page: its size of type, and the tops of its first and last letter, in points from below.

    The two tops differ where a word is divided: PDFium then joins the two lines.
    """

    text: str
    size: float
    top: float
    last: float
    page: int


def pdf_rows(data: bytes) -> Iterator[Item]:
    """Sections or pages of a PDF with the field `page`; the offset is the page's number, from 1.

    Headings are those of the outline where most are found on their pages, else lines in larger type; without
    either every page is a document. Headers, footers and tables of contents are left out, as is text before the
    first heading. Encrypted files and those without a text layer are faults; forms and pictures are not read.
    """
    try:
        import pypdfium2
    except ImportError as error:
        raise Unavailable("the reader of PDF is not installed", "pip install 'noria[data]'") from error
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        locked = "password" in str(error).lower()
        yield Fault(0, "the PDF is encrypted: it needs a password" if locked else f"not a valid PDF: {error}")
        return
    try:
        pages, faults = _pages(document)
        outline = _outline(document)
    finally:
        document.close()
    yield from faults
    if not any(pages):
        if not faults:
            yield Fault(0, "the PDF has no text layer: its pages are pictures, or empty; run OCR on it first")
        return
    for number, page in enumerate(pages, 1):
        if not page and not any(fault.offset == number for fault in faults):
            yield Skip("page without text")
    pitch = _pitch([line for page in pages for line in page])
    lines = [line for page in _without_edges(pages, pitch) for line in page if not _CONTENTS.fullmatch(line.text)]
    headings = _by_outline(lines, outline) or _by_type(lines)
    if headings and min(headings):
        yield Skip("text before the first heading")
    for heading, below, first in _sections(lines, headings) if headings else _by_page(lines):
        yield _row(heading, below, first, pitch)


def _pages(document: PdfDocument) -> tuple[list[list[Line]], list[Fault]]:
    from pypdfium2 import PdfiumError

    pages: list[list[Line]] = []
    faults: list[Fault] = []
    for number in range(1, len(document) + 1):
        try:
            pages.append(_lines(document, number))
        except PdfiumError as error:
            faults.append(Fault(number, f"page {number} cannot be read: {error}"))
            pages.append([])
    return pages, faults


def _lines(document: PdfDocument, number: int) -> list[Line]:
    from pypdfium2 import raw

    text = document[number - 1].get_textpage()
    lines: list[Line] = []
    at = 0
    whole = text.get_text_range()
    # Indices count UTF-16 units, so that characters past U+FFFF would shift all places after them.
    exact = len(whole) == text.count_chars()
    for line in whole.split("\r\n"):
        words = " ".join(_HYPHEN.sub("", line).replace("\x00", "").split())
        if words:
            start = at + len(line) - len(line.lstrip())
            if exact:
                first, last = (text.get_charbox(place, loose=True)[3] for place in (start, at + len(line.rstrip()) - 1))
                kind = round(raw.FPDFText_GetFontSize(text, start), 1)
            else:
                first = last = -float(len(lines))
                kind = 0.0
            lines.append(Line(words, kind, first, last, number))
        at += len(line) + 2
    return lines


def _outline(document: PdfDocument) -> list[tuple[int, str]]:
    """Page and title of each bookmark."""
    from pypdfium2 import PdfiumError

    found: list[tuple[int, str]] = []
    try:
        for bookmark in document.get_toc():
            target = bookmark.get_dest()
            page = target.get_index() if target is not None else None
            if page is not None:
                found.append((page + 1, bookmark.get_title()))
    except PdfiumError:
        return []
    return found


def _without_edges(pages: list[list[Line]], pitch: float) -> list[list[Line]]:
    """Pages without headers and footers: what stands apart at an edge, and repeats or has one height everywhere."""
    for last in (False, True):
        edges = [_edge(page, last, pitch) for page in pages]
        same = Counter(_pattern(edge) for edge in edges if edge)
        height = _height(edges, pages, last, pitch)
        for number, edge in enumerate(edges):
            if edge and (same[_pattern(edge)] >= _REPEATED or (height is not None and abs(edge[0].top - height) < 1.5)):
                pages[number] = pages[number][: -len(edge)] if last else pages[number][len(edge) :]
    return pages


def _edge(page: list[Line], last: bool, pitch: float) -> list[Line]:
    """The lines at an edge, three at most, that a gap parts from the rest; the outermost comes first."""
    ordered = page[::-1] if last else page
    for number, (line, following) in enumerate(pairwise(ordered[:4]), 1):
        gap = following.last - line.top if last else line.last - following.top
        if gap > 1.3 * pitch:
            return ordered[:number]
    return []


def _pattern(edge: list[Line]) -> str:
    return _DIGITS.sub("#", " ".join(line.text.lower() for line in edge))


def _height(edges: list[list[Line]], pages: list[list[Line]], last: bool, pitch: float) -> float | None:
    """The height at which half of the pages have an edge that is far from the rest: running heads differ in text."""
    gaps: dict[float, list[float]] = {}
    for edge, page in zip(edges, pages, strict=True):
        if edge and len(page) > len(edge):
            beside = page[-len(edge) - 1] if last else page[len(edge)]
            gaps.setdefault(float(round(edge[0].top)), []).append(abs(edge[-1].top - beside.top))
    if not gaps:
        return None
    height, found = max(gaps.items(), key=lambda gap: len(gap[1]))
    return height if len(found) >= max(_REPEATED, len(pages) / 2) and median(found) >= 1.8 * pitch else None


def _pitch(lines: Sequence[Line]) -> float:
    """Points from one line to the next, where they are closest most often."""
    steps = Counter(
        round(2 * (before.last - line.top)) / 2
        for before, line in pairwise(lines)
        if before.page == line.page and before.last > line.top
    )
    return min(steps, key=lambda step: (-steps[step], step)) if steps else 0.0


def _by_outline(lines: Sequence[Line], outline: list[tuple[int, str]]) -> dict[int, int]:
    """Index of each heading's first line to that past its last one, where most bookmarks stand on their page."""
    found: dict[int, int] = {}
    by_page: dict[int, list[int]] = {}
    for index, line in enumerate(lines):
        by_page.setdefault(line.page, []).append(index)
    for page, title in outline:
        wanted = _letters(title)
        for index in by_page.get(page, []):
            if wanted and index not in found and (end := _ends(lines, index, wanted)):
                found[index] = end
                break
    return found if len(found) >= 2 and len(found) * 2 >= len(outline) else {}


def _ends(lines: Sequence[Line], index: int, wanted: str) -> int | None:
    """Past which line a title ends that starts at `index`, or None when another text stands there."""
    said = ""
    for end in range(index, min(index + 6, len(lines))):
        said += lines[end].text
        if _letters(said) == wanted:
            return end + 1
        if len(_letters(said)) > len(wanted):
            break
        said += " "
    return None


def _letters(text: str) -> str:
    return "".join(letter for letter in clean_heading(text).casefold() if letter.isalnum())


def _by_type(lines: Sequence[Line]) -> dict[int, int]:
    """Headings by size of type: runs of lines in one size that is larger than that of most of the text."""
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[line.size] += len(line.text)
    usual = sizes.most_common(1)[0][0] if sizes else 0.0
    found: dict[int, int] = {}
    open_at: int | None = None
    for index, line in enumerate(lines):
        large = usual > 0 and line.size >= LARGER * usual and any(letter.isalpha() for letter in line.text)
        if not large or len(line.text) > _LONGEST_HEADING:
            open_at = None
        elif open_at is not None and lines[index - 1].size == line.size and lines[index - 1].page == line.page:
            found[open_at] = index + 1
        else:
            open_at, found[index] = index, index + 1
    return found if len(found) >= 2 else {}


def _sections(lines: Sequence[Line], headings: dict[int, int]) -> Iterator[tuple[str, Sequence[Line], int]]:
    starts = sorted(headings)
    for start, following in zip(starts, [*starts[1:], len(lines)], strict=True):
        end = headings[start]
        heading = clean_heading(" ".join(line.text for line in lines[start:end]))
        yield heading, lines[end:following], lines[start].page


def _by_page(lines: Sequence[Line]) -> Iterator[tuple[str, Sequence[Line], int]]:
    for page, found in groupby(lines, key=lambda line: line.page):
        yield "", list(found), page


def _row(heading: str, lines: Sequence[Line], page: int, pitch: float) -> Item:
    body = "\n".join(_paragraphs(lines, pitch))
    if reason := broken(heading) or broken(body):
        return Fault(page, reason)
    return section(heading, body, page, {"page": str(page)})


def _paragraphs(lines: Sequence[Line], pitch: float) -> Iterator[str]:
    """Lines joined into paragraphs, which begin after a gap and at the marks of lists."""
    words: list[str] = []
    before: Line | None = None
    for line in lines:
        if before is not None and (_BULLET.match(line.text) or _parted(before, line, pitch)):
            yield " ".join(words)
            words = []
        words.append(line.text)
        before = line
    if words:
        yield " ".join(words)


def _parted(before: Line, line: Line, pitch: float) -> bool:
    if before.page != line.page:
        return before.text.endswith((".", "!", "?", ":", "。", "？", "！"))
    return before.last < line.top or before.last - line.top > 1.3 * pitch
