"""Numbers in a text: bank accounts, cards, national numbers and telephones, each confirmed by what it must fulfil."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from noria.guards.personal import national
from noria.guards.personal.checksums import luhn, mod_97_10
from noria.guards.personal.phones import OTHER, PHONE, phone
from noria.types import Finding

BEFORE: Final = 48
"""Characters before a number that may say what it is."""

_LONGEST = 44
"""Characters of the longest number, with its gaps."""

_DIGITS = re.compile(
    r"[0-9+(](?<![\w.-][0-9+(])"
    r"(?:\+?(?:[ ()./-]{0,3}[0-9]){6,30}|[0-9]{5}[A-FU-Ya-fu-y][0-9]{3}|[ .-]?[0-9]{2}[ .-]?[0-9]{2}[ .-]?2[ABab])"
)
"""Where a number of seven digits or more begins, or one of those with a letter early on."""
_LETTERED = re.compile(r"[0-9](?:(?<=[A-Za-z][0-9])|(?<=[A-Z][ .-][0-9]))(?=[ .-]?[0-9A-Za-z]{1,2}[ .-]?[0-9A-Za-z])")
"""A digit that follows a letter: an account number or a national number with letters in front may hold it."""

_WORDS = re.compile(r"[^\d\n]*")

_FISCAL = re.compile(
    r"[A-Z]{3}[ ]?[A-Z]{3}[ ]?[0-9LMNPQRSTUV]{2}[ABCDEHLMPRST][0-9LMNPQRSTUV]{2}[ ]?[A-Z][0-9LMNPQRSTUV]{3}[ ]?[A-Z]",
    re.IGNORECASE,
)
_ODD = dict(
    zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16,
         10, 22, 25, 24, 23), strict=True)
)  # fmt: skip

_REGISTRY = """
AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BI:27 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DJ:27 DK:18
DO:28 EE:20 EG:29 ES:24 FI:18 FK:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HN:28 HR:21 HU:28 IE:22 IL:23 IQ:23
IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24 ME:22 MK:19 MN:20 MR:27 MT:31 MU:30
NI:28 NL:18 NO:15 OM:23 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 RU:33 SA:24 SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 SO:23
ST:25 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20 YE:30
"""
IBAN_LENGTHS: Final = {part[:2]: int(part[3:]) for part in _REGISTRY.split()}
"""Characters of an account number by country: the IBAN registry (ISO 13616, SWIFT)."""

_NETWORKS = re.compile(
    r"4\d{15}(?:\d{3})?|5[0-8]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|35\d{14}"
    r"|6(?:0\d\d|2\d\d|304|3[7-9]\d|4[4-9]\d|5\d\d|7\d\d)\d{12,15}"
)
"""Visa, Mastercard, American Express, Diners Club, JCB; Discover, UnionPay, Maestro, RuPay, InstaPayment. None has
thirteen digits any more, as the number of an article in a shop has."""
_FORM = str.maketrans("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "9" * 10 + "A" * 52)
"""A number's form: 9 for each digit, A for each letter."""
_SMALL_APART = re.compile(r" [a-z]")
"""A small letter after a space: the next word (`12.000.000 a 15.000.000`) rather than the letter of a number."""
_GAPS = str.maketrans("", "", " .-/+()")

_CARDS = (
    *("9" * length for length in range(14, 20)),
    *(gap.join(parts) for gap in " -." for parts in (
        ("9999",) * 4, ("9999", "9999", "9999", "9999", "999"), ("9999", "999999", "99999"), ("9999", "999999", "9999"),
        ("9999", "9999", "9999", "999"), ("9999", "9999", "9999", "99"),
    )),
)  # fmt: skip


class _Form(NamedTuple):
    rule: national.Rule
    sure: bool
    words: re.Pattern[str]


def _card(compact: str) -> bool:
    """Luhn's digit, and first digits and lengths of networks that are in use (ISO/IEC 7812-1)."""
    return _NETWORKS.fullmatch(compact) is not None and luhn(compact) and len(set(compact)) > 1


_CARD = national.Rule("card", _card, _CARDS, kind="card")


def _forms() -> dict[str, tuple[_Form, ...]]:
    found: dict[str, list[_Form]] = {}
    for rule in (_CARD, *national.RULES):
        alternatives = f"{rule.words}|{national.ANY_WORDS}" if rule.words else national.ANY_WORDS
        words = re.compile(rf"\b(?:{alternatives})[^\d\n]{{0,24}}$")
        for shape in (*rule.sure, *rule.told):
            found.setdefault(shape, []).append(_Form(rule, shape in rule.sure, words))
    return {shape: tuple(forms) for shape, forms in found.items()}


_FORMS: Final = _forms()
_KNOWN: Final = re.compile(
    "(?:"
    + "|".join(re.escape(shape) for shape in sorted(_FORMS, key=lambda each: (-len(each), each)))
    + r")(?![9A_]|[.,-]9|-A)"
)
"""The longest known form at a place, where a number can end: no letter or digit follows, nor a part of a longer one."""
_CARD_SHAPES: Final = frozenset(_CARDS)


def find(text: str) -> Iterator[Finding]:
    """Every confirmed number of a text, those with letters in front first; they may overlap."""
    blocked: list[tuple[int, int]] = []
    yield from _lettered(text, blocked)
    at = 0
    while begin := _DIGITS.search(text, at):
        at = begin.start() + 1
        if any(start <= begin.start() < end for start, end in blocked):
            continue
        found = _shaped(text, begin.start()) or _phone(text, begin.start())
        if isinstance(found, Finding):
            yield found
        if found is not None:
            # A part of a wrong card number is no telephone number; all else that is refused may hide one.
            at = max(at, found.end)


class _Wrong(NamedTuple):
    """What has the form of a card number and is none."""

    end: int


def _shaped(text: str, start: int) -> Finding | _Wrong | None:
    """The longest number of a known form that begins here and is confirmed."""
    tail = text[start : start + _LONGEST]
    form = tail.translate(_FORM)
    known = _KNOWN.match(form)
    shape = known[0] if known else ""
    before: str | None = None
    card = 0
    while shape:
        compact = tail[: len(shape)].translate(_GAPS).upper()
        for rule, sure, words in _FORMS[shape]:
            if not (compact.isascii() and rule.check(compact)):
                continue
            before = _before(text, start) if before is None else before
            if (sure and _stands(rule, tail[: len(shape)], before)) or words.search(before):
                return Finding(kind=rule.kind, start=start, end=start + len(shape), score=rule.score, rule=rule.name)
        card = card or (len(shape) if shape in _CARD_SHAPES else 0)
        shape = _shorter(form, len(shape))
    return _Wrong(start + card) if card else None


def _stands(rule: national.Rule, number: str, before: str) -> bool:
    """Whether a number of a sure shape is believed after these words."""
    return rule.kind == "card" or not (_SMALL_APART.search(number) or OTHER.search(before))


def _shorter(form: str, length: int) -> str:
    """The longest known form below this length, up to a gap; empty where there is none."""
    ends = (end for end in range(length - 1, 6, -1) if form[end] in " /()")
    return next((form[:end] for end in ends if form[:end] in _FORMS), "")


def _before(text: str, start: int) -> str:
    """The words before a number that may say what it is, in lower case: those of its line, up to another number."""
    words = _WORDS.match(text[max(0, start - BEFORE) : start][::-1])
    return words[0][::-1].lower() if words else ""


def _phone(text: str, start: int) -> Finding | None:
    match = PHONE.match(text, start)
    if match is None:
        return None
    if phone(match[0], _before(text, start)):
        return Finding(kind="phone", start=start, end=match.end(), score=0.8, rule="phone")
    return None


def _lettered(text: str, blocked: list[tuple[int, int]]) -> Iterator[Finding]:
    """Numbers that begin with letters; `blocked` gets the spans of account numbers, right and wrong ones."""
    at = 0
    while match := _LETTERED.search(text, at):
        digit = match.start()
        at = digit + 1
        start = _token(text, digit)
        found = _iban(text, start, blocked) if digit - start in (2, 3) else None
        if found is None:
            found = _fiscal(text, digit) if digit - start >= 3 else None
        if found is None and digit - start <= 3:
            shaped = _shaped(text, start)
            found = shaped if isinstance(shaped, Finding) else None
        if found is not None:
            blocked.append((found.start, found.end))
            at = max(at, found.end)
            yield found


def _token(text: str, digit: int) -> int:
    """Where the letters before a digit begin, six at most; one gap may stand between."""
    start = digit - 1 if text[digit - 1].isalnum() else digit - 2
    least = max(0, start - 6)
    while start > least and text[start - 1].isalnum():
        start -= 1
    return start


def _iban(text: str, start: int, blocked: list[tuple[int, int]]) -> Finding | None:
    """The account number that begins here, of its country's length, whatever single gaps it has (ISO 13616)."""
    length = IBAN_LENGTHS.get(text[start : start + 2].upper(), 0)
    if not length or (start and text[start - 1].isalnum()):
        return None
    letters: list[str] = []
    at, gap = start, False
    while len(letters) < length and at < len(text):
        letter = text[at]
        if letter.isascii() and letter.isalnum():
            letters.append(letter.upper())
            gap = False
        elif letter in " -." and not gap:
            gap = True
        else:
            return None
        at += 1
    if len(letters) < length or (at < len(text) and text[at].isalnum()) or not "".join(letters[2:4]).isdigit():
        return None
    if mod_97_10("".join([*letters[4:], *letters[:4]])):
        return Finding(kind="iban", start=start, end=at, score=1.0, rule="iban")
    if sum(letter.isdigit() for letter in letters) > length // 2:
        blocked.append((start, at))
    return None


def _fiscal(text: str, digit: int) -> Finding | None:
    """Codice fiscale: decreto ministeriale 23 December 1976; letters may stand for digits where two would be equal."""
    for start in (digit - 6, digit - 8, digit - 7):
        match = _FISCAL.match(text, start) if start >= 0 else None
        if match is None or (start and text[start - 1].isalnum()) or text[match.end() : match.end() + 1].isalnum():
            continue
        code = match[0].replace(" ", "").upper()
        even = sum(int(letter) if letter.isdigit() else ord(letter) - 65 for letter in code[1:15:2])
        if chr(65 + (even + sum(_ODD[letter] for letter in code[:15:2])) % 26) == code[15]:
            return Finding(kind="national_id", start=start, end=match.end(), score=1.0, rule="it.fiscal")
    return None
