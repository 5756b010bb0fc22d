"""Is an answer in its sources? Lexical agreement, sentence by sentence, in any language and without a model.

The measure is K-Precision, the share of an answer's words that its knowledge holds (Adlakha et al., "Evaluating
Correctness and Faithfulness of Instruction-Following Models for Question Answering", 2023), with three changes: long
words count more than short ones, which are mostly grammar; words are compared by their first letters, so that endings
do not matter; and a sentence with a number that neither the sources nor the question have is not supported at all.
It does not understand: a sentence that leaves out a "not" agrees with its source.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SUPPORTED = 0.5
"""Share of a sentence's weight from which it counts as supported."""
HELP = 0.15
"""Least share by which a further sentence of the context must help to count among those that support."""
MOST = 3
"""Most sentences of the context that support one of the answer together."""
STEM = 6
"""Letters by which words are compared."""
HEAVIEST = 8
_WEIGHTS = (0, 1, 1, 1, 4, 5, 6, 7)
"""Of words by their length: the shortest are mostly grammar."""
MOST_CHARS, MOST_SENTENCES, MOST_SAID = 32_768, 512, 128
"""How much of a context is looked at, in characters and in sentences, and how many sentences of an answer."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Scripts that put no space between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_TERM = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+")
_UNSPACED_LETTER = re.compile(f"[{_UNSPACED}]")
_SENTENCE = re.compile(r"(?<=[.!?…؟।])\s+|(?<=[。！？])\s*|\n+")
_DIGIT = re.compile(r"\d")
_PAIR = 4
"""Weight of two letters of such a script."""

Terms = Mapping[str, int]
"""Words and their weights."""
Places = Mapping[str, Sequence[int]]
"""Words and the numbers of the sentences that they are in."""


@dataclass(frozen=True, slots=True)
class Source:
    """Sentences that an answer may rest on, taken apart."""

    sentences: Sequence[str]
    places: Places


@dataclass(frozen=True, slots=True)
class Grounding:
    """What of an answer is in its sources.

    `support` is the weighted share of its words, None where it has none; `supported` are sentences of the source that
    the answer rests on, `unused` the others, `unsupported` sentences of the answer that rest on none.
    """

    support: float | None
    supported: tuple[str, ...]
    unused: tuple[str, ...]
    unsupported: tuple[str, ...]


def sentences(text: str) -> list[str]:
    """The sentences of a text, lines being at least one each."""
    return [found for each in _SENTENCE.split(text) if (found := each.strip())]


def terms(text: str) -> dict[str, int]:
    """Words by their first letters, folded, with their weights; pairs of letters where words are not spaced."""
    plain = text.isascii()
    folded = text.lower() if plain else unicodedata.normalize("NFKC", text).casefold()
    found: dict[str, int] = {}
    for word in _TERM.findall(folded):
        size = len(word)
        if not plain and size > 1 and _UNSPACED_LETTER.match(word):
            for place in range(size - 1):
                found[word[place : place + 2]] = _PAIR
        elif word.isalpha():
            found[word[:STEM]] = _WEIGHTS[size] if size < HEAVIEST else HEAVIEST
        else:
            found[word] = HEAVIEST if _DIGIT.search(word) else 1
    return found


def source(text: str) -> Source:
    """A context taken apart."""
    parts = sentences(text[:MOST_CHARS])[:MOST_SENTENCES]
    places: dict[str, list[int]] = {}
    for number, part in enumerate(parts):
        for term in terms(part):
            places.setdefault(term, []).append(number)
    return Source(parts, places)


def ground(context: Source, answer: str, asked: str = "") -> Grounding:
    """Compare an answer with its context; numbers of the question `asked` may be repeated."""
    used: set[int] = set()
    unsupported: list[str] = []
    whole = held = 0
    given: Terms | None = None
    for sentence in sentences(answer[:MOST_CHARS])[:MOST_SAID]:
        wanted = terms(sentence)
        total = sum(wanted.values())
        whole += total
        if strange := [
            term for term in wanted if term not in context.places and not term.isalpha() and _DIGIT.search(term)
        ]:
            given = terms(asked[:MOST_CHARS]) if given is None else given
            if not given.keys() >= set(strange):
                unsupported.append(sentence)
                continue
        places, covered = _cover(wanted, total, context.places)
        held += covered
        if covered >= SUPPORTED * total:
            used.update(places)
        else:
            unsupported.append(sentence)
    return Grounding(
        support=held / whole if whole else None,
        supported=tuple(context.sentences[place] for place in sorted(used)),
        unused=tuple(each for place, each in enumerate(context.sentences) if place not in used),
        unsupported=tuple(unsupported),
    )


def _cover(wanted: Terms, total: int, places: Places) -> tuple[list[int], int]:
    """Sentences that hold most of what is wanted together, greedily, and the weight that they hold."""
    left = [(weight, places[term]) for term, weight in wanted.items() if term in places]
    used: list[int] = []
    covered = 0
    while left and len(used) < MOST:
        gains: dict[int, int] = {}
        for weight, where in left:
            for place in where:
                gains[place] = gains.get(place, 0) + weight
        best = max(gains, key=gains.__getitem__)
        if used and gains[best] < HELP * total:
            break
        used.append(best)
        covered += gains[best]
        left = [each for each in left if best not in each[1]]
    return used, covered
