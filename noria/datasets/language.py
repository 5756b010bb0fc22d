"""Step `language`: which language a text is in, by the model of langid.py (Lui and Baldwin 2012), a batch at a time.

The model is a finite automaton over bytes that counts features, and naive Bayes over the counts. Here it walks all
texts of a batch at once, so that a text costs microseconds; the answers are those of py3langid.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from noria.datasets.normalise import composed
from noria.datasets.texts import Opened, Step, Texts
from noria.errors import Invalid, Unavailable
from noria.settings import LanguageStep

if TYPE_CHECKING:
    import pyarrow as pa

_Numbers = npt.NDArray[np.int64]
_Bytes = npt.NDArray[np.uint8]

UNKNOWN = "und"
"""ISO 639's own code for what could not be determined."""


def language(keep: Sequence[str], confidence: float, unsure: str, chars: int) -> Opened:
    """Keep the documents in these languages, and those whose language is not sure where `unsure` is "keep"."""

    def opened() -> Step:
        model = Model()
        wanted = np.array([code in keep for code in model.codes])

        def step(texts: Texts) -> Texts:
            found, probability = model.classify(texts.text, chars)
            return texts.only(np.where(probability >= confidence, wanted[found], unsure == "keep"))

        return step

    return opened


def check(keep: Sequence[str], place: str) -> None:
    """Raise Invalid for a language that the model does not know, Unavailable when the model is not installed."""
    if unknown := sorted(set(keep) - set(Model().codes)):
        raise Invalid(
            f"step 'language' cannot tell language '{unknown[0]}'",
            f"known are: {', '.join(sorted(set(Model().codes)))}",
            where=place,
        )


def count(texts: Iterable[str]) -> dict[str, int]:
    """How many of the texts are in each language (ISO 639, or `und`), the most frequent first.

    By the same model as the step, with its usual options. Raises Unavailable when the model is not installed.
    """
    import pyarrow as pa

    usual = LanguageStep.model_fields
    model = Model()
    found, probability = model.classify(pa.array(texts, pa.string()), usual["chars"].default)
    sure = probability >= usual["confidence"].default
    counted = Counter(
        model.codes[number] if known else UNKNOWN for number, known in zip(found.tolist(), sure.tolist(), strict=True)
    )
    return dict(sorted(counted.items(), key=lambda each: (-each[1], each[0])))


class Model:
    """The model of py3langid with its own weights; `codes` are the languages by number."""

    def __init__(self) -> None:
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ModuleNotFoundError as error:
            raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[data]'") from error
        model: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self.codes: list[str] = list(model.nb_classes)
        self._next = np.frombuffer(model.tk_nextmove, dtype=f"u{model.tk_nextmove.itemsize}").astype(np.int64)
        self._base = np.asarray(model._rowbase, dtype=np.int64)
        self._out = np.asarray(model.tk_output, dtype=np.int64)
        self._weights = np.asarray(model.nb_ptc, dtype=np.float32)
        self._prior = np.asarray(model.nb_pc, dtype=np.float32)
        self._same: list[tuple[int, int]] = list(model._alias_pairs)

    def classify(self, text: pa.Array, chars: int) -> tuple[_Numbers, npt.NDArray[np.float32]]:
        """Number and probability of the language of each text, by its first `chars` characters."""
        import pyarrow as pa
        import pyarrow.compute as pc

        head = pc.utf8_slice_codeunits(text, 0, chars)
        head = composed(pc.if_else(pc.utf8_is_upper(head), pc.utf8_lower(head), head)).cast(pa.large_binary())
        data = np.frombuffer(head.buffers()[2] or b"", dtype=np.uint8)
        offsets = np.frombuffer(head.buffers()[1], dtype=np.int64)[head.offset : head.offset + len(head) + 1]
        length = np.diff(offsets)
        # The shortest first: those that have ended stand before those that go on.
        order = np.argsort(length, kind="stable")
        scores = np.empty((len(head), len(self.codes)), dtype=np.float32)
        scores[order] = self._scores(data, offsets[:-1][order], length[order])
        return scores.argmax(axis=1), scores.max(axis=1)

    def _scores(self, data: _Bytes, begin: _Numbers, length: _Numbers) -> npt.NDArray[np.float32]:
        """Probabilities by language of texts in the order of their lengths; softmax at the temperature √bytes."""
        rows, features = self._visits(data, begin, length)
        width = len(self._weights)
        keys, counts = np.unique(rows * width + features, return_counts=True)
        bounds = np.searchsorted(keys, np.arange(len(begin) + 1) * width)
        features, weights = keys % width, np.log1p(counts.astype(np.float32))
        scores = np.zeros((len(begin), len(self.codes)), dtype=np.float32)
        for row, (start, end) in enumerate(itertools.pairwise(bounds.tolist())):
            if end > start:
                scores[row] = weights[start:end] @ self._weights[features[start:end]] + self._prior
        scores /= np.sqrt(np.maximum(length, 1).astype(np.float32))[:, None]
        np.exp(scores - scores.max(axis=1, keepdims=True), out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        for kept, other in self._same:
            scores[:, kept] += scores[:, other]
            scores[:, other] = 0.0
        return scores

    def _visits(self, data: _Bytes, begin: _Numbers, length: _Numbers) -> tuple[_Numbers, _Numbers]:
        """Walk the automaton through all texts, a byte of each at a time; returns pairs of text and feature."""
        state = np.zeros(len(begin), dtype=np.int64)
        rows, features = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        for place in range(int(length.max(initial=0))):
            # Sorted by length: those that have ended are the first.
            on = int(np.searchsorted(length, place, side="right"))
            state[on:] = self._next[self._base[state[on:]] + data[begin[on:] + place]]
            out = self._out[state[on:]]
            hit = np.flatnonzero(out >= 0)
            rows.append(hit + on)
            features.append(out[hit])
        return np.concatenate(rows), np.concatenate(features)
