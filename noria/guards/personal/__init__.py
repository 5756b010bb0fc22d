"""Personal data in a text: found by pattern, confirmed by check digits, ranges and words, replaced by kind.

Names and places without a postcode need a model: `noria.backends.presidio`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from noria.guards import secrets
from noria.guards.personal import network, numbers, postal
from noria.types import Finding

REACH: Final = 160
"""Characters after its start within which a finding shows: a street address before its postcode is the longest."""
BEHIND: Final = numbers.BEFORE
"""Characters before its start that decide whether something is a finding."""

KINDS: Final = ("email", "phone", "card", "iban", "ip", "ssn", "national_id", "address", "secret", "mac")
"""What the validated pass finds; `mac` only where it is asked for."""

_GATE = re.compile(r"[@\d]|::|[(\[{] ?(?:at|arroba|chiocciola|małpa)\b|PRIVATE KEY", re.IGNORECASE)
"""What every kind holds at least; most texts without personal data end here."""
_ODD = re.compile(r"[\u00a0\u2007\u2009\u202f\u2010\u2011\u2012\u2013\u2212\uff0b-\uff20]")
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u00a0\u2007\u2009\u202f", " "),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
        **{chr(0xFEE0 + code): chr(code) for code in range(0x2B, 0x41)},
    }
)
"""Gaps, hyphens and signs that look like plain ones; a text keeps its length."""


def find(text: str) -> list[Finding]:
    """Personal data and keys in a text, in order and without overlaps.

    Kinds are those of `KINDS` but for `mac`; of secrets those with a maker's prefix and private keys. The score is 1
    where a check digit or an exact form confirms the kind, less where only the form or a word beside it does.
    """
    if not _GATE.search(text):
        return []
    return _apart([*_personal(text), *_secret(secrets.keys(text))])


def find_all(text: str, also: Iterable[str] = ()) -> list[Finding]:
    """As `find`, with every kind of secret (`noria.guards.secrets`); `also` may name `mac`."""
    found = _secret(secrets.find(text))
    if _GATE.search(text):
        found += _personal(text)
        if "mac" in also:
            found += network.macs(text)
    return _apart(found)


def scrub(text: str) -> tuple[str, dict[str, int]]:
    """The text with each finding of `find_all` replaced by its kind, such as `<email>`, and the number of each.

    Doing it twice changes nothing more.
    """
    counts: Counter[str] = Counter()
    # What was taken out may have stood between a number and the word that tells what it is.
    while findings := find_all(text):
        counts.update(counted(findings))
        text = replaced(text, findings, lambda finding, _: f"<{finding.kind}>")
    return text, dict(counts)


def replaced(text: str, findings: Iterable[Finding], by: Callable[[Finding, str], str]) -> str:
    """The text with each finding replaced by what `by` makes of it and of what was found."""
    parts, at = [], 0
    for finding in findings:
        parts += [text[at : finding.start], by(finding, text[finding.start : finding.end])]
        at = finding.end
    return "".join([*parts, text[at:]])


def counted(findings: Iterable[Finding]) -> dict[str, int]:
    """How many of each kind there are."""
    return dict(Counter(finding.kind for finding in findings))


def _personal(text: str) -> list[Finding]:
    if not text.isascii() and _ODD.search(text):
        text = text.translate(_PLAIN)
    return [*network.emails(text), *network.addresses(text), *numbers.find(text), *postal.find(text)]


def _secret(findings: Iterable[Finding]) -> list[Finding]:
    return [each.model_copy(update={"kind": "secret"}) for each in findings]


def _apart(findings: list[Finding]) -> list[Finding]:
    """In order; of overlapping ones the first, and of those that begin together the longest."""
    findings.sort(key=lambda each: (each.start, -each.end))
    apart: list[Finding] = []
    for each in findings:
        if not apart or each.start >= apart[-1].end:
            apart.append(each)
    return apart
