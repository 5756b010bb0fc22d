"""Answers that are none: they are counted, for no mean of anything can hold them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from noria.names import Record

Fault = Literal["empty", "repeated", "cut"]
SHORTEST = 24
"""Words below which a text repeats too little to say that it does."""
WORDS = 4
"""Words of a group."""
REPEATED = 0.35
"""Share of groups that were there before, from which on a text goes round in circles.

Chosen by reading answers of one small model, not fitted: a topic that is named again and again stays below it.
"""


class Garbage(Record):
    """How many of `answers` were empty, repeated themselves, or were cut off at the limit of tokens."""

    answers: int
    empty: int
    repeated: int
    cut: int

    @property
    def all(self) -> int:
        """Answers that are of no use; those that were cut off may well be."""
        return self.empty + self.repeated


def fault(text: str, *, cut: bool = False) -> Fault | None:
    """What is wrong with the form of an answer, the worst first: nothing is said of what it says."""
    words = text.split()
    if not any(letter.isalnum() for letter in text):
        return "empty"
    return "repeated" if repeats(words) or _one_word(words) else "cut" if cut else None


def repeats(words: list[str]) -> bool:
    """Whether a text of `SHORTEST` words or more goes round in circles.

    By the share of its groups of four words that it has had before: seq-rep-4 (Welleck et al. 2019, arXiv
    1908.04319).
    """
    if len(words) < SHORTEST:
        return False
    groups = [*zip(*(words[start:] for start in range(WORDS)), strict=False)]
    return 1 - len({*groups}) / len(groups) >= REPEATED


def _one_word(words: list[str]) -> bool:
    """Whether it is one word again and again, or one endless word of few letters."""
    if len(words) >= 6 and len({*words}) == 1:
        return True
    return any(len(word) > 60 and len({*word}) < 8 for word in words)


def count(answers: Iterable[tuple[str, bool]]) -> Garbage:
    """Count the faults of answers; each comes with whether the limit of tokens cut it off."""
    found = [fault(text, cut=cut) for text, cut in answers]
    return Garbage(
        answers=len(found), empty=found.count("empty"), repeated=found.count("repeated"), cut=found.count("cut")
    )
