"""Reader of Markdown: one document per section, with its heading and its body."""

from __future__ import annotations

import re
from collections.abc import Iterator

from noria.lake.html import clean_heading
from noria.lake.rows import Fault, Item, Skip, broken, decode, section, size

_HEADING = re.compile(r" {0,3}(#{1,4})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-{2,})[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[^`]*")
_NO_PARAGRAPH = re.compile(r"\s*(?:[>#|]|[-*+]\s|\d+[.)]\s)|(?: {4}|\t)")
_FRONT = re.compile(r"(?:---|\+\+\+)[ \t]*\r?\n.*?^(?:---|\.\.\.|\+\+\+)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
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
        body = _without_comments("".join(lines)).strip()
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
    before: tuple[str, int] | None = None
    for line in text.splitlines(keepends=True):
        bare, at = line.rstrip("\r\n"), offset
        offset += size(line)
        if fence is not None or _FENCE.fullmatch(bare):
            fence = _fence(bare, fence)
            lines.append(line)
            before = None
        elif found := _HEADING.fullmatch(bare):
            yield heading, lines, start
            heading, lines, start = plain_heading(found[2] or ""), [], at
            before = None
        elif before is not None and _UNDERLINE.fullmatch(bare):
            yield heading, lines[:-1], start
            heading, lines, start = plain_heading(before[0]), [], before[1]
            before = None
        else:
            lines.append(line)
            # Only a paragraph of one line is taken as an underlined heading: a rule after text is a rule.
            alone = len(lines) < 2 or not lines[-2].strip()
            before = (bare, at) if alone and bare.strip() and not _NO_PARAGRAPH.match(bare) else None
    yield heading, lines, start


def _fence(line: str, fence: str | None) -> str | None:
    """The open fence after a line: a block ends at a fence of its kind that is at least as long."""
    mark = line.strip()
    if fence is None:
        found = _FENCE.fullmatch(line)
        return found[1] if found else None
    return None if mark and set(mark) == {fence[0]} and len(mark) >= len(fence) else fence


def _without_comments(text: str) -> str:
    parts = re.split(r"(^ {0,3}(?:```|~~~).*?^ {0,3}(?:```|~~~)[`~]*[ \t]*$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if number % 2 else _COMMENT.sub("", part) for number, part in enumerate(parts))
