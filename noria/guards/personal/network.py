"""E-mail and network addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from noria.types import Finding

_AT = re.compile(r"@|%40")
_SPELT_AT = re.compile(r"[\[({] ?(?:at|arroba|chiocciola|małpa|@) ?[\])}] ?", re.IGNORECASE)
_LOCAL = re.compile(r"[\w.+%'&-]{1,65}")
_LONGEST_LOCAL = 64
_HOST = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_SPELT = re.compile(
    r"[\w-]{1,63}(?:(?:\.| ?[\[({] ?(?:dot|punkt|point|punto|kropka|\.) ?[\])}] ?)[\w-]{1,63}){1,8}", re.IGNORECASE
)
_IP4 = re.compile(r"[0-9](?<![\w.-][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![\w-]|\.[0-9])")
_IP6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{0,4}|[0-9.]{7,15})(?![\w:])")
_MAC = re.compile(r"(?<![\w:.-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])")
_NUMBERED = re.compile(
    r"(?<![^\W_])(?:vers[iij]\w*|wersj\w*|release|v|ver\.?|sections?|chapter|abschnitt|kapitel|chapitre|cap[ií]tulo"
    r"|capitolo|rozdzia\w*|firmware|build)\s*$|§\s*$",
    re.IGNORECASE,
)
_LINE_START = re.compile(r"(?:^|\n)[ \t]*$")
_BEFORE = 30
_ONES: Final = 2**32 - 1
_SMALL: Final = 30
"""Four numbers below this at the start of a line are taken for the number of a section."""


def emails(text: str) -> Iterator[Finding]:
    """E-mail addresses (RFC 5321, no quoted names), also with the sign spelt in brackets or percent-encoded."""
    if "@" in text or "%40" in text:
        for sign in _AT.finditer(text):
            host = _HOST.match(text, sign.end())
            if host is not None:
                yield from _email(text, sign.start(), sign.end(), host[0], 1.0)
    if "(" in text or "[" in text or "{" in text:
        for sign in _SPELT_AT.finditer(text):
            host = _SPELT.match(text, sign.end())
            if host is not None:
                at = sign.start() - (text[sign.start() - 1 : sign.start()] == " ")
                yield from _email(text, at, sign.end(), host[0], 0.8)


def _email(text: str, at: int, end: int, host: str, score: float) -> Iterator[Finding]:
    """The address whose sign lies between these places, if its parts can be those of one."""
    name = _LOCAL.match(text[max(0, at - _LONGEST_LOCAL - 1) : at][::-1])
    if name is None or len(name[0]) > _LONGEST_LOCAL:
        return
    local = name[0][::-1].lstrip("'&%")
    trimmed = host.rstrip("-.")
    top = re.split(r"\W+", trimmed)[-1]
    if local and not local.startswith(".") and len(top) >= 2 and not top.isdigit() and trimmed != top:
        yield Finding(kind="email", start=at - len(local), end=end + len(trimmed), score=score, rule="email")


def addresses(text: str) -> Iterator[Finding]:
    """IP addresses of both versions (RFC 791, RFC 4291), but for the machine's own and for numbers of versions."""
    if text.count(".") >= 3:
        for match in _IP4.finditer(text):
            before = text[max(0, match.start() - _BEFORE) : match.start()]
            if _ip4(match[0], before, text[match.end() : match.end() + 2]):
                yield Finding(kind="ip", start=match.start(), end=match.end(), score=1.0, rule="ip4")
    if "::" in text or text.count(":") >= 7:
        for match in _IP6.finditer(text):
            if _ip6(match[0]):
                yield Finding(kind="ip", start=match.start(), end=match.end(), score=1.0, rule="ip6")


def macs(text: str) -> Iterator[Finding]:
    """Hardware addresses (IEEE 802): six octets with colons or hyphens."""
    for match in _MAC.finditer(text):
        yield Finding(kind="mac", start=match.start(), end=match.end(), score=0.9, rule="mac")


def _ip4(span: str, before: str, after: str) -> bool:
    try:
        address = IPv4Address(span)
    except AddressValueError:
        return False
    small = all(int(part) < _SMALL for part in span.split("."))
    section = small and _LINE_START.search(before) and re.match(r"\.?[ \t]", after)
    mask = span.startswith("255.") and (int(address) | (int(address) - 1)) == _ONES
    return not (address.is_unspecified or address.is_loopback or mask or _NUMBERED.search(before) or section)


def _ip6(span: str) -> bool:
    try:
        address = IPv6Address(span)
    except AddressValueError:
        return False
    groups = [group for group in span.split(":") if group]
    if len(groups) < 2 or address.is_loopback or not any(letter.isdigit() for letter in span):
        return False
    return "::" not in span or span.startswith("::") or _is_given(int(groups[0], 16))


def _is_given(first: int) -> bool:
    """Whether addresses begin so (IANA's registry of IPv6 address space); names in code, such as `A::B1`, do not."""
    return first in (0x64, 0x100) or 0x2000 <= first < 0x4000 or first >= 0xFC00
