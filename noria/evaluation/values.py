"""What stands for a value in a text: numbers with their units, and dates, however they are written."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number; `unit` is the one that its kind is counted in (metres for all lengths) and `size` its own in these."""

    number: float
    unit: str = ""
    size: float = 1.0


@dataclass(frozen=True, slots=True)
class Day:
    """A date; without a year where none is written, without a day where a month is meant."""

    year: int | None
    month: int
    day: int | None


Atom = str | Quantity | Day
"""What a text is compared by: its values, and the text between them."""

_KINDS: dict[str, dict[float, str]] = {
    "m": {
        1e-3: "mm millimetre millimetres millimeter millimeters", 1e-2: "cm centimetre centimetres zentimeter",
        1.0: "m metre metres meter meters mètre mètres metro metros", 0.3048: "ft foot feet",
        0.0254: "inch inches zoll", 0.9144: "yard yards", 1609.344: "mile miles meile meilen milla millas",
        1e3: "km kilometre kilometres kilometer kilometers kilomètre kilomètres kilómetro kilómetros",
    },
    "kg": {
        1e-6: "mg milligram milligrams milligramm", 1e-3: "g gram grams gramm gramme grammes gramo gramos",
        1.0: "kg kilo kilos kilogram kilograms kilogramm kilogramme kilogrammes kilogramo kilogramos",
        1e3: "t tonne tonnes", 0.45359237: "lb lbs pound pounds", 0.028349523125: "oz ounce ounces",
    },
    "s": {
        1e-3: "ms millisecond milliseconds millisekunden",
        1.0: "s sec second seconds sekunde sekunden seconde secondes "
        "segundo segundos", 60.0: "min minute minutes minuten minuto minutos",
        3600.0: "h hr hrs hour hours stunde stunden heure heures hora horas", 86400.0: "d day days tag tage tagen jour "
        "jours día días dia dias giorno giorni", 604800.0: "week weeks woche wochen semaine semaines semana semanas",
    },
    "month": {
        1.0: "month months monat monate monaten mois mes meses mese mesi",
        12.0: "year years jahr jahre jahren an ans année années año años anno anni",
    },
    "l": {1e-3: "ml millilitre millilitres milliliter", 1e-2: "cl", 1.0: "l litre litres liter liters litro litros"},
    "byte": {
        1.0: "byte bytes", 1e3: "kb", 1e6: "mb", 1e9: "gb", 1e12: "tb",
        1024.0: "kib", 1024.0**2: "mib", 1024.0**3: "gib", 1024.0**4: "tib",
    },
    "%": {1.0: "% percent prozent pourcent percento"},
    "°c": {1.0: "°c celsius"},
    "eur": {1.0: "€ eur euro euros"}, "usd": {1.0: "$ usd dollar dollars"}, "gbp": {1.0: "£ gbp"},
    "jpy": {1.0: "¥ jpy yen"},
}  # fmt: skip
_UNITS = {
    word: (unit, size) for unit, sizes in _KINDS.items() for size, words in sizes.items() for word in words.split()
}

_MONTHS = [
    ("january", "jan", "januar", "jänner", "janvier", "janv", "enero", "gennaio", "janeiro", "januari", "января"),
    ("february", "feb", "februar", "février", "févr", "febrero", "febbraio", "fevereiro", "februari", "февраля"),
    ("march", "mar", "märz", "mrz", "mars", "marzo", "março", "maart", "марта"),
    ("april", "apr", "avril", "avr", "abril", "abr", "aprile", "апреля"),
    ("may", "mai", "mayo", "maggio", "mag", "maio", "mei", "мая"),
    ("june", "jun", "juni", "juin", "junio", "giugno", "giu", "junho", "июня"),
    ("july", "jul", "juli", "juillet", "juil", "julio", "luglio", "lug", "julho", "июля"),
    ("august", "aug", "août", "agosto", "augustus", "августа"),
    ("september", "sep", "sept", "septembre", "septiembre", "settembre", "setembro", "сентября"),
    ("october", "oct", "oktober", "okt", "octobre", "octubre", "ottobre", "ott", "outubro", "октября"),
    ("november", "nov", "novembre", "noviembre", "novembro", "ноября"),
    ("december", "dec", "dezember", "dez", "décembre", "déc", "diciembre", "dic", "dicembre", "dezembro", "декабря"),
]  # fmt: skip
_MONTH = "|".join(sorted((name for names in _MONTHS for name in names), key=len, reverse=True))
_NUMBERED = r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d{2})"
_NAMED = (
    rf"\d{{1,2}}(?:st|nd|rd|th|er|\.|º)?\s*(?:de\s+|of\s+)?(?:{_MONTH})\b\.?(?:,?\s*(?:de\s+)?\d{{4}})?"
    rf"|(?:{_MONTH})\b\.?\s*(?:\d{{1,2}}(?:st|nd|rd|th)?\b(?!\d|[.,]\d)(?:,?\s*\d{{4}})?|(?:de\s+)?\d{{4}})"
)
_DATE = re.compile(rf"(?<![\w.,/-])(?:{_NUMBERED}|{_NAMED})(?![\w/-]|[.,]\d)")
_EAST = re.compile(r"(\d{4})\s*[年년]\s*(\d{1,2})\s*[月월]\s*(\d{1,2})\s*[日일]")
_NUMBER = re.compile(
    r"(?P<before>[€$£¥]|\b(?:eur|usd|gbp|jpy)\b)?\s?(?<![\w.,])(?P<sign>(?<!\w)[-+−])?"
    r"(?P<digits>\d{1,3}(?:[.,'’ ]\d{3})+(?!\d)(?:[.,]\d+)?|\d+(?:[.,]\d+)?)(?![.,]?\d)"
    r"(?:\s?(?P<after>[€$£¥%]|°c\b|[^\W\d_]+))?"
)
_MOST_DIGITS = 15
"""A number of more digits than a float holds is the number of something: it is compared as a word."""
_DEFAULTS = datetime(2000, 1, 1, tzinfo=UTC), datetime(2004, 1, 2, tzinfo=UTC)
"""Leap years, so that 29 February is a date without its year."""


def atoms(text: str, decimal: Literal[".", ","], month_first: bool) -> Iterator[Atom]:
    """A text as its numbers, its dates and what stands between them, in lower case and NFKC.

    Args:
        text: in any language; units and names of months are known in English, German, French, Spanish, Italian and
            (months only) Portuguese, Dutch and Russian.
        decimal: what a sign before exactly three digits is read as, where nothing else in the number tells.
        month_first: how `03/04/2026` is read.
    """
    folded = _EAST.sub(r" \1-\2-\3 ", unicodedata.normalize("NFKC", text).casefold())
    at = 0
    for found in _DATE.finditer(folded):
        day = _day(found[0], month_first)
        if day is not None:
            yield from _quantities(folded[at : found.start()], decimal)
            yield day
            at = found.end()
    yield from _quantities(folded[at:], decimal)


def _quantities(text: str, decimal: str) -> Iterator[Atom]:
    at = 0
    for found in _NUMBER.finditer(text):
        if sum(letter.isdecimal() for letter in found["digits"]) > _MOST_DIGITS:
            continue
        after = found["after"]
        unit, size = _UNITS.get(found["before"] or after or "", ("", 1.0))
        known = after is not None and after in _UNITS and not found["before"]
        end = found.end("after") if known else found.end("digits")
        yield text[at : found.start()]
        number = _number(found["digits"], decimal)
        yield Quantity(-number if found["sign"] in ("-", "−") else number, unit, size)
        at = end
    yield text[at:]


def _number(digits: str, decimal: str) -> float:
    """`1,234.5`, `1.234,5`, `1 234,5` and `1'234.5` are the same number."""
    bare = re.sub("['’ ]", "", digits)
    marks = [letter for letter in bare if letter in ".,"]
    point = marks[-1] if marks else ""
    if bare == digits and len(set(marks)) == 1:
        # With one kind of sign only: several of it group thousands, and one may, where three digits follow.
        groups = len(marks) > 1 or (re.fullmatch(r"[1-9]\d{0,2}[.,]\d{3}", bare) and point != decimal)
        point = "" if groups else point
    return float(
        "".join("." if letter == point else letter for letter in bare if letter == point or letter not in ".,")
    )


@functools.cache
def _parser() -> Callable[..., datetime | None]:
    """Reads a date, by dateutil; None for what is none."""
    from dateutil.parser import ParserError, parser, parserinfo

    class Months(parserinfo):  # type: ignore[misc]
        MONTHS = _MONTHS
        JUMP = (*parserinfo.JUMP, "er", "º", "de")

    known = parser(Months())

    def read(text: str, default: datetime, day_first: bool, year_first: bool) -> datetime | None:
        try:
            found: datetime = known.parse(text, default=default, dayfirst=day_first, yearfirst=year_first)
        except (ParserError, OverflowError):
            return None
        return found

    return read


def _day(text: str, month_first: bool) -> Day | None:
    """A date; what the text leaves open is what changes with the default."""
    year_first = text[:4].isdecimal()
    day_first = not year_first and ("." in text or not month_first)
    one, other = (_parser()(text, default, day_first, year_first) for default in _DEFAULTS)
    if one is None or other is None:
        return None
    return Day(one.year if one.year == other.year else None, one.month, one.day if one.day == other.day else None)
