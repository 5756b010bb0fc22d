"""Output that harms whoever shows or runs it: active HTML, script addresses, images that carry data out, payloads.

What to expect of it. An assistant that teaches HTML, SQL or the shell writes such things rightly: there the guard
belongs on `flag`, or off. `exfiltration` asks for an image (or `img`) at another host whose address carries a query or
a long opaque part: pictures with a size or a signature in their query are found too. See OWASP LLM05 (improper output
handling) and Rehberger, 2023, on Markdown images in chat clients.
"""

from __future__ import annotations

import re
from typing import Final

from noria.types import Finding

REACH: Final = 320
"""Characters after its start within which a finding shows."""
BEHIND: Final = 320
"""Characters before its start that decide whether something is a finding."""

_ALT = 300
"""Longest description of an image that is looked back over."""
_HINTS: Final = (
    "<", "script", "data", "](", "rm ", "curl", "wget", "base64", ":()", "/dev/", "/bin/", "=", "drop", "truncate",
    "alter", "union", "xp_cmdshell", "waitfor", "shutdown",
)  # fmt: skip
"""Of these every finding holds one at least, in lower case."""

_PATTERN = re.compile(
    r"""
    (?P<html><[ ]{0,2}/?(?:script|iframe|object|embed|applet|base|meta[ ]+http-equiv|form|frame)\b[^<>]{0,300}>?)
    |(?P<handler><[a-z][a-z0-9]{0,15}\b(?=[^<>]{0,250}[\s/"']on[a-z]{3,20}[ ]{0,3}=)[^<>]{0,300}>?)
    |(?P<url>(?<![a-z])(?:javascript|vbscript|livescript)[ ]{0,2}:(?![ ])[^\s"'<>)]{1,200}
        |(?<![a-z])data[ ]{0,2}:[ ]{0,2}(?:text/html|image/svg\+xml|application/xhtml\+xml)[^\s"'<>)]{0,200})
    |(?P<image>\]\([ ]{0,3}<?https?://[^\s()<>]{1,2000})
    |(?P<tag><img\b[^<>]{0,100}\bsrc[ ]{0,3}=[ ]{0,3}["']?https?://[^\s"'<>]{1,160}\?[^\s"'<>]{1,1000})
    |(?P<shell>\brm[ ]{1,4}-[a-z]{0,6}(?:rf|fr)[a-z]{0,6}[ ]{1,4}(?:--[a-z-]{1,20}[ ]{1,4})?["']?[/~*$.]\S{0,80}
        |\b(?:curl|wget)[ ][^\n|;&]{1,200}\|[ ]{0,3}(?:sudo[ ]{1,3})?(?:ba|z|da|k)?sh\b
        |\bbase64[ ]{1,3}(?:-d|--decode|-D)[^\n|;&]{0,80}\|[ ]{0,3}(?:ba|z|da)?sh\b
        |:\(\)[ ]{0,2}\{[ ]{0,2}:[ ]{0,2}\|[ ]{0,2}:[ ]{0,2}&[ ]{0,2}\}[ ]{0,2};
        |/dev/(?:tcp|udp)/[\w.-]{1,80}/\d{1,5}
        |\bdd[ ][^\n]{0,100}\bof=/dev/[a-z]{2,12}
        |\bmkfs(?:\.[a-z0-9]{2,6})?[ ]{1,3}[^\n]{0,40}/dev/[a-z0-9]{2,12}
        |\bn(?:c|cat)[ ][^\n]{0,80}[ ]-[a-z]{0,3}e[ ]{1,3}/bin/(?:ba)?sh)
    |(?P<sql>['"][ ]{0,4}(?:or|and)[ ]{1,4}(?:'[^'\n]{0,20}'|"[^"\n]{0,20}"|\d{1,6})[ ]{0,3}=[ ]{0,3}['"]?\w{1,20}
        |['"]?[ ]{0,3};[ ]{0,3}(?:drop|truncate|alter)[ ]{1,4}(?:table|database|schema)\b[^\n;]{0,60}
        |\bunion[ ]{1,4}(?:all[ ]{1,4})?select\b[^\n;]{1,120}
        |\bxp_cmdshell\b
        |;[ ]{0,3}(?:waitfor[ ]{1,3}delay|shutdown[ ]{0,3}--)[^\n;]{0,40})
    """,
    re.VERBOSE | re.IGNORECASE,
)
_KINDS: Final = {
    "html": "html",
    "handler": "html",
    "url": "script_url",
    "image": "exfiltration",
    "tag": "exfiltration",
    "shell": "shell",
    "sql": "sql",
}
_SCORES: Final = {"html": 0.9, "handler": 0.9, "url": 0.9, "image": 0.8, "tag": 0.8, "shell": 0.8, "sql": 0.7}
_OPAQUE = re.compile(r"/[A-Za-z0-9+=_-]{48}")


def find(text: str) -> list[Finding]:
    """Unsafe output in a text, in order and without overlaps: html, script_url, exfiltration, shell and sql.

    Time is linear in the length of the text.
    """
    if not any(map(text.lower().__contains__, _HINTS)):
        return []
    found: list[Finding] = []
    for match in _PATTERN.finditer(text):
        rule = match.lastgroup or ""
        if rule == "image" and not (_carries(match[0]) and _pictures(text, match.start())):
            continue
        found.append(Finding(kind=_KINDS[rule], start=match.start(), end=match.end(), score=_SCORES[rule], rule=rule))
    return found


def _carries(address: str) -> bool:
    """Whether an address has room for what was said: a query with a value, or a long opaque part."""
    return "=" in address.partition("?")[2] or _OPAQUE.search(address[:400]) is not None


def _pictures(text: str, at: int) -> bool:
    """Whether the brackets that close at `at` belong to an image, whose address is loaded without a click."""
    return text.rfind("![", max(0, at - _ALT), at) > text.rfind("\n\n", max(0, at - _ALT), at)
