"""Makes items of personal data that are valid and belong to nobody, and things that only look like them.

Check digits are worked out here from what the rules publish, without a look at how noria checks them: a mistake in one
of the two shows as a miss.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from datetime import date, timedelta

Maker = Callable[[random.Random], str]


def digits(rng: random.Random, count: int, first: str = "0123456789") -> str:
    """So many digits."""
    return rng.choice(first) + "".join(rng.choice("0123456789") for _ in range(count - 1)) if count else ""


def luhn_digit(body: str) -> str:
    """The digit that makes the sum of Luhn's formula a multiple of ten."""
    total = 0
    for place, letter in enumerate(body[::-1], 1):
        twice = int(letter) * 2 if place % 2 else int(letter)
        total += sum(map(int, str(twice)))
    return str(-total % 10)


def born(rng: random.Random, first: int = 1940, last: int = 2005) -> date:
    """A day of birth."""
    return date(first, 1, 1) + timedelta(days=rng.randrange((last - first) * 365))


def eleven(body: str, weights: list[int]) -> int:
    """Rest of the weighted sum by 11."""
    return sum(int(a) * b for a, b in zip(body, weights, strict=True)) % 11


def _until(make: Callable[[], str | None]) -> str:
    while (made := make()) is None:
        pass
    return made


def _hybrid(body: str) -> str:
    """Check digit of ISO 7064 MOD 11,10, by trying all ten."""
    for check in "0123456789":
        carry = 10
        for letter in body:
            carry = (carry + int(letter)) % 10
            carry = (10 if carry == 0 else carry) * 2 % 11
        if (carry + int(check)) % 10 == 1:
            return check
    raise AssertionError(body)


def de_tax(rng: random.Random) -> str:
    left = list("0123456789")
    rng.shuffle(left)
    gone, twice = left.pop(), rng.choice(left)
    body = [*left, twice]
    rng.shuffle(body)
    text = "".join(body)
    if text[0] == "0" or gone == twice:
        return de_tax(rng)
    number = text + _hybrid(text)
    return rng.choice([number, f"{number[:2]} {number[2:5]} {number[5:8]} {number[8:]}"])


def de_insurance(rng: random.Random) -> str:
    day = born(rng)
    body = f"{rng.choice(['12', '15', '53', '65'])}{day:%d%m%y}"
    letter, serial = rng.choice(string.ascii_uppercase), f"{rng.randrange(100):02}"
    every = body + f"{ord(letter) - ord('A') + 1:02}" + serial
    total = sum(
        sum(map(int, str(int(a) * b))) for a, b in zip(every, [2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1], strict=True)
    )
    check = total % 10
    return rng.choice([f"{body}{letter}{serial}{check}", f"{body[:2]} {body[2:]} {letter} {serial}{check}"])


def fr_nir(rng: random.Random) -> str:
    place = rng.choice(["75", "13", "69", "2A", "2B", "33"])
    body = f"{rng.choice('12')}{rng.randrange(40, 99):02}{rng.randrange(1, 13):02}{place}{digits(rng, 6)}"
    key = f"{97 - int(body.replace('2A', '19').replace('2B', '18') if place[1] in 'AB' else body) % 97:02}"
    parts = [body[0], body[1:3], body[3:5], body[5:7], body[7:10], body[10:], key]
    return rng.choice([body + key, " ".join(parts), f"{body} {key}"])


def es_dni(rng: random.Random) -> str:
    number = digits(rng, 8)
    letter = "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]
    dotted = f"{number[:2]}.{number[2:5]}.{number[5:]}"
    return rng.choice([number + letter, f"{number}-{letter}", f"{dotted}-{letter}", number + letter.lower()])


def es_nie(rng: random.Random) -> str:
    first, number = rng.choice("XYZ"), digits(rng, 7)
    letter = "TRWAGMYFPDXBNJZSQVHLCKE"[int(str("XYZ".index(first)) + number) % 23]
    return rng.choice([f"{first}{number}{letter}", f"{first}-{number}-{letter}"])


_ITALIAN_ODD = {
    **dict(zip("0123456789", [1, 0, 5, 7, 9, 13, 15, 17, 19, 21], strict=True)),
    **dict(zip("ABCDEFGHIJ", [1, 0, 5, 7, 9, 13, 15, 17, 19, 21], strict=True)),
    **dict(zip("KLMNOPQRSTUVWXYZ", [2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23], strict=True)),
}


def it_fiscal(rng: random.Random) -> str:
    name = "".join(rng.choice("BCDFGLMNPRSTV") for _ in range(6))
    day = born(rng)
    of_day = f"{day:%y}{'ABCDEHLMPRST'[day.month - 1]}{day.day + rng.choice([0, 40]):02}"
    body = f"{name}{of_day}{rng.choice('ABCDEFGHIL')}{digits(rng, 3)}"
    if rng.random() < 0.1:
        body = body[:14] + "LMNPQRSTUV"[int(body[14])]
    total = sum(
        _ITALIAN_ODD[c] if place % 2 else (int(c) if c.isdigit() else string.ascii_uppercase.index(c))
        for place, c in enumerate(body, 1)
    )
    code = body + string.ascii_uppercase[total % 26]
    return rng.choice([code, code.lower(), f"{code[:3]} {code[3:6]} {code[6:11]} {code[11:]}"])


def pl_pesel(rng: random.Random) -> str:
    day = born(rng, 1940, 2015)
    body = f"{day:%y}{day.month + (20 if day.year >= 2000 else 0):02}{day:%d}{digits(rng, 4)}"
    return body + str(
        (10 - sum(int(a) * b for a, b in zip(body, [1, 3, 7, 9, 1, 3, 7, 9, 1, 3], strict=True)) % 10) % 10
    )


def pl_nip(rng: random.Random) -> str:
    def make() -> str | None:
        body = digits(rng, 9, "123456789")
        check = eleven(body, [6, 5, 7, 2, 3, 4, 5, 6, 7])
        return None if check == 10 else f"{body}{check}"

    n = _until(make)
    return rng.choice([n, f"{n[:3]}-{n[3:6]}-{n[6:8]}-{n[8:]}"])


def nl_bsn(rng: random.Random) -> str:
    def make() -> str | None:
        body = digits(rng, 8, "123456789")
        check = eleven(body, [9, 8, 7, 6, 5, 4, 3, 2])
        return None if check == 10 else f"{body}{check}"

    n = _until(make)
    return rng.choice([n, f"{n[:4]}.{n[4:6]}.{n[6:]}", f"{n[:3]} {n[3:6]} {n[6:]}"])


def be_national(rng: random.Random) -> str:
    day = born(rng, 1940, 2015)
    body = f"{day:%y%m%d}{rng.randrange(1, 998):03}"
    check = 97 - int(("2" if day.year >= 2000 else "") + body) % 97
    n = f"{body}{check:02}"
    return rng.choice([n, f"{n[:2]}.{n[2:4]}.{n[4:6]}-{n[6:9]}.{n[9:]}"])


def pt_nif(rng: random.Random) -> str:
    body = digits(rng, 8, "123")
    rest = 11 - eleven(body, [9, 8, 7, 6, 5, 4, 3, 2])
    n = f"{body}{0 if rest > 9 else rest}"
    return rng.choice([n, f"{n[:3]} {n[3:6]} {n[6:]}"])


def se_person(rng: random.Random) -> str:
    day = born(rng, 1940, 2015)
    body = f"{day:%y%m%d}{digits(rng, 3)}"
    check = luhn_digit(body)
    return rng.choice(
        [
            f"{body[:6]}-{body[6:]}{check}",
            f"{day:%Y%m%d}-{body[6:]}{check}",
            f"{day:%Y%m%d}{body[6:]}{check}",
            f"{body}{check}",
        ]
    )


def dk_cpr(rng: random.Random) -> str:
    n = f"{born(rng):%d%m%y}{digits(rng, 4)}"
    return rng.choice([n, f"{n[:6]}-{n[6:]}"])


def fi_hetu(rng: random.Random) -> str:
    day = born(rng, 1940, 2015)
    sign = rng.choice("AF" if day.year >= 2000 else "-YX")
    serial = f"{rng.randrange(2, 900):03}"
    return f"{day:%d%m%y}{sign}{serial}{'0123456789ABCDEFHJKLMNPRSTUVWXY'[int(f'{day:%d%m%y}{serial}') % 31]}"


def at_insurance(rng: random.Random) -> str:
    def make() -> str | None:
        serial, day = digits(rng, 3, "123456789"), f"{born(rng):%d%m%y}"
        check = eleven(serial + day, [3, 7, 9, 5, 8, 4, 2, 1, 6])
        return None if check == 10 else rng.choice([f"{serial}{check}{day}", f"{serial}{check} {day}"])

    return _until(make)


def ie_pps(rng: random.Random) -> str:
    body, second = digits(rng, 7), rng.choice(["", "A", "W", "B"])
    extra = 9 * (0 if second in ("", "W") else ord(second) - 64)
    total = sum(int(a) * b for a, b in zip(body, [8, 7, 6, 5, 4, 3, 2], strict=True)) + extra
    return body + "WABCDEFGHIJKLMNOPQRSTUV"[total % 23] + second


def gr_afm(rng: random.Random) -> str:
    body = digits(rng, 8)
    return body + str(sum(int(c) << (8 - place) for place, c in enumerate(body)) % 11 % 10)


def gr_amka(rng: random.Random) -> str:
    body = f"{born(rng):%d%m%y}{digits(rng, 4)}"
    return body + luhn_digit(body)


def cz_birth(rng: random.Random) -> str:
    def make() -> str | None:
        day = born(rng, 1955)
        body = f"{day:%y}{day.month + rng.choice([0, 50]):02}{day:%d}{digits(rng, 3)}"
        check = -int(body + "0") % 11
        return None if check == 10 else f"{body}{check}"

    n = _until(make)
    return rng.choice([n, f"{n[:6]}/{n[6:]}"])


def hu_tax(rng: random.Random) -> str:
    def make() -> str | None:
        body = f"8{rng.randrange(15000, 50000)}{digits(rng, 3)}"
        check = eleven(body, list(range(1, 10)))
        return None if check == 10 else f"{body}{check}"

    return _until(make)


def ro_cnp(rng: random.Random) -> str:
    day = born(rng, 1940, 2015)
    sex = rng.choice("56" if day.year >= 2000 else "12")
    body = f"{sex}{day:%y%m%d}{rng.randrange(1, 47):02}{digits(rng, 3)}"
    check = eleven(body, [2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9])
    return f"{body}{1 if check == 10 else check}"


def bg_egn(rng: random.Random) -> str:
    day = born(rng, 1940, 2015)
    body = f"{day:%y}{day.month + (40 if day.year >= 2000 else 0):02}{day:%d}{digits(rng, 3)}"
    return body + str(eleven(body, [2, 4, 8, 5, 10, 9, 7, 3, 6]) % 10)


def hr_oib(rng: random.Random) -> str:
    body = digits(rng, 10)
    return body + _hybrid(body)


def si_emso(rng: random.Random) -> str:
    def make() -> str | None:
        day = born(rng, 1940, 2015)
        body = f"{day:%d%m}{day.year % 1000:03}50{digits(rng, 3)}"
        check = -eleven(body, [7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11
        return None if check == 10 else f"{body}{check}"

    return _until(make)


def baltic(rng: random.Random) -> str:
    day = born(rng, 1940, 2015)
    body = f"{rng.choice('56' if day.year >= 2000 else '34')}{day:%y%m%d}{digits(rng, 3)}"
    check = eleven(body, [1, 2, 3, 4, 5, 6, 7, 8, 9, 1])
    if check == 10:
        check = eleven(body, [3, 4, 5, 6, 7, 8, 9, 1, 2, 3]) % 10
    return f"{body}{check}"


def lv_person(rng: random.Random) -> str:
    def make() -> str | None:
        day = born(rng, 1940, 2015)
        body = f"{day:%d%m%y}{'2' if day.year >= 2000 else '1'}{digits(rng, 3)}"
        check = (1101 - sum(int(a) * b for a, b in zip(body, [1, 6, 3, 7, 9, 10, 5, 8, 4, 2], strict=True))) % 11
        return None if check == 10 else f"{body[:6]}-{body[6:]}{check}"

    return _until(make)


def _verhoeff_digit(body: str) -> str:
    """By the dihedral group itself instead of its table."""

    def times(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b - 5) % 5
        return 5 + (a - 5 - b) % 5 if b < 5 else (a - b) % 5

    turn = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]

    def turned(digit: int, times_: int) -> int:
        for _ in range(times_):
            digit = turn[digit]
        return digit

    for check in range(10):
        state = 0
        for place, letter in enumerate((body + str(check))[::-1]):
            state = times(state, turned(int(letter), place))
        if state == 0:
            return str(check)
    raise AssertionError(body)


def lu_person(rng: random.Random) -> str:
    body = f"{born(rng, 1940, 2015):%Y%m%d}{digits(rng, 3)}"
    return body + luhn_digit(body) + _verhoeff_digit(body)


def mt_card(rng: random.Random) -> str:
    return digits(rng, 7) + rng.choice("MGAPLHBZ")


def cy_tax(rng: random.Random) -> str:
    body = "0" + digits(rng, 7)
    odd = sum([1, 0, 5, 7, 9, 13, 15, 17, 19, 21][int(c)] for c in (body[0], body[2], body[4], body[6]))
    return body + string.ascii_uppercase[(odd + sum(int(body[place]) for place in (1, 3, 5, 7))) % 26]


def us_ssn(rng: random.Random) -> str:
    area = rng.choice([n for n in range(1, 900) if n != 666])
    a, g, s = f"{area:03}", f"{rng.randrange(1, 100):02}", f"{rng.randrange(1, 10000):04}"
    return rng.choice([f"{a}-{g}-{s}", f"{a}-{g}-{s}", f"{a} {g} {s}", f"{a}{g}{s}"])


def us_itin(rng: random.Random) -> str:
    return f"9{digits(rng, 2)}-{rng.choice([70, 75, 80, 88, 90, 92, 94, 99, 50, 65])}-{digits(rng, 4)}"


def us_ein(rng: random.Random) -> str:
    return f"{rng.choice([12, 20, 36, 45, 82, 94])}-{digits(rng, 7)}"


def gb_nino(rng: random.Random) -> str:
    n = f"{rng.choice(['AB', 'CE', 'JG', 'PX', 'WL'])}{digits(rng, 6)}{rng.choice('ABCD')}"
    return rng.choice([n, f"{n[:2]} {n[2:4]} {n[4:6]} {n[6:8]} {n[8]}"])


NATIONAL: dict[str, Maker] = {
    "de.tax_id": de_tax, "de.insurance": de_insurance, "fr.nir": fr_nir, "es.dni": es_dni, "es.nie": es_nie,
    "it.fiscal": it_fiscal, "pl.pesel": pl_pesel, "pl.nip": pl_nip, "nl.bsn": nl_bsn, "be.national": be_national,
    "pt.nif": pt_nif, "se.person": se_person, "dk.cpr": dk_cpr, "fi.hetu": fi_hetu, "at.insurance": at_insurance,
    "ie.pps": ie_pps, "gr.afm": gr_afm, "gr.amka": gr_amka, "cz.birth": cz_birth, "hu.tax": hu_tax, "ro.cnp": ro_cnp,
    "bg.egn": bg_egn, "hr.oib": hr_oib, "si.emso": si_emso, "lt.person": baltic, "ee.person": baltic,
    "lv.person": lv_person, "lu.person": lu_person, "mt.card": mt_card, "cy.tax": cy_tax, "us.ssn": us_ssn,
    "us.itin": us_itin, "us.ein": us_ein, "gb.nino": gb_nino,
}  # fmt: skip
"""Makers of national numbers by the names that the carriers' file has for them."""
