"""Sketches of many texts at once: hashed word shingles and MinHash signatures, computed with numpy over whole batches.

The words are those of `noria.datasets.shingles.words`; only their hashes are made, never a string for each.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from noria.datasets.shingles import APART, SINGLE

ROWS = 4
"""Rows of a band: two texts of Jaccard similarity s share one with probability s^4."""

BANDS = 16
"""Two texts share some band with probability 1 - (1 - s^4)^16: 0.9998 for s = 0.8, 0.988 for s = 0.7."""

Hashes = NDArray[np.uint32]
Words = NDArray[np.uint64]
Counts = NDArray[np.int64]

_LOT = 1 << 18
"""Characters that are worked on at once, so that what is made of them stays in a processor's cache."""
_ODD = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93)
_SEED = 42
_LETTER, _ALONE, _SPACE, _DIGIT = 1, 2, 4, 8


@dataclass(frozen=True, slots=True)
class Shingles:
    """Hashed runs of three words of each of n texts, one text after the other, repeats included.

    `hashes[starts[i]:starts[i + 1]]` are those of text i; a text of fewer words has one shorter run, one without
    words none. `words` counts words, `numbers` is the same for texts whose words with digits are the same ones.
    """

    hashes: Hashes
    starts: Counts
    words: Counts
    numbers: Words


class Shingler:
    """Cuts and hashes texts; holds the tables for it, and is made once for a stream of batches."""

    def __init__(self) -> None:
        self._kinds = _kinds()
        self._ascii = self._kinds[:128].tobytes().ljust(256, b"\0")

    def shingles(self, texts: Sequence[str]) -> Shingles:
        """Shingles of these texts."""
        lots = [self._lot(lot) for lot in _lots([_folded(text) for text in texts])]
        return Shingles(
            np.concatenate([np.empty(0, np.uint32), *(lot.hashes for lot in lots)]),
            starts_of(np.concatenate([np.empty(0, np.int64), *(np.diff(lot.starts) for lot in lots)])),
            np.concatenate([np.empty(0, np.int64), *(lot.words for lot in lots)]),
            np.concatenate([np.empty(0, np.uint64), *(lot.numbers for lot in lots)]),
        )

    def _lot(self, texts: Sequence[str]) -> Shingles:
        text = "\n".join(texts) + "\n"
        data = text.encode()
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
        kinds, places = self._looked_up(text, data)
        first, last = _cut(kinds)
        words = np.diff(np.searchsorted(first, ends), prepend=0)
        if len(silent := np.flatnonzero(words == 0)):
            _give_voice(kinds, ends, silent)
            first, last = _cut(kinds)
            words = np.diff(np.searchsorted(first, ends), prepend=0)
        within = np.flatnonzero(kinds & _DIGIT)
        digits = np.searchsorted(first, within[kinds[within] & (_LETTER | _ALONE) > 0], side="right") - 1
        hashes = _hashed(data, *((first, last) if places is None else (places[first], places[last])))
        starts = starts_of(words)
        return Shingles(*_runs(hashes, starts, words), words, _numbers(hashes, digits, starts))

    def _looked_up(self, text: str, data: bytes) -> tuple[NDArray[np.uint8], Counts | None]:
        """Kind of each character, and where its bytes begin unless each has one."""
        if len(text) == len(data):
            return np.frombuffer(bytearray(data.translate(self._ascii)), np.uint8), None
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        sizes = 1 + (codes > 0x7F) + (codes > 0x7FF).astype(np.int64) + (codes > 0xFFFF)
        return self._kinds[codes], starts_of(sizes)


def _cut(kinds: NDArray[np.uint8]) -> tuple[Counts, Counts]:
    """Where each word begins and ends."""
    letter, alone = kinds & _LETTER > 0, kinds & _ALONE > 0
    edges = np.flatnonzero(letter[1:] != letter[:-1]) + 1
    edges = np.concatenate([[0], edges]) if letter[:1].any() else edges
    if not alone.any():
        return edges[::2], edges[1::2]
    single = np.flatnonzero(alone)
    return np.sort(np.concatenate([edges[::2], single])), np.sort(np.concatenate([edges[1::2], single + 1]))


def _give_voice(kinds: NDArray[np.uint8], ends: Counts, silent: Counts) -> None:
    """In texts without a word, what stands between their spaces takes its place."""
    for text in silent:
        part = kinds[ends[text - 1] if text else 0 : ends[text]]
        part |= np.where(part & _SPACE, 0, _LETTER).astype(np.uint8)


def _hashed(data: bytes, first: Counts, last: Counts) -> Words:
    """Hashes of words, eight bytes at a time."""
    windows = np.ndarray((len(data),), "<u8", data + bytes(8), strides=(1,))
    masks = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
    left = last - first
    hashes = _mixed(windows[first] & masks[np.minimum(left, 8)])
    done, rest = 8, np.flatnonzero(left > 8)
    while len(rest):
        more = windows[first[rest] + done] & masks[np.minimum(left[rest] - done, 8)]
        hashes[rest] = _mixed(hashes[rest] * np.uint64(_ODD[1]) + more)
        done += 8
        rest = rest[left[rest] > done]
    return hashes


def _numbers(hashes: Words, digits: Counts, starts: Counts) -> Words:
    """For each text a sum over its words with digits; `digits` are the words' places, once for each digit."""
    chosen = np.unique(digits)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(hashes[chosen]))])
    among = np.searchsorted(chosen, starts)
    return sums[among[1:]] - sums[among[:-1]]


def signatures(hashes: Hashes, starts: Counts) -> Hashes:
    """MinHash signatures (Broder 1997) of n sets of hashes: BANDS * ROWS rows of n columns."""
    random = np.random.default_rng(_SEED)
    factors = random.integers(0, 1 << 31, BANDS * ROWS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    shifts = random.integers(0, 1 << 32, BANDS * ROWS, dtype=np.uint32)
    signature = np.full((BANDS * ROWS, len(starts) - 1), np.uint32(0xFFFFFFFF))
    full = np.flatnonzero(np.diff(starts))
    if not len(full):
        return signature
    places, values = starts[full], np.empty_like(hashes)
    for row in range(BANDS * ROWS):
        np.multiply(hashes, factors[row], out=values)
        np.add(values, shifts[row], out=values)
        signature[row, full] = np.minimum.reduceat(values, places)
    return signature


def buckets(signature: Hashes, salt: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One bucket for each band of n signatures, and one order of its members: two arrays of n rows of BANDS columns.

    Texts of another `salt` share no bucket. The order is a sketch of one bit for each row of the signature (Li and
    König 2010), turned so that the bits of other bands come first: texts that are similar stand close together, and
    two orders in one bucket differ in (1 - s) / 2 of their bits, for Jaccard similarity s.
    """
    bits = np.packbits((signature >> np.uint32(7) & np.uint32(1)).astype(np.uint8), axis=0)
    sketch = np.ascontiguousarray(bits.T).view(">u8").ravel().astype(np.uint64)
    names, orders = [], []
    for band in range(BANDS):
        rows = signature[band * ROWS : (band + 1) * ROWS].astype(np.uint64)
        name = salt + np.uint64(band)
        for row in rows:
            name = _mixed(name * np.uint64(_ODD[2]) + row)
        names.append(name)
        turn = (band + 1) * ROWS % 64
        orders.append(sketch << np.uint64(turn) | sketch >> np.uint64(64 - turn) if turn else sketch)
    return np.stack(names, axis=1).view(np.int64), np.stack(orders, axis=1).view(np.int64)


def unique(hashes: Hashes, starts: Counts) -> tuple[Hashes, Counts]:
    """The different hashes of each of n sets in ascending order, and where each set starts now."""
    owner = np.repeat(np.arange(len(starts) - 1, dtype=np.uint64), np.diff(starts))
    keys = np.sort(owner << np.uint64(32) | hashes)
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
    counts = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=len(starts) - 1)
    return keys.astype(np.uint32), starts_of(counts)


def jaccards(left: Hashes, lefts: Counts, right: Hashes, rights: Counts) -> NDArray[np.float64]:
    """Jaccard similarity of n pairs of sets, each without repeats; 1 for two empty sets."""
    sizes = np.diff(lefts), np.diff(rights)
    pair = np.arange(len(lefts) - 1, dtype=np.uint64) << np.uint64(32)
    keys = np.sort(np.concatenate([np.repeat(pair, sizes[0]) | left, np.repeat(pair, sizes[1]) | right]))
    twice = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)
    both = np.bincount(twice.astype(np.int64), minlength=len(pair))
    either = sizes[0] + sizes[1] - both
    return np.where(either, both / np.maximum(either, 1), 1.0)


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def _lots(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in runs of about _LOT characters; one that is longer stands alone."""
    start = size = 0
    for place, text in enumerate(texts):
        if size and size + len(text) > _LOT:
            yield texts[start:place]
            start, size = place, 0
        size += len(text) + 1
    if start < len(texts):
        yield texts[start:]


def _kinds() -> NDArray[np.uint8]:
    """What each code point is: part of a word, a word of its own, a space, a digit."""
    kinds = np.full(0x110000, _LETTER, np.uint8)
    basic = "".join(map(chr, range(0x10000)))
    for kind, pattern in ((0, APART), (_ALONE, SINGLE)):
        kinds[[found.start() for found in re.finditer(f"[{pattern}]", basic)]] = kind
    # No digit stands behind U+1FBF9, no space outside the first plane.
    kinds[[code for code in range(0x20000) if chr(code).isdigit()]] |= _DIGIT
    kinds[[code for code in range(0x10000) if chr(code).isspace()]] |= _SPACE
    return kinds


def _runs(words: Words, starts: Counts, counts: Counts) -> tuple[Hashes, Counts]:
    """Hashes of runs of three words within each text."""
    many = np.where(counts > 2, counts - 2, np.minimum(counts, 1))
    places = starts_of(many)
    a, b, c = (np.uint64(odd) for odd in _ODD)
    padded = np.concatenate([words, np.zeros(2, np.uint64)])
    chosen = np.arange(places[-1]) + np.repeat(starts[:-1] - places[:-1], many)
    runs = (padded[:-2] * a + padded[1:-1] * b + padded[2:] * c)[chosen]
    short = np.flatnonzero((counts == 1) | (counts == 2))
    first = starts[short]
    runs[places[short]] = padded[first] * a + np.where(counts[short] == 2, padded[first + 1] * b, np.uint64(0))
    return (_mixed(runs) >> np.uint64(32)).astype(np.uint32), places


def _mixed(values: Words) -> Words:
    values = (values ^ values >> np.uint64(32)) * np.uint64(_ODD[0])
    return values ^ values >> np.uint64(29)


def starts_of(counts: Counts) -> Counts:
    """Where each of n runs of these lengths starts, one after the other, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
