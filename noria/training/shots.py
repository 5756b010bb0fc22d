"""Sets of examples that may stand in a prompt. Pure: the same arguments give the same sets."""

from __future__ import annotations

import itertools
import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from noria.types import Example

Floats = npt.NDArray[np.float64]

WIDTH = 1024
"""Buckets that words are hashed into (the hashing trick, Weinberger et al. 2009)."""
MOST = 2000
"""Rows that are looked at; corrections come first."""
PREFERRED = 1.5
"""How much more a correction counts than any other row: somebody has said that the answer was wrong without it."""
REFUSALS = 50
"""Rows in a row that do not fit after which a set stays as it is."""

Fits = Callable[[list[Example], Example], bool]
"""Whether one more row fits into the prompt beside those chosen."""


def sets(pool: Sequence[Example], size: int, trials: int, seed: int, fits: Fits) -> Iterator[tuple[str, list[Example]]]:
    """At most `trials` sets of at most `size` rows, each with how it was chosen; empty ones are left out.

    The first is of rows far from one another (Gonzalez, "Clustering to Minimize the Maximum Intercluster Distance",
    1985), the second of rows that the others are near to (facility location; Lin and Bilmes 2011). Then come sets of
    the first kind among random halves of the pool, every third of half the size. Where answers are classes, each set
    takes from the classes in turn.
    """
    rows = _looked_at(pool, seed)
    vectors = embedded([row.messages[-1].content for row in rows])
    weights = np.array([PREFERRED if corrected(row) else 1.0 for row in rows])
    classes = _classes(rows)
    for trial in range(trials):
        choose = random.Random(f"{seed}/{trial}")
        among = list(range(len(rows)))
        if trial > 1:
            among = sorted(choose.sample(among, max(min(size, len(rows)), len(rows) // 2)))
        count = size if trial % 3 != 2 else max(1, size // 2)
        rule, how = (_spread, "diverse") if trial != 1 else (_covering, "central")
        order = _turns(classes, among, choose) if classes else [among] * count
        chosen = _chosen(rows, vectors, weights, order[:count] if classes else order, count, rule, fits)
        if chosen:
            yield f"{len(chosen)} {how}{f', half {trial - 1}' if trial > 1 else ''}", _last_best(chosen)


def corrected(row: Example) -> bool:
    """Whether the row comes from what people said of an answer."""
    return row.origin.startswith("traffic")


def embedded(texts: Sequence[str]) -> Floats:
    """Words and pairs of words as vectors of length 1, rare ones counting more; shape (texts, `WIDTH`)."""
    counts = np.zeros((len(texts), WIDTH))
    for number, text in enumerate(texts):
        words = re.findall(r"\w+", text.casefold())
        for part in (*words, *map(" ".join, itertools.pairwise(words))):
            counts[number, zlib.crc32(part.encode()) % WIDTH] += 1
    rare = np.log((1 + len(texts)) / (1 + (counts > 0).sum(axis=0))) + 1
    vectors = np.log1p(counts) * rare
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    whole: Floats = vectors / np.maximum(lengths, 1e-12)
    return whole


def _looked_at(pool: Sequence[Example], seed: int) -> list[Example]:
    rows = sorted(pool, key=lambda row: row.id)
    if len(rows) > MOST:
        random.Random(seed).shuffle(rows)
        rows = sorted(rows, key=corrected, reverse=True)[:MOST]
    return rows


def _classes(rows: Sequence[Example]) -> dict[str, list[int]]:
    """Rows by answer, where answers are classes: each is there three times on average; else nothing."""
    found: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        found.setdefault(row.target, []).append(number)
    return found if 2 <= len(found) <= len(rows) // 3 else {}


def _turns(classes: dict[str, list[int]], among: Sequence[int], choose: random.Random) -> list[list[int]]:
    """From which rows each place of a set is filled: one class after the other, the most frequent first."""
    here = set(among)
    ordered = sorted(classes.values(), key=lambda rows: (-len(rows), rows))
    left = [[row for row in rows if row in here] for rows in ordered]
    filled = [rows for rows in left if rows]
    start = choose.randrange(len(filled)) if len(here) < sum(map(len, ordered)) else 0
    filled = filled[start:] + filled[:start]
    return filled * (1 + len(here) // len(filled))


Rule = Callable[[Floats, Floats, Sequence[int]], Floats]
"""How good each row would be beside those chosen, by vectors and weights."""


def _spread(vectors: Floats, weights: Floats, chosen: Sequence[int]) -> Floats:
    if not chosen:
        central: Floats = vectors @ vectors.mean(axis=0) * weights
        return central
    nearest: Floats = (vectors @ vectors[list(chosen)].T).max(axis=1)
    return (1 - nearest) * weights


def _covering(vectors: Floats, weights: Floats, chosen: Sequence[int]) -> Floats:
    near = vectors @ vectors.T
    have = near[:, list(chosen)].max(axis=1) if chosen else np.zeros(len(vectors))
    gains: Floats = np.maximum(near - have[:, None], 0).sum(axis=0)
    return gains * weights


def _chosen(
    rows: Sequence[Example], vectors: Floats, weights: Floats, order: Sequence[Sequence[int]], count: int, rule: Rule,
    fits: Fits,
) -> list[Example]:  # fmt: skip
    chosen: list[int] = []
    refused: set[int] = set()
    for among in order:
        gains = rule(vectors, weights, chosen)
        tries = 0
        for number in sorted(among, key=lambda each: (-gains[each], each)):
            if number in chosen or number in refused:
                continue
            if fits([rows[each] for each in chosen], rows[number]):
                chosen.append(number)
                break
            refused.add(number)
            tries += 1
            if tries == REFUSALS:
                break
        if len(chosen) == count:
            break
    return [rows[each] for each in chosen]


def _last_best(chosen: Sequence[Example]) -> list[Example]:
    """Corrections last: what stands nearest to the question counts most (Zhao et al. 2021)."""
    return sorted(chosen, key=corrected)
