"""Hashed shingles say what the shingles themselves say; signatures find what they promise to."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.datasets import sketches
from noria.datasets.dedupe import NUMBERS_MATTER, SIMILAR, similar
from noria.datasets.shingles import jaccard, word_shingles, words
from noria.datasets.sketches import BANDS, ROWS, Shingler, Shingles, buckets, jaccards, signatures, unique

TRICKY = (
    "Hello world, this is a test 42", "", "one", "two words", "? !", "?", " \n ", "日本語 is ok 3", "ﬁne ligature ²x ❶",
    "हिन्दी भाषा है", "❶ ❷", "a\nb\tc\x00d", "ÄÖÜ straße STRASSE", "สวัสดีครับ", "e\u0301te\u0301 ÉTÉ", "🙂 ok 🙂🙂 ١٢٣",
    "internationalisation of antidisestablishmentarianism", "\U000e0100x", "word\u200bjoined",
)  # fmt: skip
SHINGLER = Shingler()
TEXTS = st.text(st.sampled_from("ab1 .\n日éß٣ﬁ❷🙂") | st.characters(exclude_categories=["Cs"]), max_size=40)


def shingled(*texts: str) -> Shingles:
    return SHINGLER.shingles(pa.array(texts, pa.string()))


def alike(left: str, right: str) -> float:
    """Jaccard similarity by way of hashes."""
    shingles = shingled(left, right)
    hashes, starts = unique(shingles.hashes, shingles.starts)
    sides = hashes[: starts[1]], starts[:2], hashes[starts[1] :], starts[1:] - starts[1]
    return float(jaccards(*sides)[0])


def check(texts: list[str]) -> None:
    shingles = shingled(*texts)
    sets = [
        set(shingles.hashes[start:end].tolist())
        for start, end in zip(shingles.starts, shingles.starts[1:], strict=False)
    ]
    numbers = [sorted(word for word in words(text) if any(map(str.isdigit, word))) for text in texts]
    assert shingles.words.tolist() == [len(words(text)) for text in texts]
    assert [len(found) for found in sets] == [len(word_shingles(text)) for text in texts]
    for left in range(len(texts)):
        for right in range(left):
            assert len(sets[left] & sets[right]) == len(word_shingles(texts[left]) & word_shingles(texts[right]))
            assert (shingles.numbers[left] == shingles.numbers[right]) == (numbers[left] == numbers[right])


def test_words_of_every_script_are_the_same_as_strings_and_as_hashes() -> None:
    check(list(TRICKY))


@given(st.lists(TEXTS, max_size=6))
def test_hashes_say_what_shingles_say(texts: list[str]) -> None:
    check(texts)


@given(TEXTS, TEXTS)
def test_similarity_is_that_of_the_shingles(left: str, right: str) -> None:
    assert alike(left, right) == pytest.approx(jaccard(word_shingles(left), word_shingles(right)))


def test_a_text_has_the_same_hashes_in_every_company(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [shingled(text).hashes.tolist() for text in TRICKY]
    monkeypatch.setattr(sketches, "_LOT", 50)
    shingles = shingled(*TRICKY)
    bounds = zip(shingles.starts, shingles.starts[1:], strict=False)
    assert [shingles.hashes[start:end].tolist() for start, end in bounds] == alone


def test_nothing_is_no_text() -> None:
    shingles = shingled()
    assert (len(shingles.hashes), shingles.starts.tolist(), len(shingles.words)) == (0, [0], 0)
    assert signatures(shingles.hashes, shingles.starts).shape == (BANDS * ROWS, 0)


@pytest.mark.parametrize("similarity", [0.8, 0.9])
def test_bands_find_ninety_nine_of_a_hundred(similarity: float) -> None:
    pairs, size = 4000, 90
    both = round(2 * size * similarity / (1 + similarity))
    random = np.random.default_rng(3)
    draws = random.integers(0, 1 << 32, (pairs, 2 * size - both), dtype=np.uint32)
    left, right = draws[:, :size], draws[:, size - both :]
    starts = np.arange(0, pairs * size + 1, size)
    found = []
    for side in (left, right):
        found.append(buckets(signatures(side.ravel(), starts), np.zeros(pairs, np.uint64)))
    hit = (found[0][0] == found[1][0]).any(axis=1)
    assert hit.mean() >= 0.998
    differing = np.bitwise_count((found[0][1] ^ found[1][1]).view(np.uint64))
    assert differing.mean() == pytest.approx(64 * (1 - similarity) / 2, rel=0.1)


def test_other_sources_share_no_bucket() -> None:
    shingles = shingled(*["the same few words here"] * 2)
    names, _ = buckets(signatures(shingles.hashes, shingles.starts), np.array([1, 2], np.uint64))
    assert not (names[0] == names[1]).any()


@given(TEXTS, TEXTS)
def test_numbers_in_short_texts_are_facts(left: str, right: str) -> None:
    shingles = shingled(left, right)
    same = bool(shingles.numbers[0] == shingles.numbers[1]) or shingles.words.max() >= NUMBERS_MATTER
    assert similar((left,), (right,)) == (alike(left, right) >= SIMILAR and same)
