"""Reading a multipart/form-data body piece by piece (RFC 7578), so that a large file is never in memory as a whole."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from noria.errors import Invalid

HEAD_BYTES: Final = 16 * 1024
"""The longest headers of one part, and the most that may stand before the first one."""
PARTS: Final = 32
_BOUNDARY = re.compile(rb'multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))', re.I)
_PARAMETER = re.compile(r';\s*([\w*-]{1,40})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s"]*))')


@dataclass(frozen=True, slots=True)
class Part:
    """The beginning of a part: the field's name and, of a file, what the client calls it."""

    name: str
    filename: str | None = None


Event = Part | bytes
"""A part begins, or a piece of its value comes."""


class Form:
    """Takes a body as it arrives. What it keeps is never longer than what was fed last plus HEAD_BYTES."""

    def __init__(self, content_type: bytes) -> None:
        """Find the boundary in the header; raises Invalid."""
        found = _BOUNDARY.match(content_type.strip())
        if found is None:
            raise Invalid("the body is not multipart/form-data with a boundary", "send a form: curl -F file=@…")
        self._mark = b"\r\n--" + (found[1] or found[2])
        # The first boundary has no line end before it when nothing stands before it.
        self._held = b"\r\n"
        self._state: Literal["before", "mark", "head", "value", "end"] = "before"
        self._parts = 0
        self._skipped = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """What is complete with this piece of the body; raises Invalid."""
        self._held += data
        while True:
            if self._state in ("before", "value"):
                piece, found = self._until_mark()
                if piece and self._state == "value":
                    yield piece
                self._skipped += len(piece) if self._state == "before" else 0
                if self._skipped > HEAD_BYTES:
                    raise Invalid("the form has no boundary at its beginning", "send multipart/form-data")
                if not found:
                    return
                self._state = "mark"
            elif self._state == "mark":
                if not self._after_mark():
                    return
            elif self._state == "head":
                head, found_end, rest = self._held.partition(b"\r\n\r\n")
                if len(head) > HEAD_BYTES:
                    raise Invalid("the headers of a part are too long", f"at most {HEAD_BYTES} bytes")
                if not found_end:
                    return
                self._held, self._state = rest, "value"
                self._parts += 1
                if self._parts > PARTS:
                    raise Invalid(f"the form has more than {PARTS} parts", "send file and purpose")
                yield _part(head)
            else:
                self._held = b""
                return

    def close(self) -> None:
        """The body is over; raises Invalid when the form is not."""
        if self._state != "end":
            raise Invalid("the form broke off before its last boundary", "send it again")

    def _until_mark(self) -> tuple[bytes, bool]:
        """What stands before the next boundary, and whether that has come."""
        at = self._held.find(self._mark)
        if at >= 0:
            piece, self._held = self._held[:at], self._held[at + len(self._mark) :]
            return piece, True
        sure = max(0, len(self._held) - len(self._mark) + 1)
        piece, self._held = self._held[:sure], self._held[sure:]
        return piece, False

    def _after_mark(self) -> bool:
        """Whether it is known what follows a boundary: another part, or nothing."""
        if len(self._held) < 2:
            return False
        if self._held.startswith(b"--"):
            self._state = "end"
            return True
        line, found, rest = self._held.partition(b"\r\n")
        padding = line if found else line.rstrip(b"\r")
        if padding.strip(b" \t") or len(line) > HEAD_BYTES:
            raise Invalid("the boundary is followed by something else", "send multipart/form-data")
        if found:
            self._held, self._state = rest, "head"
        return bool(found)


def _part(head: bytes) -> Part:
    for line in head.split(b"\r\n"):
        name, _, value = line.decode(errors="replace").partition(":")
        if name.strip().lower() != "content-disposition" or not value.strip().lower().startswith("form-data"):
            continue
        said = {each[1].lower(): _unquoted(each[2]) if each[2] is not None else each[3]
                for each in _PARAMETER.finditer(value)}  # fmt: skip
        if "name" in said:
            return Part(said["name"], _filename(said))
    raise Invalid("a part of the form has no name", 'each needs: content-disposition: form-data; name="…"')


def _unquoted(text: str) -> str:
    # Browsers and the URL standard write a quote as %22, older clients as \".
    return text.replace('\\"', '"').replace("%22", '"')


def _filename(said: dict[str, str]) -> str | None:
    extended = said.get("filename*", "")
    if extended.lower().startswith("utf-8''"):
        return _plain(urllib.parse.unquote(extended[7:], errors="replace"))
    found = said.get("filename")
    return None if found is None else _plain(found)


def _plain(name: str) -> str:
    """A file's name without folders and control characters; it is only ever shown."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(each for each in last if each.isprintable())[:255] or "file"
