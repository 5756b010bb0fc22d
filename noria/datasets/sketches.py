"""Sketches of many texts at once: hashed word shingles and MinHash signatures, computed with numpy over whole batches.

The words are those of `noria.datasets.shingles.words`; only their hashes are made, never a string for each.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from noria.datasets.normalise import folded
from noria.datasets.shingles import APART, SINGLE
from noria.datasets.texts import each

ROWS = 4
"""Rows of a band: two texts of Jaccard similarity s share one with probability s^4."""

BANDS = 16
"""Two texts share some band with probability 1 - (1 - s^4)^16: 0.9998 for s = 0.8, 0.988 for s = 0.7."""

Hashes = NDArray[np.uint32]
Words = NDArray[np.uint64]
Counts = NDArray[np.int64]
Bytes = NDArray[np.uint8]

_LOT = 1 << 18
"""Bytes that are worked on at once, so that what is made of them stays in a processor's cache."""
_ODD = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93)
_LETTER, _ALONE, _SPACE, _DIGIT = 1, 2, 4, 8
_SIZES = np.array([1] * 12 + [2, 2, 3, 4])
"""Bytes of a character in UTF-8, by the first four bits of its first byte."""


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

    def shingles(self, texts: pa.Array) -> Shingles:
        """Shingles of these texts."""
        lots = [self._lot(lot) for lot in _lots(folded(texts, each(_fold)))]
        return Shingles(
            np.concatenate([np.empty(0, np.uint32), *(lot.hashes for lot in lots)]),
            starts_of(np.concatenate([np.empty(0, np.int64), *(np.diff(lot.starts) for lot in lots)])),
            np.concatenate([np.empty(0, np.int64), *(lot.words for lot in lots)]),
            np.concatenate([np.empty(0, np.uint64), *(lot.numbers for lot in lots)]),
        )

    def _lot(self, texts: pa.Array) -> Shingles:
        data = b"\n".join([*texts.to_pylist(), bytes(8)])
        ends = np.cumsum(np.asarray(pc.binary_length(texts), np.int64) + 1)
        raw = np.frombuffer(data, np.uint8)
        kinds = self._looked_up(data, raw)
        first, last = _cut(kinds, raw)
        words = np.diff(np.searchsorted(first, ends), prepend=0)
        if len(silent := np.flatnonzero(words == 0)):
            _give_voice(kinds, ends, silent)
            first, last = _cut(kinds, raw)
            words = np.diff(np.searchsorted(first, ends), prepend=0)
        hashes, starts = _hashed(data, first, last), starts_of(words)
        within = np.flatnonzero(kinds & _DIGIT > 0)
        digits = np.searchsorted(first, within[kinds[within] & (_LETTER | _ALONE) > 0], side="right") - 1
        return Shingles(*_runs(hashes, starts, words), words, _numbers(hashes, digits, starts))

    def _looked_up(self, data: bytes, raw: Bytes) -> Bytes:
        """What each byte belongs to. Of a character that is a word of its own only the first byte is marked."""
        kinds = np.frombuffer(bytearray(data.translate(self._ascii)), np.uint8)
        lead = np.flatnonzero(raw >= 0xC0)
        if len(lead):
            sizes = _SIZES[raw[lead] >> 4]
            codes = raw[lead].astype(np.int64) & 0x7F >> sizes
            for place in range(1, 4):
                more = np.flatnonzero(sizes > place)
                codes[more] = codes[more] << 6 | raw[lead[more] + place] & 0x3F
            kinds[lead] = found = self._kinds[codes]
            for place in range(1, 4):
                more = np.flatnonzero((sizes > place) & (found & _ALONE == 0))
                kinds[lead[more] + place] = found[more]
        return kinds


def _cut(kinds: Bytes, raw: Bytes) -> tuple[Counts, Counts]:
    """Where each word begins and ends."""
    letter = kinds & _LETTER > 0
    edges = np.flatnonzero(letter[1:] != letter[:-1]) + 1
    edges = np.concatenate([[0], edges]) if letter[0] else edges
    alone = np.flatnonzero(kinds & _ALONE > 0)
    if not len(alone):
        return edges[::2], edges[1::2]
    after = alone + _SIZES[raw[alone] >> 4]
    return np.sort(np.concatenate([edges[::2], alone])), np.sort(np.concatenate([edges[1::2], after]))


def _give_voice(kinds: Bytes, ends: Counts, silent: Counts) -> None:
    """In texts without a word, what stands between their spaces takes its place."""
    for text in silent:
        part = kinds[ends[text - 1] if text else 0 : ends[text]]
        part |= np.where(part & _SPACE, 0, _LETTER).astype(np.uint8)


def _hashed(data: bytes, first: Counts, last: Counts) -> Words:
    """Hashes of words, eight bytes at a time; as many bytes follow the texts."""
    windows = np.ndarray((len(data) - 8,), "<u8", data, strides=(1,))
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
    """For each text a sum over its words with digits; `digits` are the words' places in order, once for each digit."""
    chosen = digits[np.diff(digits, prepend=-1) > 0]
    sums: Words = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(hashes[chosen]))])
    among = np.searchsorted(chosen, starts)
    found: Words = sums[among[1:]] - sums[among[:-1]]
    return found


def signatures(hashes: Hashes, starts: Counts) -> Hashes:
    """MinHash signatures (Broder 1997) of n sets of hashes: BANDS * ROWS rows of n columns."""
    # Not numpy's generator, whose numbers may change from version to version: workers must agree.
    random = _mixed(np.arange(1, 2 * BANDS * ROWS + 1, dtype=np.uint64) * np.uint64(_ODD[2])) >> np.uint64(32)
    factors, shifts = (
        (random[: BANDS * ROWS] | np.uint64(1)).astype(np.uint32),
        random[BANDS * ROWS :].astype(np.uint32),
    )
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
    """The bucket of each band of n signatures, n rows of BANDS columns, and n sketches of 64 bits.

    Texts of another `salt` share no bucket. A sketch has one bit for each row of the signature (b-bit minwise hashing,
    Li and König 2010): two differ in (1 - s) / 2 of their bits, for Jaccard similarity s.
    """
    bits = np.packbits((signature[:64] >> np.uint32(7) & np.uint32(1)).astype(np.uint8), axis=0)
    sketch = np.ascontiguousarray(bits.T).view(">u8").ravel().astype(np.int64)
    names = []
    for band in range(BANDS):
        name = salt + np.uint64(band)
        for row in signature[band * ROWS : (band + 1) * ROWS].astype(np.uint64):
            name = _mixed(name * np.uint64(_ODD[2]) + row)
        names.append(name)
    return np.stack(names, axis=1).view(np.int64), sketch


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


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _lots(texts: pa.Array) -> Iterator[pa.Array]:
    """The texts as bytes in runs of about _LOT bytes; one that is longer stands alone."""
    ends = np.cumsum(np.asarray(pc.binary_length(texts), np.int64))
    bounds = [0, *(np.flatnonzero(np.diff(ends // _LOT)) + 1).tolist(), len(texts)]
    for start, end in pairwise(bounds):
        if start < end:
            yield texts[start:end].cast(pa.binary())


def _kinds() -> Bytes:
    """What each code point is: part of a word, a word of its own, a space, a digit."""
    kinds = np.full(0x110000, _LETTER, np.uint8)
    # No punctuation, space or letter that stands alone lies outside the first plane, no digit behind U+1FBF9.
    basic = "".join(map(chr, range(0x10000)))
    for kind, pattern in ((0, APART), (_SPACE, r"\s"), (_ALONE, SINGLE)):
        kinds[[found.start() for found in re.finditer(f"[{pattern}]", basic)]] = kind
    kinds[[code for code in range(0x20000) if chr(code).isdigit()]] |= _DIGIT
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
