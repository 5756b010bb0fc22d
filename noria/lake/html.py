"""Reader of web pages: one document per section, with its heading and its body."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from noria.errors import Unavailable
from noria.lake.rows import Fault, Item, Row, Skip, broken, decode

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

LINKS_ONLY = 0.9
"""A section with at least this share of its letters in links is a list of links, not a text."""

_HEADINGS = frozenset({"h1", "h2", "h3", "h4"})
_LEFT_OUT = frozenset(
    {"nav", "footer", "script", "style", "noscript", "template", "form", "button", "select", "iframe", "svg", "canvas"}
    | {"object", "audio", "video", "head"}
)
_ROLES = frozenset({"navigation", "banner", "contentinfo", "search"})
_BOILERPLATE = re.compile(
    r"nav(?:bar|header|footer|igation|-[\w-]+)?|toc|table-of-contents|(?:side|top)?menu|breadcrumbs?|sidebar"
    r"|(?:site-|page-)?footer|site-header|cookie[\w-]*|pagination|pager|skip-?(?:link|nav|to)[\w-]*|share|social[\w-]*"
    r"|headerlink|banner|advert[\w-]*",
    re.IGNORECASE,
)
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "center", "details", "dialog", "div", "fieldset", "figure"}
    | {"figcaption", "header", "h5", "h6", "hgroup", "hr", "html", "main", "p", "section", "summary"}
    | {"dl", "dt", "dd", "li", "ol", "ul", "menu"}
    | {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
)
_NUMBER = re.compile(
    r"(?:(?:chapter|appendix|part|section|kapitel|anhang|abschnitt|chapitre|annexe|capítulo|capitolo|hoofdstuk)\s+)?"
    r"(?:\d+(?:\.\d+)*(?:[.):]\s+|\u00a0\s*)|\d+(?:\.\d+)+\s+(?=[^\W\d_]))",
    re.IGNORECASE,
)
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{0,500})</title>", re.IGNORECASE)
_PERMALINK = re.compile(r"\s*[¶#§]\s*$")


def sections(data: bytes) -> Iterator[Item]:
    """Sections of a page: each heading h1 to h4 opens one, and its body ends at the next heading.

    A page without any such heading is one section under its title. Navigation, headers, footers, scripts and what
    their classes name as boilerplate are left out; sections without text, and those that only link, are skipped.
    The offset is the section's number on the page.
    """
    text = _decode(data)
    if reason := broken(text):
        yield Fault(0, reason)
        return
    page = _parser()(text)
    root = page.css_first("main") or page.css_first("[role=main]") or page.body
    if root is None:
        yield Skip("page without a body")
        return
    walk = _Walk()
    walk.run(root)
    found = walk.sections
    if len(found) == 1:
        title = page.css_first("title")
        found[0].heading = title.text() if title is not None else ""
        yield from _item(found[0], 0)
        return
    for number, section in enumerate(found[1:]):
        yield from _item(section, number)


def main_sections(data: bytes) -> Iterator[Item]:
    """Sections of a page's main text as trafilatura finds it, for pages of unknown make; ours where it is missing.

    It leaves out about half of the text and takes a hundred times as long. The offset is the section's number.
    """
    try:
        from trafilatura import extract
    except ImportError:
        yield Skip("main text not looked for: pip install 'noria[web]'")
        yield from sections(data)
        return
    text = _decode(data)
    if reason := broken(text):
        yield Fault(0, reason)
        return
    found = extract(text, output_format="html", include_formatting=True, include_tables=True, include_comments=False)
    if not found:
        yield Skip("page without main text")
        return
    title = _TITLE.search(text)
    yield from sections(f"<title>{title[1] if title else ''}</title>{found}".encode())


def plain_text(page: str) -> str:
    """All text of a page in reading order, as of an e-mail; what it quotes is left out."""
    parser = _parser()(page)
    for node in parser.css("blockquote, .gmail_quote"):
        node.decompose()
    if parser.body is None:
        return ""
    walk = _Walk()
    walk.run(parser.body)
    return "\n".join(line for part in walk.sections for line in (part.heading, *part.lines) if line)


def clean_heading(text: str) -> str:
    """A heading without its number, no-break spaces and the sign of a permanent link."""
    text = _NUMBER.sub("", text.strip(), count=1) if _NUMBER.match(text.strip()) else text
    return " ".join(_PERMALINK.sub("", text).split())


def _parser() -> type[LexborHTMLParser]:
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError as error:
        raise Unavailable("the reader of web pages is not installed", "pip install 'noria[data]'") from error
    return LexborHTMLParser


def _item(section: _Section, number: int) -> Iterator[Item]:
    heading, body = clean_heading(section.heading), "\n".join(section.lines)
    if not body:
        yield Skip("section without text")
    elif section.linked >= LINKS_ONLY * section.letters:
        yield Skip("section of links")
    else:
        text = f"{heading}\n{body}" if heading else body
        yield Row({"heading": heading, "body": body}, number, text=text)


def _decode(data: bytes) -> str:
    found = None if data.startswith(codecs.BOM_UTF8) else _CHARSET.search(data[:4096])
    name = found[1].decode("ascii", "replace") if found else "utf-8"
    if name.lower().replace("-", "") not in ("utf8", "utf16"):
        try:
            return data.decode(name, "replace")
        except LookupError:
            pass
    return decode(data)[0]


@dataclass(slots=True)
class _Section:
    heading: str
    lines: list[str] = field(default_factory=list)
    letters: int = 0
    linked: int = 0
    """Characters of the lines without bullets, and those of them that are links."""

    def add(self, line: str, prefix: str = "") -> None:
        self.lines.append(prefix + line)
        self.letters += len(line)


class _Walk:
    """Walks a page in reading order and gathers lines under the heading they stand below."""

    def __init__(self) -> None:
        self.sections = [_Section("")]
        self._inline: list[str] = []
        self._prefix = ""
        self._links = 0
        self._lists: list[int | None] = []

    def run(self, root: LexborNode) -> None:
        """Visit `root`; an explicit stack, because pages may be nested deeper than Python's."""
        stack: list[tuple[LexborNode, bool]] = [(root, True)]
        while stack:
            node, entering = stack.pop()
            if not entering:
                self._leave(node)
                continue
            if self._enter(node):
                stack.append((node, False))
                children = list(node.iter(include_text=True))
                stack.extend((child, True) for child in reversed(children))
        self._flush()

    def _enter(self, node: LexborNode) -> bool:
        """Take in one node; whether to go on with its children and to leave it afterwards."""
        tag = node.tag or ""
        if node.is_text_node:
            self._say(node.text_content or "")
            return False
        if _left_out(node):
            return False
        if tag in _HEADINGS:
            self._head(node)
            return False
        if tag == "pre":
            self._flush()
            self._add_lines(_text(node))
            return False
        if tag == "table" and node.css_first("h1, h2, h3, h4, td table") is None:
            self._flush()
            self._table(node)
            return False
        if tag == "br":
            self._flush()
            return False
        if tag in _BLOCKS:
            self._flush()
        if tag in ("ol", "ul", "menu"):
            self._lists.append(0 if tag == "ol" else None)
        elif tag == "li":
            self._prefix = self._bullet()
        elif tag == "a":
            self._links += 1
        return True

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag in _BLOCKS:
            self._flush()
        if tag in ("ol", "ul", "menu"):
            self._lists.pop()
        elif tag == "li":
            self._prefix = ""
        elif tag == "a":
            self._links -= 1

    def _bullet(self) -> str:
        if not self._lists or self._lists[-1] is None:
            return "- "
        self._lists[-1] += 1
        return f"{self._lists[-1]}. "

    def _say(self, text: str) -> None:
        self._inline.append(text)
        if self._links:
            self.sections[-1].linked += len(" ".join(text.split()))

    def _flush(self) -> None:
        line = " ".join("".join(self._inline).split())
        self._inline.clear()
        if line:
            self.sections[-1].add(line, self._prefix)
            self._prefix = ""

    def _head(self, node: LexborNode) -> None:
        self._flush()
        if text := _text(node).strip():
            self.sections.append(_Section(text))

    def _add_lines(self, text: str) -> None:
        for line in text.splitlines():
            if folded := " ".join(line.split()):
                self.sections[-1].add(folded)

    def _table(self, node: LexborNode) -> None:
        here = self.sections[-1]
        for row in node.css("tr"):
            cells = [" ".join(_text(cell).split()) for cell in row.css("td, th")]
            if line := " | ".join(cell for cell in cells if cell):
                here.add(line)
        here.linked += sum(len(" ".join(_text(link).split())) for link in node.css("a"))


def _text(node: LexborNode) -> str:
    """All text below a node, without what is left out of pages anywhere."""
    parts: list[str] = []
    stack = [node]
    while stack:
        here = stack.pop()
        if here.is_text_node:
            parts.append(here.text_content or "")
        elif here.tag == "br":
            parts.append("\n")
        elif here is node or not _left_out(here):
            stack.extend(reversed(list(here.iter(include_text=True))))
    return "".join(parts)


def _left_out(node: LexborNode) -> bool:
    tag = node.tag or ""
    if tag in _LEFT_OUT or node.is_comment_node:
        return True
    if tag == "header" and (node.parent is None or node.parent.tag not in ("article", "section", "main")):
        return True
    if tag in ("html", "body", "main") or tag in _HEADINGS:
        return False
    marks = node.attributes
    if "hidden" in marks or marks.get("aria-hidden") == "true" or marks.get("role") in _ROLES:
        return True
    names = f"{marks.get('class') or ''} {marks.get('id') or ''}".split()
    return any(_BOILERPLATE.fullmatch(name) for name in names)
