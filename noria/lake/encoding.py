"""Encodings of text files: what the file says, UTF-8, or what can be told with confidence; never a bold guess."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{2,40})|^\s*<\?xml[^>]{0,100}?encoding\s*=\s*["']([\w.:-]{2,40})""",
    re.IGNORECASE,
)
_OTHER = ("cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp932", "euc_jp", "gb18030", "big5", "cp949")
_LATIN = ("cp1252", "cp1250", "iso8859_2", "cp1254")
_LETTERS = (
    "äöüß",
    "àâæçéèêëîïôœùûüÿ",
    "áéíóúüñªº",
    "àéèìíîòóùú",
    "ãõáéíóúâêôàç",
    "åäöéüæøó",
    "áðéíóúýþæö",
    "ąćęłńóśźż",
    "áčďéěíňóřšťúůýžäĺľŕô",
    "áéíóöőúüű",
    "čćđšž",
    "ăâîșşțţ",
    "çğıiöşüâîû",
)
"""Letters beside a to z of German, French, Spanish, Italian, Portuguese, the Nordic languages, Icelandic, Polish, Czech
with Slovak, Hungarian, Croatian, Romanian and Turkish."""
_SIGNS = frozenset("“”„‘’‚–—…«»‹›€£°§©®™·•¿¡\u00a0½¼¾²³×±")

ENOUGH = 8
"""Bytes that are no ASCII without which nothing can be told."""
LEAD = 0.05
"""By how much the likeliest encoding must be less chaotic than the next one."""
SPARSE = 0.06
"""Share of accented letters below which a text that may be Western or Central European is taken for a Western one."""
_SAMPLE = 1 << 16


@dataclass(slots=True)
class Recoder:
    """Turns the pieces of one text file into UTF-8; `name` is the encoding found.

    With `declaring` a file that names its encoding is left to its reader. Bytes that are no UTF-8 stay where the
    encoding cannot be told with confidence: each then costs its row.
    """

    given: str | None
    declaring: bool
    name: str = ""
    change: str = ""
    """The encoding to turn into UTF-8, where that is to be done."""
    mark: bytes = b""
    """The byte order mark of a file that is turned into UTF-8."""

    def start(self, head: bytes) -> None:
        """Look at the file's beginning: a byte order mark, a declared charset."""
        marked = next(((mark, name) for mark, name in _BOMS if head.startswith(mark)), None)
        found = _DECLARED.search(head[:4096]) if self.declaring else None
        if self.given:
            self.name = self.change = codecs.lookup(self.given).name
        elif marked:
            self.name = marked[1]
            self.mark, self.change = marked if marked[1] != "utf-8" else (b"", "")
        elif found:
            declared = _known((found[1] or found[2]).decode("ascii", "replace"))
            # A page that says UTF-8 is looked at all the same: many say so and are not.
            self.name = declared if declared not in ("utf-8", "utf-16") else ""

    @property
    def whole(self) -> bool:
        """Whether the file must not be cut at bytes, because a character has more than one of any value."""
        return self.name.startswith(("utf-16", "utf-32"))

    def utf8(self, piece: bytes) -> bytes:
        """The piece in UTF-8, or as it is where nothing better is known."""
        if not self.name:
            try:
                piece.decode("utf-8")
            except UnicodeDecodeError:
                self.name = self.change = guess(piece) or ""
        if not self.change or self.change == "utf-8":
            return piece
        text = piece.removeprefix(self.mark).decode(self.change, "replace").removeprefix("\ufeff")
        # A mark beats what a page says of itself, which is no longer so.
        return (codecs.BOM_UTF8 if self.declaring else b"") + text.encode()

    def told(self) -> str:
        """The encoding for the counts."""
        return self.name or "utf-8"


def _known(name: str) -> str:
    """The standard name of an encoding of texts, empty for what is none."""
    try:
        "a".encode(name)
    except LookupError:
        return ""
    return codecs.lookup(name).name


def guess(data: bytes) -> str | None:
    """The encoding of bytes that are not valid UTF-8, or None when none is certain enough.

    A text with more valid UTF-8 characters than broken bytes is UTF-8 with faults. Encodings with letters of their
    own (Cyrillic, Greek, Chinese, …) are told by charset-normalizer's measure of chaos; Latin ones, which it confuses,
    by whether all their letters are those of one language.
    """
    sample = _sample(data)
    text = sample.decode("utf-8", "surrogateescape")
    bad = sum("\udc80" <= letter <= "\udcff" for letter in text)
    if bad < ENOUGH or sum(letter > "\x7f" for letter in text) - bad >= bad or b"\x00" in sample:
        return None
    plain = sum("a" <= letter <= "z" for letter in text.lower())
    return _latin(sample) if plain > bad else _other(sample)


def _sample(data: bytes) -> bytes:
    """Lines with bytes that are no ASCII, as many as are needed."""
    lines = (line for line in data.splitlines(keepends=True) if not line.isascii())
    sample = bytearray()
    for line in lines:
        sample += line[:_SAMPLE]
        if len(sample) >= _SAMPLE:
            break
    return bytes(sample)


def _latin(sample: bytes) -> str | None:
    likely: dict[str, str] = {}
    for name in _LATIN:
        try:
            text = sample.decode(name)
        except UnicodeDecodeError:
            continue
        if _of_one_language(text):
            likely.setdefault(text, name)
    names = list(likely.values())
    if len(names) <= 1:
        return names[0] if names else None
    letters = [letter for letter in sample.decode("cp1252", "ignore") if letter.isalpha()]
    high = sum(letter > "\x7f" for letter in letters)
    return "cp1252" if "cp1252" in names and high < SPARSE * len(letters) else None


def _of_one_language(text: str) -> bool:
    letters = {letter.lower()[0] for letter in set(text) - _SIGNS if letter > "\x7f"}
    return any(letters <= set(alphabet) for alphabet in _LETTERS)


def _other(sample: bytes) -> str | None:
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return None
    found: Sequence[tuple[float, str]] = sorted(
        (match.chaos, match.encoding)
        for match in from_bytes(sample, cp_isolation=list(_OTHER), preemptive_behaviour=False, enable_fallback=False)
    )
    if not found or found[0][0] > 0.1 or (len(found) > 1 and found[1][0] - found[0][0] < LEAD):
        return None
    return found[0][1]
