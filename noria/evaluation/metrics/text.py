"""How the metrics read a text: its words, its label, its list of labels."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

_PUNCTUATION = set(string.punctuation) | set("…–—„“”‘’«»¿¡、。·")
_BULLET = re.compile(r"^[ \t]*(?:[-*+•‣◦▪–—]|\d{1,3}[.)])[ \t]+", re.MULTILINE)
_BETWEEN = re.compile(r"[,;\n]")


def words(text: str) -> list[str]:
    """Words as the metrics compare them: NFKC, lower case, no punctuation, no English articles."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(" " if letter in _PUNCTUATION else letter for letter in folded)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def bullets(text: str) -> int:
    """Lines that begin with a bullet or a number."""
    return len(_BULLET.findall(text))


def normal(text: str) -> str:
    """A label as it is compared: its words, or the bare text where it has none."""
    return " ".join(words(text)) or text.strip().casefold()


def label(text: str, choices: Sequence[str] = ()) -> str | None:
    """The class that a text names.

    Without `choices` it is the text itself. With them it is the choice that the text is, or else the only one whose
    words stand in it; None where there is none such, or more than one.
    """
    whole = normal(text)
    known = {normal(choice) for choice in choices}
    if not known or whole in known:
        return whole
    within = [choice for choice in known if f" {choice} " in f" {whole} "]
    # "not confirmed" holds "confirmed" too: the longer choice is meant.
    longest = [one for one in within if not any(one != other and f" {one} " in f" {other} " for other in within)]
    return longest[0] if len(longest) == 1 else None


def labels(text: str) -> tuple[str, ...]:
    """The labels that a text lists, in order and each once, between commas, semicolons or line ends."""
    parts = (normal(_BULLET.sub("", part)) for part in _BETWEEN.split(text))
    return tuple(dict.fromkeys(part for part in parts if part))
