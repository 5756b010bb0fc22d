"""Realistic rows with planted items: carriers of six languages, hard negatives beside them. Seeded."""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from pathlib import Path

from benchmarks.personal import items, made

LANGUAGES = ("en", "de", "fr", "es", "it", "pl")
KINDS = {"key": "secret", "password": "secret"}
_FIRST = ["Jane", "Thomas", "Maria", "Peter", "Laura", "David", "Susan", "Mark"]
_LAST = ["Miller", "Johnson", "Baker", "Schmidt", "Carter", "Novak", "Bennett", "Hughes"]


@dataclass(frozen=True, slots=True)
class Planted:
    """One item: its kind and maker (`national_id`, `nl.bsn`), and where it lies in the row's text."""

    kind: str
    maker: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Row:
    """One text of about 650 characters at most."""

    language: str
    text: str
    planted: tuple[Planted, ...]


def rows(items_wanted: int, seed: int = 7, names: bool = False) -> list[Row]:
    """Rows that hold so many items in all, every kind in every language that it occurs in; `names` adds names."""
    rng = random.Random(seed)
    carriers = tomllib.loads((Path(__file__).parent / "carriers.toml").read_text(encoding="utf-8"))
    plain = [*items.PLAIN, "phone", "address"]
    makers = [(kind, language) for kind in plain for language in LANGUAGES]
    makers += [(name, "") for name in made.NATIONAL] * 2
    if names:
        makers = [("name", "en")] * 6 + [each for each in makers if each[1] in ("en", "")]
    found: list[Row] = []
    planted = 0
    while planted < items_wanted:
        chosen = [
            makers[(planted + at) % len(makers)] for at in range(min(rng.choice((1, 1, 2, 3)), items_wanted - planted))
        ]
        planted += len(chosen)
        found.append(_row(rng, carriers, chosen))
    return found


def _row(rng: random.Random, carriers: dict[str, dict[str, list[str]]], chosen: list[tuple[str, str]]) -> Row:
    language = next((each for _, each in chosen if each), rng.choice(LANGUAGES))
    sentences: list[tuple[str, str, str]] = []
    for name, own in chosen:
        spoken = own or language
        templates = carriers["ids"][name] if name in made.NATIONAL else carriers[spoken][name]
        sentences.append((rng.choice(templates), _item(rng, name, spoken), name))
    for _ in range(rng.randrange(1, 4)):
        filler = carriers[language]["filler"] if rng.random() < 0.5 else carriers[language]["negative"]
        sentences.append((rng.choice(filler).format(**items.other(rng)), "", ""))
    rng.shuffle(sentences)
    text, spots = "", list[Planted]()
    for template, item, name in sentences:
        gap = rng.choice([" ", " ", "\n"]) if text else ""
        text += gap
        if item:
            start = len(text) + template.index("{x}")
            kind = _kind(name)
            spots.append(Planted(kind, name, start, start + len(item)))
        text += template.replace("{x}", item)
    return Row(language, text, tuple(spots))


def _item(rng: random.Random, name: str, language: str) -> str:
    if name in made.NATIONAL:
        return made.NATIONAL[name](rng)
    if name == "name":
        return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"
    if name == "phone":
        return items.phone(rng, language)
    if name == "address":
        return items.address(rng, language)
    return items.PLAIN[name](rng)


def _kind(name: str) -> str:
    if name in made.NATIONAL:
        return "ssn" if name == "us.ssn" else "national_id"
    return KINDS.get(name, name)
