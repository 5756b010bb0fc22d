"""Numbers that states give to people: EU member states, the United Kingdom and the United States.

A rule has shapes (`9` for a digit, `A` for a letter), a check by the published check digit and date, and words of its
country. In a shape of `sure` the number is believed as it stands; in one of `told` only after such a word, because one
of many other numbers would pass too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from noria.guards.personal.checksums import is_day, luhn, mod_11_10, pair, verhoeff, weighted


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of number. `check` is given capital letters and digits; `score` is 1 where it knows a check digit."""

    name: str
    check: Callable[[str], bool]
    sure: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    words: str = ""
    """Alternatives of a regular expression, in lower case."""
    kind: str = "national_id"
    score: float = 1.0


ANY_WORDS: Final = (
    r"national (?:id|identity|identification)|identity (?:number|card|no)|tax(?:payer)? (?:id|identification|number|no)"
    r"|personal (?:id|identity|code|number)|id (?:number|no|card)|citizen (?:number|id)"
)
"""Words that speak for a number of any country."""


def _de_tax(c: str) -> bool:
    """Steueridentifikationsnummer: § 139b AO, and the Federal Central Tax Office's description of its check digit."""
    counts = sorted(Counter(c[:10]).values())
    repeated = counts[-1] in (2, 3) and (len(counts) < 2 or counts[-2] == 1)
    return c[0] != "0" and repeated and not any(d * 3 in c[:10] for d in set(c)) and mod_11_10(c)


def _de_insurance(c: str) -> bool:
    """Versicherungsnummer: § 2 VKVV."""
    digits = f"{c[:8]}{ord(c[8]) - 64:02}{c[9:]}"
    products = (int(d) * w for d, w in zip(digits, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=False))
    day = pair(c, 2)
    return is_day(pair(c, 6), pair(c, 4), day if day <= 31 else day - 50) and (
        sum(p // 10 + p % 10 for p in products) % 10 == int(c[11])
    )


def _fr_nir(c: str) -> bool:
    """Numéro d'inscription au répertoire: décret 82-103; INSEE's key is 97 less the rest of a division by 97."""
    if not re.fullmatch(r"[1-478]\d{4}(?:\d{2}|2[AB])\d{8}", c):
        return False
    month = pair(c, 3)
    number = int(c[:13].replace("2A", "19", 1).replace("2B", "18", 1) if c[5:7] in ("2A", "2B") else c[:13])
    return (1 <= month <= 12 or 20 <= month <= 42 or month >= 50) and 97 - number % 97 == int(c[13:])


def _es_dni(c: str) -> bool:
    """DNI and NIE: Real Decreto 1553/2005 and orden INT/2058/2008, the letter by the rest of a division by 23."""
    number = c[:-1].translate({88: "0", 89: "1", 90: "2"})
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == c[-1] if number.isdigit() else False


def _pl_pesel(c: str) -> bool:
    """PESEL: ustawa o ewidencji ludności of 24 September 2010, article 15; the month tells the century."""
    month = pair(c, 2)
    century = {4: 1800, 0: 1900, 1: 2000, 2: 2100, 3: 2200}[month // 20]
    right = (weighted(c[:10], (1, 3, 7, 9) * 3) + int(c[10])) % 10 == 0
    return right and is_day(century + pair(c, 0), month % 20, pair(c, 4))


def _pl_nip(c: str) -> bool:
    """NIP: weights published by the Ministry of Finance, modulo 11."""
    return weighted(c[:9], (6, 5, 7, 2, 3, 4, 5, 6, 7)) % 11 == int(c[9])


def _nl_bsn(c: str) -> bool:
    """Burgerservicenummer: Besluit burgerservicenummer, the eleven test."""
    return c != "0" * 9 and (weighted(c[:8], range(9, 1, -1)) - int(c[8])) % 11 == 0


def _be_national(c: str) -> bool:
    """Rijksregisternummer: royal decree of 3 April 1984; months of the bis register are 20 or 40 higher."""
    year, month, day = pair(c, 0), pair(c, 2) % 20, pair(c, 4)
    dated = is_day(year, month, day) or month == 0
    return dated and 97 - int(c[9:]) in (int(c[:9]) % 97, int("2" + c[:9]) % 97)


def _pt_nif(c: str) -> bool:
    """NIF of a person: decreto-lei 14/2013; modulo 11, where 10 is written as 0."""
    rest = weighted(c[:8], range(9, 1, -1)) % 11
    return c.startswith(("1", "2", "3", "45")) and int(c[8]) == (0 if rest < 2 else 11 - rest)


def _se_person(c: str) -> bool:
    """Personnummer: folkbokföringslagen (1991:481) § 18; days of coordination numbers are 60 higher."""
    short = c[-10:]
    day = pair(short, 4)
    year = int(c[:4]) if len(c) == 12 else pair(short, 0)
    return (
        (len(c) == 10 or c[:2] in ("18", "19", "20"))
        and is_day(year, pair(short, 2), day - 60 if day > 60 else day)
        and luhn(short)
    )


def _se_long(c: str) -> bool:
    """As `_se_person` with the century, but for what may as well be a day and a minute (`20240131-1530`)."""
    return _se_person(c) and not (c[:2] == "20" and pair(c, 8) < 24 and pair(c, 10) < 60)


def _dk_day(c: str) -> bool:
    """CPR-nummer: bekendtgørelse om folkeregistrering; since 2007 not all of them pass modulo 11."""
    return is_day(pair(c, 4), pair(c, 2), pair(c, 0))


def _dk_cpr(c: str) -> bool:
    return _dk_day(c) and weighted(c, (4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def _fi_hetu(c: str) -> bool:
    """Henkilötunnus: valtioneuvoston asetus 128/2010; the check letter by the rest of a division by 31."""
    digits = c[:6] + c[-4:-1]
    right = digits.isdigit() and "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(digits) % 31] == c[-1]
    return right and is_day(pair(c, 4), pair(c, 2), pair(c, 0)) and int(c[-4:-1]) >= 2


def _fi_lettered(c: str) -> bool:
    return c[6] in "ABCDEFUVWXY" and _fi_hetu(c)


def _at_insurance(c: str) -> bool:
    """Sozialversicherungsnummer: § 31 ASVG; the fourth digit checks, months go to 15."""
    month = pair(c, 6)
    dated = is_day(pair(c, 8), min(month, 12), pair(c, 4)) and month <= 15
    return c[0] != "0" and dated and weighted(c, (3, 7, 9, 0, 5, 8, 4, 2, 1, 6)) % 11 == int(c[3])


def _ie_pps(c: str) -> bool:
    """PPS number: Social Welfare Consolidation Act 2005, section 262; a second letter counts nine times."""
    second = "WABCDEFGHI".find(c[8:9]) if len(c) == 9 else 0
    if second < 0 or not c[7].isalpha():
        return False
    return "WABCDEFGHIJKLMNOPQRSTUV"[(weighted(c[:7], range(8, 1, -1)) + 9 * second) % 23] == c[7]


def _gr_afm(c: str) -> bool:
    """ΑΦΜ: the independent authority for public revenue; powers of two, modulo 11, modulo 10."""
    return c != "0" * 9 and weighted(c[:8], [2**n for n in range(8, 0, -1)]) % 11 % 10 == int(c[8])


def _gr_amka(c: str) -> bool:
    """ΑΜΚΑ: law 3655/2008; a day and Luhn's digit."""
    return is_day(pair(c, 4), pair(c, 2), pair(c, 0)) and luhn(c)


def _cz_birth(c: str) -> bool:
    """Rodné číslo: zákon 133/2000 Sb. (Slovakia: 301/1995 Z. z.), a multiple of 11; until 1953 without check digit."""
    month = pair(c, 2) % 50
    dated = is_day(pair(c, 0), month - 20 if month > 20 else month, pair(c, 4))
    if len(c) == 9:
        return dated and pair(c, 0) < 54 and c[6:] != "000"
    return dated and (int(c) % 11 == 0 or (int(c[:9]) % 11 == 10 and c[9] == "0"))


def _hu_tax(c: str) -> bool:
    """Adóazonosító jel: 2017. évi CL. törvény, annex 1; it begins with 8."""
    return c[0] == "8" and weighted(c[:9], range(1, 10)) % 11 == int(c[9])


def _hu_taj(c: str) -> bool:
    """TAJ-szám: 1996. évi XX. törvény, annex 2."""
    return weighted(c[:8], (3, 7) * 4) % 10 == int(c[8])


def _ro_cnp(c: str) -> bool:
    """Cod numeric personal: legea 105/1996 and HG 64/2011; 3 and 4 are of people born before 1900."""
    rest = weighted(c[:12], (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    county = pair(c, 7)
    placed = 1 <= county <= 52 or county == 70 or 80 <= county <= 83
    return (
        c[0] not in "034"
        and placed
        and is_day(pair(c, 1), pair(c, 3), pair(c, 5))
        and rest % 10 + rest // 10 == int(c[12])
    )


def _bg_egn(c: str) -> bool:
    """ЕГН: naredba RD-02-20-9 of 2012; the month tells the century."""
    month = pair(c, 2)
    century = (1900, 1800, 2000)[month // 20] if month < 60 else 0
    right = weighted(c[:9], (2, 4, 8, 5, 10, 9, 7, 3, 6)) % 11 % 10 == int(c[9])
    return right and century > 0 and is_day(century + pair(c, 0), month % 20, pair(c, 4))


def _si_emso(c: str) -> bool:
    """EMŠO: zakon o centralnem registru prebivalstva, article 8 (the former Yugoslav number)."""
    rest = weighted(c[:12], (7, 6, 5, 4, 3, 2) * 2) % 11
    year = int(c[4:7])
    lived = year >= 880 or year < 100
    dated = lived and is_day(1000 + year if year >= 880 else 2000 + year, pair(c, 2), pair(c, 0))
    return rest != 1 and dated and (11 - rest) % 11 == int(c[12])


def _baltic(c: str) -> bool:
    """Isikukood (EVS 585:2007) and asmens kodas (law I-2237): two rows of weights, modulo 11."""
    rest = weighted(c[:10], (1, 2, 3, 4, 5, 6, 7, 8, 9, 1)) % 11
    if rest == 10:
        rest = weighted(c[:10], (3, 4, 5, 6, 7, 8, 9, 1, 2, 3)) % 11 % 10
    century = 1800 + (int(c[0]) - 1) // 2 * 100
    return "1" <= c[0] <= "8" and rest == int(c[10]) and is_day(century + pair(c, 1), pair(c, 3), pair(c, 5))


def _lv_person(c: str) -> bool:
    """Personas kods: cabinet regulation 342 (1998); those of 2017 and later begin with 32 and carry no day."""
    old = is_day(pair(c, 4), pair(c, 2), pair(c, 0)) and c[6] in "012"
    return old and (1 - weighted(c[:10], (1, 6, 3, 7, 9, 10, 5, 8, 4, 2))) % 11 % 10 == int(c[10])


def _lv_new(c: str) -> bool:
    return c.startswith("32") or _lv_person(c)


def _lu_person(c: str) -> bool:
    """Numéro d'identification national: loi du 19 juin 2013; both Luhn's and Verhoeff's digit over the first eleven."""
    dated = c[:2] in ("18", "19", "20") and is_day(int(c[:4]), pair(c, 4), pair(c, 6))
    return dated and luhn(c[:12]) and verhoeff(c[:11] + c[12])


def _mt_card(c: str) -> bool:
    """Identity card number: Identity Card Act (chapter 258); a letter for where it was registered."""
    return c[-1] in "MGAPLHBZ"


def _cy_tax(c: str) -> bool:
    """ΑΦΤ of a person: the Cyprus tax department; a letter modulo 26."""
    odd = sum((1, 0, 5, 7, 9, 13, 15, 17, 19, 21)[int(d)] for d in c[:8:2])
    return c[0] in "09" and chr(65 + (odd + sum(map(int, c[1:8:2]))) % 26) == c[8]


def _us_ssn(c: str) -> bool:
    """Social Security number: 20 CFR 422; areas, groups and serials that are never given."""
    return c[:3] not in ("000", "666") and c[0] != "9" and c[3:5] != "00" and c[5:] != "0000"


def _us_itin(c: str) -> bool:
    """ITIN: Internal Revenue Manual 3.21.263; 9 and a group of certain ranges."""
    group = pair(c, 3)
    return c[0] == "9" and (50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or 94 <= group <= 99)


def _us_ein(c: str) -> bool:
    """EIN: 26 CFR 301.6109-1, with the prefixes that the Internal Revenue Service lists as not given."""
    return pair(c, 0) not in (0, 7, 8, 9, 17, 18, 19, 28, 29, 49, 69, 70, 78, 79, 89, 96, 97)


def _gb_nino(c: str) -> bool:
    """National Insurance number: HMRC's NIM39110; some prefixes are never given."""
    prefix = c[:2]
    good = prefix[0] not in "DFIQUV" and prefix[1] not in "DFIOQUV"
    return good and prefix not in ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ") and c[8] in "ABCD"


_ELEVEN, _NINE, _TEN, _THIRTEEN = "9" * 11, "9" * 9, "9" * 10, "9" * 13
_BALTIC = "isikukood|asmens kodas|ak"

RULES: Final = (
    Rule("de.tax_id", _de_tax, (_ELEVEN, "99 999 999 999", "99-999-999-999"), words="steuer|idnr"),
    Rule("de.insurance", _de_insurance, ("99999999A999", "99 999999 A 999", "99 999999 A 99 9", "99-999999-A-999")),
    Rule(
        "fr.nir",
        _fr_nir,
        ("9" * 15, "999999A99999999", "9 99 99 99 999 999 99", "9 99 99 9A 999 999 99", "9 99 99 99 999 999/99",
         "9-99-99-99-999-999-99", "9.99.99.99.999.999.99", "9 99 99 99999 999 99", "9999999999999 99",
         "999999A999999 99"),
    ),
    Rule("es.dni", _es_dni, ("99999999A", "99999999-A", "99999999 A", "99.999.999-A", "99.999.999A", "99 999 999 A",
                             "99 999 999-A", "99.999.999 A")),
    Rule("es.nie", _es_dni, ("A9999999A", "A-9999999-A", "A 9999999 A", "A9999999-A", "A-9999999A", "A.9.999.999-A",
                             "A9.999.999-A", "A-9.999.999-A", "A 9999999A")),
    Rule("pl.pesel", _pl_pesel, (_ELEVEN, "999999 99999", "999999-99999", "99 99 99 99999"), words="pesel"),
    Rule("pl.nip", _pl_nip, (), (_TEN, "999-999-99-99", "999-99-99-999", "999 999 99 99"), r"nip"),
    Rule("nl.bsn", _nl_bsn, (), (_NINE, "9999 99 999", "999 999 999", "9999.99.999", "999.999.999"),
         r"bsn|burgerservice|sofi"),
    Rule("be.national", _be_national, (_ELEVEN, "99.99.99-999.99", "99.99.99-999-99", "99.99.99 999.99",
                                       "99 99 99 999 99", "999999-999-99", "999999 999 99", "99.99.99.999.99",
                                       "999999-999.99")),
    Rule("pt.nif", _pt_nif, (), (_NINE, "999 999 999", "999.999.999"), r"nif|contribuinte|fiscal"),
    Rule("se.person", _se_person, ("999999-9999", "999999+9999", "999999 - 9999"), ("99999999-9999", "9" * 12, _TEN),
         r"personnummer|person-?nr|pnr|samordning|födelse"),
    Rule("se.person_long", _se_long, ("99999999-9999",)),
    Rule("dk.cpr", _dk_cpr, ("999999-9999", "99 99 99-9999"), (_TEN, "999999 9999"), r"cpr|person-?nummer|person-?nr"),
    Rule("dk.cpr_2007", _dk_day, (), (_TEN, "999999-9999", "999999 9999", "99 99 99-9999"),
         r"cpr|person-?nummer|person-?nr", score=0.8),
    Rule("fi.hetu", _fi_hetu, ("999999-999A", "999999-9999", "999999+999A")),
    Rule("fi.hetu_2023", _fi_lettered, ("999999A999A", "999999A9999")),
    Rule("at.insurance", _at_insurance, ("9999 999999", "9999-999999", "9999/999999", "9999 99 99 99", "9999 99.99.99"),
         (_TEN,), r"svnr|sv-?nummer|sozialversicherung|versicherung|sv"),
    Rule("ie.pps", _ie_pps, ("9999999A", "9999999AA", "9999999 A", "9999999 AA", "999 9999A", "999 9999 A")),
    Rule("gr.afm", _gr_afm, (), (_NINE, "999 999 999"), r"αφμ|α\.φ\.μ\.?|afm|vat|φορολογικ\w+"),
    Rule("gr.amka", _gr_amka, (_ELEVEN, "999999 99999"), words="αμκα|amka"),
    Rule("cz.birth", _cz_birth, ("999999/9999",), (_TEN, _NINE, "999999/999", "999999 9999"),
         r"rodn[éeáý]\w* č[íi]sl\w+|rodn[ée] cislo|r\.? ?č\.?|rč"),
    Rule("hu.tax", _hu_tax, (), (_TEN, "9999999999", "999 999 9999"), r"adóazonosító|adóazonosító jel|adószám|adó"),
    Rule("hu.taj", _hu_taj, (), (_NINE, "999 999 999", "999-999-999"), r"taj|tb|taj-?szám\w*"),
    Rule("ro.cnp", _ro_cnp, (_THIRTEEN, "9 999999 999999", "9 99 99 99 999999", "9-999999-999999")),
    Rule("bg.egn", _bg_egn, (), (_TEN, "999999 9999", "999999-9999"), r"егн|egn|единен граждански номер"),
    Rule("hr.oib", mod_11_10, (), (_ELEVEN, "999 999 999 99"), r"oib|osobni identifikacijski broj"),
    Rule("si.emso", _si_emso, (_THIRTEEN, "999999 9 999999", "9999999 999999")),
    Rule("lt_ee.person", _baltic, (_ELEVEN,), words=_BALTIC),
    Rule("lv.person", _lv_person, ("999999-99999",), (_ELEVEN,), r"personas kod\w+|p\.? ?k\.?"),
    Rule("lv.person_2017", _lv_new, (), ("999999-99999", _ELEVEN), r"personas kod\w+|p\.? ?k\.?", score=0.8),
    Rule("lu.person", _lu_person, (_THIRTEEN, "9999 9999 99999", "9999 99 99 99999", "9999 99 99 999 99")),
    Rule("mt.card", _mt_card, (), ("9999999A", "9999999 A"), r"id card|karta tal-identità|identity card", score=0.8),
    Rule("cy.tax", _cy_tax, ("99999999A",)),
    Rule("us.ssn", _us_ssn, ("999-99-9999",), (_NINE, "999 99 9999", "999.99.9999"), r"ssn|social security|social",
         kind="ssn", score=0.9),
    Rule("us.itin", _us_itin, ("999-99-9999",), (_NINE, "999 99 9999"), r"itin", score=0.9),
    Rule("us.ein", _us_ein, (), (_NINE, "99-9999999"), r"ein|employer identification|fein", score=0.8),
    Rule("gb.nino", _gb_nino, (), ("AA999999A", "AA 99 99 99 A", "AA 999999 A", "AA-99-99-99-A"),
         r"national insurance|nino|ni (?:number|no)", score=0.8),
)  # fmt: skip
"""Every rule; where two share a shape, the earlier one is asked first."""
