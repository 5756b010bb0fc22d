"""Telephone numbers, in the forms in which they are written: ITU-T E.123 and E.164, and the national ones of EU
states, the United Kingdom and North America.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

PHONE: Final = re.compile(r"(?<![\w./+-])(?:\+|\(?\+?\d)[\d ()./-]{5,24}\d(?![\w-]|[.,:]\d)")
_DATE = re.compile(r"\b(?:\d{1,2}[./-]\d{1,2}[./-](?:\d{4}|\d{2})|\d{4}[./-]\d{1,2}[./-]\d{1,2})\b")
_YEARS = re.compile(r"(?:1[89]|20)\d\d ?[-/] ?(?:1[89]|20)\d\d")
_NORTH_AMERICA = re.compile(r"(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}")
_PAIRS = re.compile(r"0[1-9]([ .-])\d{2}(?:\1\d{2}){3}")
_TRUNK = re.compile(r"\(?0[1-9]\d{0,4}\)?(?:[ ./-]{1,3}\(?\d{2,8}\)?)+")
"""A national number: a trunk zero, an area code, then groups."""
_NO_TRUNK = re.compile(
    r"[6-9]\d{2}(?:[ .-]\d{2}){3}|[1-9]\d[ .-]\d{3}(?:[ .-]\d{2}){2}|3[1-9]\d[ .-]?\d{3} \d{4}|3[1-9]\d[ .-]\d{6,7}"
)
"""As in Spain, Poland and Italy, grouped as no amount of money is."""
_MOBILE = re.compile(r"0[67]\d{8}|07\d{9}|01[567]\d{8,9}")
"""Mobile numbers without a gap, as in France, the Netherlands, Romania, Great Britain and Germany."""
_ABROAD = re.compile(r"00(?:[17][ ()./-]*[2-9]|[2-689]\d)[\d ()./-]+")
"""The only countries of one digit are 1 and 7, and no area of theirs begins with 0 or 1 (ITU-T E.164, annex D)."""
_ARTICLE = re.compile(r"[1-9]\d{12}")
"""Thirteen digits without a gap: the number of an article in a shop (GS1), whatever word stands before it."""
_MORE = re.compile(r"\+\d{1,3}(?:[ .]\d{3})*[ .]000")
"""A round amount with its sign, in thousands: `+100 000 000`."""

_CALL_WORDS = (
    r"tele(?:ph|f|fon|phon)\w*|téléphon\w*|teléfono\w*|tel|phone\w*|tlf|tfno|tél|mob(?:ile?|il)?\w*|móvil|handy\w*"
    r"|cell(?!es?\b)\w*|cel|call(?:ed|ing)?|ring|dial|reach|text|fax|whatsapp|sms|number is"
    r"|(?:ruf)?nummer (?:ist|lautet)|rufnummer|anruf\w*|rufen|ruf|durchwahl|portable|appel\w*|joindre|joignable|fixe"
    r"|numéro (?:est|de)|ll[aá]m\w*|número (?:es|de)|cellulare|chiam\w*|numero (?:è|di)|recapito|komórk\w*|zadzwo\w*"
    r"|dzwoni\w*|numer|kom|erreich\w*|contacto?|kontakt\w*|contatt\w*|contacter"
)
CALL: Final = re.compile(rf"\b(?:{_CALL_WORDS})\b[^\d\n]{{0,24}}$")
"""Words that announce a telephone number, before it, in lower case."""
OTHER: Final = re.compile(
    r"\b(?:orders?|ticket|tracking|parcel|invoice|article|item|part|serial|case|isbn|issn|ean|gtin|sku|ref"
    r"|reference|version|build|bestell\w*|auftrag\w*|rechnung\w*|sendung\w*|artikel\w*|vorgang\w*|serien\w*|commande"
    r"|facture|colis|suivi|article|référence|série|pedido|factura|envío|artículo|referencia|serie|ordine|fattura"
    r"|spedizione|articolo|riferimento|zamówieni\w*|faktur\w*|paczk\w*|przesyłk\w*|artykuł\w*|seryjny)"
    r"(?:\W{1,3}(?:number|no|nr|id|code|nummer|numéro|número|numero|numer|n°|nº|is|ist|de|est|es|è|to|lautet)){0,2}"
    r"\W{0,3}$"
)
"""Words that announce another number, in lower case."""
_ID_WORD = re.compile(r"\bid\W{0,3}$")


def phone(span: str, before: str) -> bool:
    """Whether what looks like a telephone number is one, given what stands before it, in lower case."""
    digits = sum(map(str.isdigit, span))
    if not 7 <= digits <= 15:
        return False
    formed = digits >= 8 and _formed(span, digits)
    if (not formed and not CALL.search(before)) or _ARTICLE.fullmatch(span) or _is_count(span):
        return False
    if _PAIRS.fullmatch(span):
        return not OTHER.search(before)
    return not (_DATE.search(span) or _YEARS.fullmatch(span) or OTHER.search(before) or _ID_WORD.search(before))


def _is_count(span: str) -> bool:
    """Whether its groups count up, as in a list: `001 002 003`."""
    groups = re.split(r"\D+", span)
    steps = {int(after) - int(before) for before, after in pairwise(groups) if before and after}
    return len(groups) > 2 and steps == {1} and len(set(map(len, groups))) == 1


def _formed(span: str, digits: int) -> bool:
    """Whether its form alone tells a telephone number from others."""
    if span.startswith(("+", "(+")):
        return _MORE.fullmatch(span) is None
    return bool(
        (digits < len(span) and _ABROAD.fullmatch(span))
        or _NORTH_AMERICA.fullmatch(span)
        or (digits >= 9 and _TRUNK.fullmatch(span))
        or _NO_TRUNK.fullmatch(span)
        or _MOBILE.fullmatch(span)
        or _PAIRS.fullmatch(span)
    )
