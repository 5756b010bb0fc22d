"""Nearest documents by meaning: vectors of an encoder, compared exactly, beside the index of words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from noria.errors import Invalid
from noria.ports import Hit, Meant

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FILE = "vectors.npy"
DEEPER = 4
"""So many times as many documents are looked at where both orders count."""
FUSION = 60
"""Of reciprocal rank fusion: how little the first places weigh more (Cormack, Clarke and Büttcher 2009)."""
LEAST = 0.4
"""Least cosine of what is about the question: no context is better than a misleading one. Measured with MiniLM on
examples/helpdesk: 96 % of the customers' questions pass, and 19 % of those about what stands in no document."""


class Words(Protocol):
    """An index of words whose documents have numbers from 1, in order of their ids."""

    def numbers(self, text: str, k: int) -> list[int]:
        """The nearest by words."""

    def hit(self, number: int) -> Hit:
        """The document with this number."""

    def close(self) -> None:
        """Give the memory back."""


class MeaningIndex:
    """Port `Index` over words and vectors; the file of vectors is mapped, not read."""

    def __init__(self, words: Words, matrix: npt.NDArray[np.float32]) -> None:
        self._words = words
        self._matrix = matrix

    def search(self, text: str, k: int, meant: Meant | None = None) -> list[Hit]:
        """At most `k` documents, nearest first by the cosine of their vectors, by words where no vector is given.

        Raises Invalid for a vector of other dimensions.
        """
        if meant is None or k < 1:
            return [self._words.hit(number) for number in self._words.numbers(text, k)]
        deep = DEEPER * k if meant.rerank else k
        by_meaning = self._nearest(meant.vector, deep)
        if not meant.rerank:
            return [self._words.hit(number) for number in by_meaning]
        by_words = self._words.numbers(text, deep)
        first, second = (by_meaning, by_words) if meant.by == "meaning" else (by_words, by_meaning)
        return [self._words.hit(number) for number in fused(first, second)[:k]]

    def hit(self, number: int) -> Hit:
        """The document with this number, from 1."""
        return self._words.hit(number)

    def close(self) -> None:
        """Give the memory back."""
        self._words.close()

    def _nearest(self, vector: Sequence[float], k: int) -> list[int]:
        import numpy as np

        asked = np.asarray(vector, np.float32)
        if asked.shape != self._matrix.shape[1:]:
            raise Invalid(
                f"the question's vector has {asked.size} numbers, those of the index {self._matrix.shape[1]}",
                "the engine of the context has another model: noria run dataset",
            )
        near = self._matrix @ asked
        best = np.argsort(-near, kind="stable")[:k]
        return [int(place) + 1 for place in best if near[place] >= LEAST]


def fused(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """What stands in `first`, in the order of both by reciprocal rank fusion."""
    places = {number: place for place, number in enumerate(second, 1)}

    def score(item: tuple[int, int]) -> float:
        place, number = item
        return 1 / (FUSION + place) + (1 / (FUSION + places[number]) if number in places else 0.0)

    return [number for _, number in sorted(enumerate(first, 1), key=score, reverse=True)]


def write(made: Sequence[Sequence[float]], folder: Path) -> None:
    """Write the vectors of the documents, in order of their ids; raises Invalid where they are not of one length."""
    import numpy as np

    if len({len(each) for each in made}) > 1:
        raise Invalid("the engine gave vectors of different lengths", "ask one model for all of them")
    np.save(folder / FILE, np.asarray(made, np.float32).reshape(len(made), -1), allow_pickle=False)


def read(folder: Path) -> npt.NDArray[np.float32] | None:
    """The vectors that lie beside an index; None where there are none."""
    import numpy as np

    file = folder / FILE
    return np.load(file, mmap_mode="r", allow_pickle=False) if file.is_file() else None


def opened(words: Words, folder: Path) -> MeaningIndex | None:
    """An index that finds by meaning, where there are vectors; numpy is loaded only then."""
    if not (folder / FILE).is_file():
        return None
    matrix = read(folder)
    assert matrix is not None
    return MeaningIndex(words, matrix)
