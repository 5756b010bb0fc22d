"""Makers of the other kinds of personal data, and of things that only look like it."""

from __future__ import annotations

import base64
import random
import string
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from benchmarks.personal.made import Maker, born, digits, luhn_digit

FIRST = ["anna", "jan", "marie", "luca", "zofia", "peter", "jürgen", "inès", "maría", "tom", "ewa", "noor"]
LAST = ["müller", "smith", "rossi", "garcía", "nowak", "dubois", "jansen", "okafor", "o'neill", "lindqvist"]
HOSTS = ["example.com", "mail.example.org", "post.example.de", "firma.example", "uni-x.example.edu", "beispiel.example"]


def email(rng: random.Random) -> str:
    first, last = rng.choice(FIRST), rng.choice(LAST)
    local = rng.choice(
        [f"{first}.{last}", f"{first[0]}{last}", f"{first}_{rng.randrange(99)}", f"{first}+shop", f"{last}-{first}"]
    )
    host = rng.choice(HOSTS)
    plain = f"{local}@{host}"
    return rng.choice([plain] * 6 + [plain.upper(), f"{local} (at) {host}", f"{local}[at]{host}", plain])


def _grouped(text: str, sizes: list[int], gap: str) -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    return gap.join(parts)


def phone(rng: random.Random, language: str) -> str:
    d = digits
    forms = {
        "en": [f"+1 {d(rng, 1, '23456789')}{d(rng, 2)} {d(rng, 1, '23456789')}{d(rng, 2)} {d(rng, 4)}",
               f"({d(rng, 1, '23456789')}{d(rng, 2)}) {d(rng, 1, '23456789')}{d(rng, 2)}-{d(rng, 4)}",
               f"{d(rng, 1, '23456789')}{d(rng, 2)}.{d(rng, 1, '23456789')}{d(rng, 2)}.{d(rng, 4)}",
               f"07{d(rng, 3)} {d(rng, 6)}", f"020 7{d(rng, 3)} {d(rng, 4)}", f"+44 20 7{d(rng, 3)} {d(rng, 4)}",
               f"+353 1 {d(rng, 3, '23456789')} {d(rng, 4)}"],
        "de": [f"+49 {d(rng, 3, '123456789')} {d(rng, 7)}", f"01{rng.choice('567')}{d(rng, 1)} {d(rng, 7)}",
               f"0{d(rng, 2, '23456789')}/{d(rng, 7)}", f"(0{d(rng, 3, '23456789')}) {d(rng, 6)}",
               f"0049 {d(rng, 3, '123456789')} {d(rng, 6)}", f"01{rng.choice('567')}{d(rng, 9)}",
               f"0{d(rng, 2, '23456789')} {d(rng, 3)} {d(rng, 4)}-{d(rng, 2)}", f"+43 1 {d(rng, 7)}"],
        "fr": [f"0{rng.choice('123456789')} {_grouped(d(rng, 8), [2] * 4, ' ')}",
               f"+33 {rng.choice('12345679')} {_grouped(d(rng, 8), [2] * 4, ' ')}",
               f"0{rng.choice('67')}.{_grouped(d(rng, 8), [2] * 4, '.')}", f"0{rng.choice('67')}{d(rng, 8)}",
               f"+32 2 {d(rng, 3)} {d(rng, 2)} {d(rng, 2)}"],
        "es": [f"+34 {d(rng, 3, '679')} {d(rng, 3)} {d(rng, 3)}",
               f"{d(rng, 3, '67')} {d(rng, 2)} {d(rng, 2)} {d(rng, 2)}", f"91 {d(rng, 3)} {d(rng, 2)} {d(rng, 2)}",
               f"{d(rng, 9, '67')}", f"+351 {d(rng, 3, '9')} {d(rng, 3)} {d(rng, 3)}"],
        "it": [f"+39 3{d(rng, 2)} {d(rng, 7)}", f"3{d(rng, 2, '234')} {d(rng, 7)}", f"06 {d(rng, 4)} {d(rng, 4)}",
               f"3{d(rng, 2, '234')} {d(rng, 3)} {d(rng, 4)}", f"02/{d(rng, 8)}"],
        "pl": [f"+48 {d(rng, 3, '5678')} {d(rng, 3)} {d(rng, 3)}", f"{d(rng, 3, '5678')}-{d(rng, 3)}-{d(rng, 3)}",
               f"22 {d(rng, 3)} {d(rng, 2)} {d(rng, 2)}", f"{d(rng, 3, '5678')} {d(rng, 3)} {d(rng, 3)}"],
    }  # fmt: skip
    return rng.choice(forms[language])


def card(rng: random.Random) -> str:
    head, length = rng.choice([("4", 16), ("51", 16), ("55", 16), ("6011", 16), ("37", 15), ("36", 14), ("4", 16)])
    body = head + digits(rng, length - len(head) - 1)
    number = body + luhn_digit(body)
    sizes = {16: [4, 4, 4, 4], 15: [4, 6, 5], 14: [4, 6, 4]}[length]
    gap = rng.choice(["", " ", " ", "-", "\u00a0", "."])
    return _grouped(number, sizes, gap)


_BANKS = {
    "DE": "n18", "FR": "n23", "ES": "n20", "IT": "a1n22", "PL": "n24", "NL": "a4n10", "BE": "n12", "GB": "a4n14",
    "AT": "n16", "IE": "a4n14", "PT": "n21", "SE": "n20", "DK": "n14", "FI": "n14", "GR": "n23", "CZ": "n20",
    "SK": "n20", "HU": "n24", "RO": "a4n16", "BG": "a4n14", "HR": "n17", "SI": "n15", "LT": "n16", "LV": "a4n13",
    "EE": "n16", "LU": "n16", "MT": "a4n23", "CY": "n24",
}  # fmt: skip


def iban(rng: random.Random) -> str:
    country, form = rng.choice(list(_BANKS.items()))
    letters = int(form[1]) if form[0] == "a" else 0
    count = int(form.rpartition("n")[2])
    body = "".join(rng.choice(string.ascii_uppercase) for _ in range(letters)) + digits(rng, count)
    value = int("".join(str(int(c, 36)) for c in f"{body}{country}00"))
    number = f"{country}{98 - value % 97:02}{body}"
    spaced = " ".join(number[at : at + 4] for at in range(0, len(number), 4))
    return rng.choice([number, spaced, spaced, number.lower(), spaced.replace(" ", "-"), spaced.replace(" ", "\u00a0")])


def ip(rng: random.Random) -> str:
    four = f"{rng.randrange(128, 224)}." + ".".join(str(rng.randrange(1, 255)) for _ in range(3))
    six = ":".join(f"{rng.randrange(1, 65536):x}" for _ in range(8))
    return rng.choice([four, four, six, f"2001:db8::{rng.randrange(4096, 65536):x}:{rng.randrange(1, 9999)}"])


_STREETS = {
    "en": [("{n} {w} Street, {c} {z}", "uk"), ("{n} {w} Road, {c} {z}", "uk"), ("{n} {w} Avenue, {c}, {s} {z}", "us"),
           ("{n} {w} Drive, Apt {m}, {c}, {s} {z}", "us")],
    "de": [("{w}straße {n}, {z} {c}", "5"), ("{w}weg {n}{l}, {z} {c}", "5"), ("Am {w}platz {n}, {z} {c}", "5"),
           ("{w}str. {n}, D-{z} {c}", "5")],
    "fr": [("{n} rue de {w}, {z} {c}", "5"), ("{n} bis avenue {w}, {z} {c}", "5"),
           ("{n}, boulevard {w}, {z} {c}", "5")],
    "es": [("Calle {w}, {n}, {z} {c}", "5"), ("Avenida de {w} {n}, {m}º B, {z} {c}", "5"),
           ("C/ {w} {n}, {z} {c}", "5")],
    "it": [("Via {w} {n}, {z} {c}", "5"), ("Piazza {w}, {n}, {z} {c}", "5"), ("Viale {w} {n}/{l}, {z} {c}", "5")],
    "pl": [("ul. {w} {n}/{m}, {z} {c}", "pl"), ("al. {w} {n}, {z} {c}", "pl"), ("ul. {w} {n} m. {m}, {z} {c}", "pl")],
}  # fmt: skip
_NAMES = {
    "en": (["Maple", "Station", "Mill", "King's", "Victoria"], ["London", "Leeds", "Springfield", "Dayton"]),
    "de": (["Linden", "Garten", "Schul", "Goethe", "Kirch"], ["Berlin", "Köln", "Ulm", "München"]),
    "fr": (["Verdun", "la Paix", "Gambetta", "Provence"], ["Lyon", "Paris", "Nîmes", "Saint-Étienne"]),
    "es": (["Cervantes", "la Luna", "Goya", "Mayor"], ["Madrid", "Sevilla", "Cádiz", "León"]),
    "it": (["Garibaldi", "Roma", "Dante Alighieri", "Mazzini"], ["Milano", "Torino", "Forlì", "Bari"]),
    "pl": (["Długa", "Kościuszki", "Jana Pawła II", "Polna"], ["Warszawa", "Łódź", "Kraków", "Gdańsk"]),
}


def address(rng: random.Random, language: str) -> str:
    form, code = rng.choice(_STREETS[language])
    words, cities = _NAMES[language]
    british = f"{rng.choice(['SW', 'LS', 'E', 'NW'])}{rng.randrange(1, 20)} {digits(rng, 1)}{rng.choice(['AB', 'QX'])}"
    five = f"{rng.randrange(10000, 99999)}"
    zips = {"5": five, "us": five, "pl": f"{rng.randrange(10, 99)}-{digits(rng, 3)}", "uk": british}
    return form.format(
        n=rng.randrange(1, 200), w=rng.choice(words), c=rng.choice(cities), z=zips[code], m=rng.randrange(1, 40),
        l=rng.choice("abc"), s=rng.choice(["OH", "IL", "TX"]),
    )  # fmt: skip


def _letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choice(string.ascii_letters + string.digits) for _ in range(count))


def key(rng: random.Random) -> str:
    subject = base64.urlsafe_b64encode(b'{"sub":"%d"}' % rng.randrange(10**9)).decode().rstrip("=")
    return rng.choice([
        "ghp_" + _letters(rng, 36), "AKIA" + "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16)),
        "sk-" + _letters(rng, 48), "xoxb-" + digits(rng, 12, "123456789") + "-" + _letters(rng, 24),
        "hf_" + _letters(rng, 34), "glpat-" + _letters(rng, 20),
        f"eyJhbGciOiJIUzI1NiJ9.{subject}.{_letters(rng, 43)}",
    ])  # fmt: skip


def password(rng: random.Random) -> str:
    word = rng.choice(["Sommer", "Tiger", "Dragon", "Kaffee", "Amour", "Verano"])
    return rng.choice(
        [f"{word}{rng.randrange(10, 9999)}!", f"{word.lower()}#{_letters(rng, 4)}7", f"{_letters(rng, 9)}A3b!x"]
    )


def _ean_digit(body: str) -> str:
    """Check digit of a number of thirteen digits (GS1 General Specifications, 7.9)."""
    return str(-sum(int(c) * (3 if at % 2 else 1) for at, c in enumerate(body)) % 10)


def other(rng: random.Random) -> Mapping[str, str]:
    """Values of the slots of hard negatives."""
    body = "4" + digits(rng, 14)
    wrong = str((int(luhn_digit(body)) + rng.randrange(1, 10)) % 10)
    good = iban(rng)
    place = next(at for at in range(len(good) - 1, 0, -1) if good[at].isdigit())
    bad = good[:place] + str((int(good[place]) + rng.randrange(1, 9)) % 10) + good[place + 1 :]
    day = born(rng, 2015, 2026)
    ean = "978" + digits(rng, 9)
    long, many = digits(rng, rng.choice((9, 10, 11)), "123456789"), rng.choice((8, 9, 10, 11, 12, 13))
    small = [str(rng.randrange(each)) for each in (30, 20, 30, 99)]
    ean += _ean_digit(ean)
    shop = rng.choice(["400", "401", "690", "691", "471", "978"]) + digits(rng, 9)
    stamp = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=rng.randrange(7 * 365 * 24 * 60))
    page = rng.randrange(1, 900)
    million = f"{rng.randrange(1, 999)} {rng.choice(['000', digits(rng, 3)])} 000"
    return {
        "order": rng.choice([digits(rng, 7, "123"), f"A-{digits(rng, 6)}", f"2026-{digits(rng, 5)}", long]),
        "counter": digits(rng, many, "123456789"), "version": ".".join(small[: rng.choice((3, 4))]),
        "isbn": f"{ean[:3]}-{ean[3]}-{ean[4:6]}-{ean[6:12]}-{ean[12]}", "ean": ean,
        "date": rng.choice([f"{day:%d.%m.%Y}", f"{day:%Y-%m-%d}", f"{day:%d/%m/%Y}"]),
        "time": f"{rng.randrange(24)}:{rng.randrange(60):02}", "hours": "09:00-17:30",
        "tracking": rng.choice([f"00{digits(rng, 18)}", f"1Z{_letters(rng, 16).upper()}"]),
        "invoice": rng.choice([f"RE-2026-{digits(rng, 5)}", digits(rng, 8, "123456789")]),
        "amount": rng.choice(["1,299.00 €", "12 345,50 EUR", "$ 2,500,000.00", "89,90 zł"]),
        "part": f"{digits(rng, 3)}-{_letters(rng, 4).upper()}", "serial": f"SN{digits(rng, 9)}",
        "code": rng.choice([f"0x{digits(rng, 8)}", f"E{digits(rng, 3)}", "404"]),
        "number": str(rng.randrange(2, 5000)), "thousands": f"{rng.randrange(10, 99)} {digits(rng, 3)}",
        "badcard": f"{body[:4]} {body[4:8]} {body[8:12]} {body[12:]}{wrong}", "badiban": bad,
        "section": f"{rng.randrange(1, 12)}.{rng.randrange(12)}.{rng.randrange(9)}", "years": "2019-2023",
        "uuid": str(uuid.UUID(int=rng.getrandbits(128), version=4)), "hash": f"{rng.getrandbits(160):040x}",
        "shop": shop + _ean_digit(shop), "moment": f"{stamp:%d.%m.%y %H.%M}",
        "stamp": rng.choice([f"{stamp:%Y%m%d-%H%M}", f"{stamp:%Y%m%d%H%M}", f"{stamp:%Y%m%d%H%M%S}"]),
        "epoch": f"{stamp.timestamp():.0f}", "dotted": f"{rng.randrange(10, 99)}.{digits(rng, 3)}.000",
        "bare": digits(rng, 7, "123456789"), "million": million,
        "group": f"3{rng.randrange(1, 10)}{digits(rng, 1)} {digits(rng, 3)} {digits(rng, 3)}",
        "mask": rng.choice(["255.0.0.0", "255.255.0.0", "255.255.255.0", "255.255.255.192", "255.255.255.255"]),
        "name": rng.choice(["A::B1", "Cafe::Bad2", "b::c3", "Dad::Add1()"]),
        "list": f"{page:03} {page + 1:03} {page + 2:03} {page + 3:03}",
        "year": str(rng.randrange(1990, 2030)), "quarter": str(rng.randrange(1, 5)),
        "visitors": str(rng.randrange(10_000, 99_999)),
        "size": "120 x 80 x 45 mm", "weight": "3.250 kg",
    }  # fmt: skip


PLAIN: dict[str, Maker] = {"email": email, "card": card, "iban": iban, "ip": ip, "key": key, "password": password}
