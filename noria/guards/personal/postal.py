"""Street addresses that a postcode confirms: German, French, Italian, Spanish, Dutch, Polish, British, American."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from noria.types import Finding

REACH: Final = 110
"""Characters from the beginning of an address to its postcode."""

_CITY = r"[A-ZÀ-ÖØ-ÞĄĆĘŁŃÓŚŹŻ][\w'’.-]+(?:[ -](?:am|an|der|im|sur|sous|en|le|la|les|de|del|di|upon|a\.d\.|nad)(?=[ -]))*(?:[ -][A-ZÀ-ÖØ-ÞĄĆĘŁŃÓŚŹŻ][\w'’-]+)?"  # noqa: E501
_CODE_FIRST = re.compile(
    r"[0-9](?<!\w[0-9])(?:[0-9]-[0-9]{3}|[0-9]{4}|[0-9]{3} ?[A-Z]{2}|[0-9]{3})(?![\w-])[ ]{1,2}" + f"({_CITY})"
)
_CODE_LAST = re.compile(
    r"[A-Z](?<!\w[A-Z])(?:[A-Z]?[0-9][A-Z0-9]? ?[0-9][A-Z]{2}|[A-Z],? [0-9]{5}(?:-[0-9]{4})?)(?!\w)"
)

_WORDS = r"[^\n,;:!?()<>]{1,40}?"
_COUNTED = r"(?:Jahr(?:e|es\w*)?|Quartal\w*|Monat\w*|Kapitel\w*|Band)\b"
"""German words that a number follows which is none of a house; nor is one from 1900 to 2099."""
_GAP = r"(?:[ ]?[,;–-])?\s{1,3}(?:[A-Z]{1,3}[ -])?$"
_STREETS = re.compile(
    rf"""
    (?<![^\W_])(?:
    # German, Dutch: Name + kind of street, then the number.
    (?:[A-ZÄÖÜ][\w.'-]*[ -]){{0,3}}[A-ZÄÖÜ][\w'-]*
        (?:stra(?:ß|ss)e|str\.|weg|platz|allee|gasse|ring|damm|ufer|chaussee|steig|straat|laan|plein|gracht|kade
        |singel|dijk|dreef|[ -](?:Stra(?:ß|ss)e|Str\.|Weg|Platz|Allee|Gasse|Ring|Damm|Ufer))
        [ ]\d{{1,4}}[ ]?[a-zA-Z]?(?:[ ]?[-/][ ]?\d{{1,4}}[a-z]?)?
    |(?:Am|An[ ]der|An[ ]den|Auf[ ]dem|Im|In[ ]der|Zum|Zur|Unter[ ]den)[ ](?!{_COUNTED}){_WORDS}
        [ ](?!(?:19|20)\d\d)\d{{1,4}}[ ]?[a-z]?
    |Stra(?:ß|ss)e[ ]{_WORDS}[ ]\d{{1,4}}[ ]?[a-z]?
    # French: the number first.
    |\d{{1,4}}(?:[ ]?(?:bis|ter|quater|[A-D]))?,?[ ](?i:rue|avenue|av\.|boulevard|bd|bld|place|pl\.|chemin|impasse
        |allée|quai|cours|route|square|passage|villa|résidence)[ ]{_WORDS}
    # Italian, Spanish, Polish: the kind of street first, the number last.
    |(?i:via|viale|piazza|p\.za|corso|largo|vicolo|strada|piazzale|lungomare)[ ]{_WORDS}
        ,?[ ](?:n\.?[ ]?)?\d{{1,4}}(?:/?[a-zA-Z])?
    |(?i:calle|c/|c\.|avenida|avda\.?|av\.|plaza|pza\.?|paseo|pº|carrer|ronda|camino|travesía)[ ]{_WORDS}
        ,?[ ](?:n\.?º[ ]?)?\d{{1,4}}(?:,[ ]?[\wºª. ]{{1,14}})?
    |(?i:ul\.|ulica|ulicy|al\.|aleja|alei|pl\.|plac|placu|os\.|osiedle)[ ]{_WORDS}
        [ ]\d{{1,4}}[a-zA-Z]?(?:(?:/|[ ]?m\.?[ ]?|[ ]lok\.[ ])\d{{1,4}})?
    ){_GAP}
    """,
    re.VERBOSE,
)
_ENGLISH = re.compile(
    r"""
    (?<![^\W_])(?:(?i:flat|apt\.?|unit|suite)[ ]\w{1,5},?[ ])?\d{1,5}[a-zA-Z]?,?[ ]
    (?:[A-Z0-9][\w.'’-]*[ ]){1,4}
    (?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Close|Court|Ct|Way|Place|Pl|Square|Sq|Gardens|Terrace|Crescent
        |Hill|Park|Boulevard|Blvd|Parkway|Pkwy|Circle|Cir|Mews|Row|Green)\b\.?
    (?:,?[ ](?i:apt|suite|ste|unit|flat|\#)\.?[ ]?\w{1,6})?
    (?:,?\s{1,3}[A-Z][\w.' -]{1,30}?){0,3},?\s{1,3}$
    """,
    re.VERBOSE,
)


def find(text: str) -> Iterator[Finding]:
    """Addresses with a kind of street, a house number and a postcode, in that order or with the postcode last."""
    for pattern, streets, last in ((_CODE_FIRST, _STREETS, False), (_CODE_LAST, _ENGLISH, True)):
        for code in pattern.finditer(text):
            begin = max(0, code.start() - REACH)
            street = streets.search(text[begin : code.start()])
            if street is not None:
                end = code.end() if last else code.end(1)
                yield Finding(kind="address", start=begin + street.start(), end=end, score=0.8, rule="postcode")
