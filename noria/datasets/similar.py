"""Near duplicates among many short texts: MinHash bands over character 3-grams, each pair verified.

Bands are steep (8 rows each, 128 of them; Broder 1997, Indyk and Motwani 1998): a pair of similarity 0.7 is found with
probability 0.9995, one of 0.8 with 1 - 6e-11, and of texts that share no more than a language hardly any pair is ever
compared, so that the work grows with the number of texts and not with its square.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from noria.datasets.shingles import char_shingles, jaccard

BANDS, ROWS = 128, 8
SEED = 42
SIMILAR = 0.7
"""Two texts are near duplicates from this Jaccard similarity of their character 3-grams on."""

GROUPS, MEMBERS = 16, 8
"""In one bucket a text is compared with so many groups, and with so many texts of each: floods stay cheap."""

_BATCH = 1024

Keys = NDArray[np.uint64]
Pairs = Callable[[int, int], bool]


def band_keys(texts: Sequence[str]) -> Keys:
    """One key per text and band, shape (texts, 128)."""
    from rensa import RMinHash

    mixing = np.random.default_rng(SEED).integers(1, 2**63, ROWS, dtype=np.uint64) | np.uint64(1)
    keys = np.empty((len(texts), BANDS), np.uint64)
    for start in range(0, len(texts), _BATCH):
        part = texts[start : start + _BATCH]
        digests = np.empty((len(part), BANDS * ROWS), np.uint32)
        for place, text in enumerate(part):
            sketch = RMinHash(num_perm=BANDS * ROWS, seed=SEED)
            sketch.update(sorted(char_shingles(text)))
            digests[place] = array("I", sketch.digest())
        mixed = (digests.reshape(len(part), BANDS, ROWS).astype(np.uint64) * mixing).sum(axis=2, dtype=np.uint64)
        keys[start : start + len(part)] = mixed ^ (mixed >> np.uint64(29))
    return keys


def clusters(texts: Sequence[str]) -> list[int]:
    """For each text the smallest number of a text in its component of near duplicates."""
    if not texts:
        return []
    keys, parent = band_keys(texts), np.arange(len(texts))
    similar = _similarity(texts, texts)
    for band in range(BANDS):
        parent = _flat(parent)
        for bucket in _buckets(keys[:, band], parent):
            _join(bucket, parent, similar)
    found: list[int] = _flat(parent).tolist()
    return found


def matches(texts: Sequence[str], held: Sequence[str]) -> dict[int, int]:
    """Numbers of the texts that are near duplicates of a held one, with the number of one of these."""
    if not texts or not held:
        return {}
    mine, theirs = band_keys(texts), band_keys(held)
    similar, found = _similarity(texts, held), dict[int, int]()
    tried: set[tuple[int, int]] = set()
    for band in range(BANDS):
        order = np.argsort(theirs[:, band], kind="stable")
        column = theirs[order, band]
        first, last = (np.searchsorted(column, mine[:, band], side) for side in ("left", "right"))
        for number in np.flatnonzero(last > first).tolist():
            if number in found:
                continue
            for place in range(first[number], min(last[number], first[number] + GROUPS)):
                pair = (number, int(order[place]))
                if pair not in tried and similar(*pair):
                    found[number] = pair[1]
                    break
                tried.add(pair)
    return found


def _similarity(left: Sequence[str], right: Sequence[str]) -> Pairs:
    @lru_cache(maxsize=20_000)
    def shingles(text: str) -> frozenset[str]:
        return char_shingles(text)

    def similar(one: int, other: int) -> bool:
        mine, theirs = shingles(left[one]), shingles(right[other])
        if min(len(mine), len(theirs)) < SIMILAR * max(len(mine), len(theirs)):
            return False
        return jaccard(mine, theirs) >= SIMILAR

    return similar


def _flat(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every text under the root of its component."""
    while True:
        above = parent[parent]
        if (above == parent).all():
            return above
        parent = above


def _buckets(keys: Keys, parent: NDArray[np.int64]) -> Iterator[list[int]]:
    """Texts with the same key, where they are not all of one component already."""
    order = np.argsort(keys, kind="stable")
    column, roots = keys[order], parent[order]
    starts = np.flatnonzero(np.concatenate(([True], column[1:] != column[:-1])))
    mixed = np.minimum.reduceat(roots, starts) != np.maximum.reduceat(roots, starts)
    ends = np.append(starts[1:], len(order))
    for place in np.flatnonzero(mixed).tolist():
        yield order[starts[place] : ends[place]].tolist()


def _join(bucket: Sequence[int], parent: NDArray[np.int64], similar: Pairs) -> None:
    """Compare the texts of a bucket; those of one component need no comparison."""

    def root(number: int) -> int:
        while (above := int(parent[number])) != number:
            number = above
        return number

    groups: dict[int, list[int]] = {}
    for number in bucket:
        mine = root(number)
        if mine not in groups:
            for other in [*islice(reversed(groups), GROUPS)][::-1]:
                if any(similar(number, each) for each in groups[other]):
                    joined = groups.pop(other)
                    small, large = sorted((mine, other))
                    parent[large] = mine = small
                    groups[mine] = (groups.get(mine, []) + joined)[:MEMBERS]
        here = groups.setdefault(mine, [])
        if len(here) < MEMBERS:
            here.append(number)
