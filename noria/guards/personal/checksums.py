"""Check digits and dates that numbers of people, cards and accounts carry. Each takes the digits alone, as text."""

from __future__ import annotations

import calendar
from collections.abc import Sequence

_VERHOEFF = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_VERHOEFF_TURNS = ("0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415",
                   "7046913258")  # fmt: skip


def luhn(digits: str) -> bool:
    """Whether the last digit is that of Luhn's formula (ISO/IEC 7812-1, annex B)."""
    total = 0
    for at, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + at % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def mod_97_10(letters: str) -> bool:
    """Whether capital letters and digits pass ISO/IEC 7064 MOD 97-10, as an IBAN does once its head was moved."""
    return int("".join(str(int(letter, 36)) for letter in letters)) % 97 == 1


def mod_11_10(digits: str) -> bool:
    """Whether the last digit is that of the hybrid system MOD 11,10 (ISO/IEC 7064)."""
    product = 10
    for digit in digits[:-1]:
        product = ((product + int(digit)) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


def verhoeff(digits: str) -> bool:
    """Whether the last digit is Verhoeff's ("Error Detecting Decimal Codes", Mathematisch Centrum, 1969)."""
    state = 0
    for at, digit in enumerate(reversed(digits)):
        state = int(_VERHOEFF[state][int(_VERHOEFF_TURNS[at % 8][int(digit)])])
    return state == 0


def weighted(digits: str, weights: Sequence[int]) -> int:
    """The sum of the first digits, each times its weight."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def is_day(year: int, month: int, day: int) -> bool:
    """Whether there is such a day; a year below 100 may be of this century or the last one."""
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return False
    years = (1900 + year, 2000 + year) if year < 100 else (year,)
    return any(day <= calendar.monthrange(each, month)[1] for each in years)


def pair(digits: str, at: int) -> int:
    """The number that two digits make, from this place on."""
    return int(digits[at : at + 2])
