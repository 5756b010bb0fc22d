"""When two texts are nearly the same: shingles, Jaccard similarity to verify them."""

from __future__ import annotations

import re
import unicodedata

SINGLE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Scripts without spaces: every character is a word. A class of characters, as regular expressions write it."""

APART = (
    "\\s\x00-/:-@\\[-`{-\u00a9\u00ab-\u00b1\u00b4-\u00b9\u00bb-\u00bf\u00d7\u00f7\u055a-\u055f\u0589\u05be\u05c0"
    "\u05c3\u05f3\u05f4\u060c\u061b\u061f\u066a-\u066d\u06d4\u0964\u0965\u2000-\u206f\u2190-\u2bff\u3000-\u303f"
    "\ufe10-\ufe6f\uff00-\uff0f\uff1a-\uff20"
)
"""Spaces and punctuation, which end a word; \\W would cut words at the vowel signs of Hindi."""

_WORD = re.compile(f"[{SINGLE}]|[^{APART}{SINGLE}]+")


def words(text: str) -> list[str]:
    """Words of a text without case, compatibility forms (NFKC) and punctuation; single characters where no spaces are.

    A text of nothing but punctuation is its own only word, so that "?" and "!" stay two texts.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(folded) or folded.split()


def word_shingles(text: str, size: int = 3) -> frozenset[str]:
    """Runs of `size` words; one shorter run for a text of fewer words, none for an empty text."""
    found = words(text)
    return frozenset(" ".join(found[at : at + size]) for at in range(max(min(len(found), 1), len(found) - size + 1)))


def char_shingles(text: str, size: int = 3) -> frozenset[str]:
    """Runs of `size` characters over the words of a text, spaces between and around them included."""
    line = f" {' '.join(words(text))} "
    return frozenset(line[at : at + size] for at in range(max(1, len(line) - size + 1)))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Size of the intersection over that of the union, in [0, 1]; 1 for two empty sets."""
    if not left or not right:
        return 1.0 if left == right else 0.0
    both = len(left & right)
    return both / (len(left) + len(right) - both)


class Clusters:
    """Connected components that grow by edges (union-find); a component is named by its smallest member."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, member: str) -> str:
        """Name of the component of a member; an unknown member is a component of its own."""
        root = member
        while (above := self._parent.get(root, root)) != root:
            root = above
        while (above := self._parent.get(member, member)) != root:
            self._parent[member] = root
            member = above
        return root

    def join(self, left: str, right: str) -> None:
        """Make one component of two."""
        small, large = sorted((self.find(left), self.find(right)))
        self._parent[large] = small
