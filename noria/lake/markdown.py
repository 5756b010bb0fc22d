"""Reader of Markdown: one document per section, with its heading and its body."""

from __future__ import annotations

import re
from collections.abc import Iterator

from noria.lake.html import clean_heading
from noria.lake.rows import Fault, Item, Skip, broken, decode, section, size

_LONGEST_HEADING = 1000

_HEADING = re.compile(r" {0,3}#{1,4}(?=[ \t]|$)")
_CLOSING = re.compile(r"(?:^|(?<=[ \t]))#+$")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-{2,})[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[^`]*")
_NO_PARAGRAPH = re.compile(r"\s*(?:[>#|]|[-*+]\s|\d+[.)]\s)|(?: {4}|\t)")
_FRONT = re.compile(r"(?:---|\+\+\+)[ \t]*\r?\n.*?^(?:---|\.\.\.|\+\+\+)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*(?:\s+\"[^\"]*\")?\)")
_ANCHOR = re.compile(r"\s*\{[#.][^{}]*\}\s*$")
_EMPHASIS = re.compile(r"(\*{1,3}|`+|~~)(\S(?:.*?\S)?)\1")


def markdown_rows(data: bytes) -> Iterator[Item]:
    """Sections of a Markdown file: each heading of levels 1 to 4 opens one; the offset is its heading's first byte.

    Bodies stay Markdown, code blocks and tables as they are (CommonMark 0.31). Front matter and comments are left
    out, as is text before the first heading; a file without headings is one section.
    """
    text, offset = decode(data)
    if front := _FRONT.match(text):
        offset += size(front[0])
        text = text[front.end() :]
    found = list(_sections(text, offset))
    for number, (heading, lines, start) in enumerate(found):
        body = "".join(lines).strip()
        if reason := broken(heading) or broken(body):
            yield Fault(start, reason)
        elif number or len(found) == 1:
            if heading or body:
                yield section(heading, body, start)
        elif body:
            yield Skip("text before the first heading")


def plain_heading(text: str) -> str:
    """A heading without its marks, number and anchor."""
    text = _EMPHASIS.sub(r"\2", _LINK.sub(r"\1", _ANCHOR.sub("", text)))
    return clean_heading(text)


def _sections(text: str, offset: int) -> Iterator[tuple[str, list[str], int]]:
    """Heading, lines and first byte of each section, the first one being what stands before any heading."""
    heading, lines, start = "", [], offset
    fence: str | None = None
    hidden = False
    before: tuple[str, int] | None = None
    for raw in text.splitlines(keepends=True):
        at = offset
        offset += size(raw)
        line, hidden = (raw, False) if fence is not None else _uncommented(raw, hidden)
        bare = line.rstrip("\r\n")
        if fence is not None or _FENCE.fullmatch(bare):
            fence = _fence(bare, fence)
            lines.append(line)
            before = None
        elif len(bare) <= _LONGEST_HEADING and (found := _HEADING.match(bare)):
            yield heading, lines, start
            heading, lines, start = plain_heading(_CLOSING.sub("", bare[found.end() :].strip())), [], at
            before = None
        elif before is not None and _UNDERLINE.fullmatch(bare):
            yield heading, lines[:-1], start
            heading, lines, start = plain_heading(before[0]), [], before[1]
            before = None
        else:
            # Only a paragraph of one line is taken as an underlined heading: a rule after text is a rule.
            alone = not lines or not lines[-1].strip()
            lines.append(line)
            short = alone and bare.strip() and len(bare) <= _LONGEST_HEADING and not _NO_PARAGRAPH.match(bare)
            before = (bare, at) if short else None
    yield heading, lines, start


def _uncommented(line: str, hidden: bool) -> tuple[str, bool]:
    """A line without what stands in comments, and whether it ends within one; `hidden` if it begins so."""
    parts: list[str] = []
    at = 0
    while True:
        mark = "-->" if hidden else "<!--"
        found = line.find(mark, at)
        if not hidden:
            parts.append(line[at:] if found < 0 else line[at:found])
        if found < 0:
            return "".join(parts), hidden
        at, hidden = found + len(mark), not hidden


def _fence(line: str, fence: str | None) -> str | None:
    """The open fence after a line: a block ends at a fence of its kind that is at least as long."""
    mark = line.strip()
    if fence is None:
        found = _FENCE.fullmatch(line)
        return found[1] if found else None
    return None if mark and set(mark) == {fence[0]} and len(mark) >= len(fence) else fence
