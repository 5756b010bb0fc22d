"""Personal data and secrets in a text: found by pattern, confirmed by check digits and ranges, replaced by kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from noria.types import Finding

REACH: Final = 160
"""Characters after its start within which a finding shows: an e-mail address before its first dot is the longest."""
BEHIND: Final = 48
"""Characters before its start that decide whether something is a finding."""

_GATE = re.compile(r"[@\d]|::|PRIVATE KEY|xox[baprs]-|sk-")
"""What every kind holds at least; most texts without personal data end here."""

_PATTERN = re.compile(
    r"""
    (?<![^\W_])(?=[+(]|\S{0,70}?[\d@:-])  # nothing begins inside a word; plain words end here
    (?:
    (?P<pem>-----BEGIN\ [A-Z ]{0,30}PRIVATE\ KEY-----
        (?:(?:[^-]|-(?!----BEGIN)){0,10000}?-----END\ [A-Z ]{0,30}PRIVATE\ KEY-----|[A-Za-z0-9+/=\s]*))
    |(?P<key>(?<![\w-])(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255}
        |xox[baprs]-[A-Za-z0-9-]{10,255}|sk-[A-Za-z0-9_-]{20,255})(?![\w-]))
    |(?P<email>(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8})
    |(?P<iban>(?<![^\W_])[A-Za-z]{2}\d{2}(?:[ ]?[A-Za-z0-9]{4}){2,7}(?:[ ]?[A-Za-z0-9]{1,4})?(?![^\W_]))
    |(?P<ip6>(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:]))
    |(?P<ip4>(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d))
    |(?P<ssn>(?<![\w.-])\d{3}-\d{2}-\d{4}(?![\w-]|\.\d))
    |(?P<card>(?<![\w.-])(?:\d{13,19}|\d{4}(?P<gap>[ -])\d{4}(?P=gap)\d{4}(?P=gap)\d{1,7}
        |\d{4}[ -]\d{6}[ -]\d{5})(?![\w-]|[.,]\d))
    |(?P<phone>(?<![\w./+-])(?:\+|\(?\+?\d)[\d ()./-]{6,24}\d(?![\w-]|[.,:]\d))
    )
    """,
    re.VERBOSE,
)

_DATE = re.compile(r"\b(?:\d{1,2}[./-]\d{1,2}[./-](?:\d{4}|\d{2})|\d{4}[./-]\d{1,2}[./-]\d{1,2})\b")
_NORTH_AMERICA = re.compile(r"(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}")
_PAIRS = re.compile(r"0[1-9](?:[ .]\d{2}){4}")
_TRUNK = re.compile(r"\(?0[1-9]\d{0,4}\)?(?:[ /-]{1,3}\(?\d{2,8}\)?)+")
"""A national number: a trunk zero, an area code, then groups."""

_PLAIN = re.compile(r"0[1-9]\d{7,12}|\d{10}")
_CALL = re.compile(
    r"(?:phone|tel|telephone|telefon|teléfono|téléphone|mobile|mobil|handy|cell|call|fax|whatsapp|sms|number is"
    r"|rufnummer)"
    r"\W{0,3}(?:no\.?|nr\.?|number|is|me|us|at|on|under)?\W{0,3}(?:at|on)?\W{0,2}$",
    re.IGNORECASE,
)
_OTHER_NUMBER = re.compile(
    r"(?:order|ticket|tracking|parcel|invoice|article|item|part|serial|case|isbn|issn|sku|ref|reference|id"
    r"|bestellnummer|rechnung|sendung)(?:\W{1,3}(?:number|no|nr|id|code))?\W{0,3}$",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"(?:versions?|release|v|ver\.?|sections?|chapter|§)\s*$", re.IGNORECASE)
_LINE_START = re.compile(r"(?:^|\n)[ \t]*$")
_SMALL = 30
"""Four numbers below this at the start of a line are taken for the number of a section."""

_BEFORE = 30


def find(text: str) -> list[Finding]:
    """Personal data in a text, in order and without overlaps.

    Kinds: email, phone, card (Luhn, ISO/IEC 7812), iban (ISO 13616), ip, ssn (US) and secret. The score is 1 where
    a check digit or an exact form confirms the kind, less where only the form does.
    """
    if not _GATE.search(text):
        return []
    found: list[Finding] = []
    at = 0
    while match := _PATTERN.search(text, at):
        finding = _confirmed(match, text)
        if finding:
            found.append(finding)
        at = finding.end if finding else _after_refusal(match)
    return found


def scrub(text: str) -> tuple[str, dict[str, int]]:
    """The text with each finding replaced by its kind, such as `<email>`, and how many of each kind there were.

    Doing it twice changes nothing more.
    """
    findings = find(text)
    parts, at = [], 0
    for finding in findings:
        parts += [text[at : finding.start], f"<{finding.kind}>"]
        at = finding.end
    return "".join([*parts, text[at:]]), dict(Counter(finding.kind for finding in findings))


def _after_refusal(match: re.Match[str]) -> int:
    """Where to go on: a part of a wrong card or account number is no telephone number, all else may hide one."""
    whole = match["card"] or (match["iban"] if match["iban"] and match["iban"][2:].replace(" ", "").isdigit() else None)
    return match.end() if whole else match.start() + 1


def _confirmed(match: re.Match[str], text: str) -> Finding | None:
    rule = next(name for name in _CHECKS if match[name] is not None)
    for name, (kind, score, check) in _CHECKS.items():
        # A span that fails as one kind of number may still be another: 16 digits that are no card.
        if name != rule and not (rule in _NUMBERS and name in _NUMBERS):
            continue
        end = check(
            match[0], text[max(0, match.start() - _BEFORE) : match.start()], text[match.end() : match.end() + 2]
        )
        if end:
            return Finding(kind=kind, start=match.start(), end=match.start() + end, score=score, rule=name)
    return None


def _email(span: str, before: str, after: str) -> int:
    trimmed = span.rstrip("-.")
    local, _, host = trimmed.partition("@")
    top = host.rpartition(".")[2]
    good = not local.startswith(".") and len(top) >= 2 and not top.isdigit() and "." in host
    return len(trimmed) if good else 0


def _whole(span: str, before: str, after: str) -> int:
    return len(span)


def _iban(span: str, before: str, after: str) -> int:
    """Length of the longest run of groups that passes modulo 97; a following word may stand at the end."""
    while span:
        plain = span.replace(" ", "").upper()
        if 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1:
            return len(span)
        span = span.rpartition(" ")[0]
    return 0


def _ip4(span: str, before: str, after: str) -> int:
    if span.count(".") != 3:
        return 0
    try:
        address = IPv4Address(span)
    except AddressValueError:
        return 0
    small = all(int(part) < _SMALL for part in span.split("."))
    section = small and _LINE_START.search(before) and re.match(r"\.?[ \t]", after)
    return 0 if address.is_unspecified or address.is_loopback or _NUMBERED.search(before) or section else len(span)


def _ip6(span: str, before: str, after: str) -> int:
    try:
        address = IPv6Address(span)
    except AddressValueError:
        return 0
    groups = [group for group in span.split(":") if group]
    return len(span) if len(groups) >= 2 and any(c.isdigit() for c in span) and not address.is_loopback else 0


def _ssn(span: str, before: str, after: str) -> int:
    area, group, serial = span[:3], span[4:6], span[7:]
    if len(span) != 11 or not re.fullmatch(r"\d{3}-\d{2}-\d{4}", span):
        return 0
    return 0 if area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000" else len(span)


def _card(span: str, before: str, after: str) -> int:
    digits = re.sub(r"[ -]", "", span)
    if not (digits.isascii() and digits.isdigit() and 13 <= len(digits) <= 19 and digits[0] in "3456"):
        return 0
    doubled = [int(d) * (1 + at % 2) for at, d in enumerate(reversed(digits))]
    return len(span) if sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0 else 0


def _phone(span: str, before: str, after: str) -> int:
    if _PAIRS.fullmatch(span):
        return len(span)
    digits = sum(c.isdigit() for c in span)
    if not 8 <= digits <= 15:
        return 0
    abroad = span.startswith(("+", "(+")) or (span.startswith("00") and not span.startswith("000") and " " in span)
    if not (abroad or _NORTH_AMERICA.fullmatch(span) or (digits >= 9 and _TRUNK.fullmatch(span))) and not (
        _PLAIN.fullmatch(span) and _CALL.search(before)
    ):
        return 0
    return 0 if _DATE.search(span) or _OTHER_NUMBER.search(before) else len(span)


_CHECKS: dict[str, tuple[str, float, Callable[[str, str, str], int]]] = {
    "pem": ("secret", 1.0, _whole),
    "key": ("secret", 1.0, _whole),
    "email": ("email", 1.0, _email),
    "iban": ("iban", 1.0, _iban),
    "ip6": ("ip", 1.0, _ip6),
    "ip4": ("ip", 1.0, _ip4),
    "ssn": ("ssn", 0.9, _ssn),
    "card": ("card", 1.0, _card),
    "phone": ("phone", 0.8, _phone),
}
"""Rule to kind, score and check: how many characters of the span are it, 0 for none, given what stands around."""

_NUMBERS = frozenset({"ip4", "ssn", "card", "phone"})
