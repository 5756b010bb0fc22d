"""A batch of documents while it is cleaned: all texts and fields in one Arrow array, so that a kernel sees them all.

A step of cleaning takes such a batch and gives another. Steps run on the workers of whatever engine there is: they are
closures over plain values, and import what they need themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

Batches = Iterator["pa.RecordBatch"]
Strings = Callable[["pa.Array"], "pa.Array"]
"""Texts in, as many texts out."""

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PIECE = 1 << 26
"""Bytes of a batch that are worked on at a time, at the most: memory does not depend on the engine's batches."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Documents of one batch: `strings` has the text of each, then those values of their fields that are not the text.

    `place` is each document's row in the batch. Of each value, `slot` is its place in `strings`, `owner` its
    document's number here, `names` its field, and `given` what it was at first.
    """

    place: Numbers
    source: pa.Array
    strings: pa.Array
    slot: Numbers
    owner: Numbers
    names: pa.Array
    given: pa.Array

    def __len__(self) -> int:
        return len(self.place)

    @property
    def text(self) -> pa.Array:
        """The text of each document."""
        return self.strings[: len(self)]

    @property
    def values(self) -> pa.Array:
        """The values of all fields."""
        import pyarrow as pa

        return self.strings.take(pa.array(self.slot))

    def strings_of(self, chosen: Mask) -> Mask:
        """Which strings are those of the documents for which `chosen` is true."""
        found = np.zeros(len(self.strings), dtype=bool)
        found[: len(self)] = chosen
        found[self.slot[chosen[self.owner]]] = True
        return found

    def changed(self, change: Strings) -> Texts:
        """The same documents with all their strings changed."""
        return replace(self, strings=change(self.strings))

    def only(self, kept: pa.Array | Mask) -> Texts:
        """The documents for which `kept` is true."""
        import pyarrow as pa

        chosen = np.asarray(kept, dtype=bool)
        if chosen.all():
            return self
        both, inner = self.strings_of(chosen), chosen[self.owner]
        mine = pa.array(inner)
        return Texts(
            place=self.place[chosen],
            source=self.source.filter(pa.array(chosen)),
            strings=self.strings.filter(pa.array(both)),
            slot=(np.cumsum(both) - 1)[self.slot[inner]],
            owner=(np.cumsum(chosen) - 1)[self.owner[inner]],
            names=self.names.filter(mine),
            given=self.given.filter(mine),
        )

    def fields(self, before: pa.Array) -> pa.Array:
        """The fields as JSON; `before` is what they were, and stays where no value has changed."""
        import pyarrow as pa
        import pyarrow.compute as pc

        values = self.values
        touched = np.zeros(len(self), dtype=bool)
        touched[self.owner[np.asarray(pc.fill_null(pc.not_equal(values, self.given), True))]] = True
        if not touched.any():
            return before
        inner = np.flatnonzero(touched[self.owner])
        inner = inner[np.argsort(self.owner[inner], kind="stable")]
        name, value = (_quoted(strings.take(pa.array(inner))) for strings in (self.names, values))
        pairs = pc.binary_join_element_wise('"', name, '": "', value, '"', "")
        ends = np.cumsum(np.bincount(self.owner[inner], minlength=len(self))[touched])
        rows = pa.ListArray.from_arrays(np.concatenate([[0], ends]).astype(np.int32), pairs)
        made = pc.binary_join_element_wise("{", pc.binary_join(rows, ", "), "}", "")
        return pc.replace_with_mask(before, pa.array(touched), made)


Step = Callable[[Texts], Texts]
"""One step of cleaning on one batch: with other texts, or with fewer documents."""


@dataclass(frozen=True, slots=True)
class Change:
    """A step that changes strings one by one, and only those that the pattern `needing` (RE2) is found in."""

    needing: str
    change: Strings


Opened = Callable[[], Step | Change]
"""Makes a step ready, once for a task of the engine: loads a model, compiles a pattern."""


def ready(steps: Sequence[Opened]) -> list[tuple[int, Step]]:
    """The steps with their numbers; neighbours that change strings look for those that need it together, and once."""
    made: list[tuple[int, Step]] = []
    changes: list[Change] = []
    for number, opened in enumerate(steps):
        step = opened()
        if isinstance(step, Change):
            changes.append(step)
            continue
        if changes:
            made.append((number - 1, _changing(tuple(changes))))
            changes = []
        made.append((number, step))
    return [*made, (len(steps) - 1, _changing(tuple(changes)))] if changes else made


def _changing(changes: Sequence[Change]) -> Step:
    needing = "|".join(f"(?:{change.needing})" for change in changes)

    def all_of_them(strings: pa.Array) -> pa.Array:
        for change in changes:
            strings = where(strings, change.needing, change.change)
        return strings

    return lambda texts: texts.changed(lambda strings: where(strings, needing, all_of_them))


def of(batch: pa.RecordBatch) -> Texts:
    """A batch with the columns source, text and fields."""
    import pyarrow as pa
    import pyarrow.compute as pc

    decode = json.JSONDecoder().raw_decode
    rows = [decode(row)[0] for row in batch.column("fields").to_pylist()]
    given = pa.array([value for row in rows for value in row.values()], pa.string())
    counts = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    text = pc.fill_null(batch.column("text").cast(pa.string()), "")
    owner = np.repeat(np.arange(len(rows), dtype=np.int64), counts)
    # The only field of a file of texts is the text: it is cleaned once.
    other, sole = np.ones(len(owner), dtype=bool), np.flatnonzero(counts[owner] == 1)
    beside = text.take(pa.array(owner[sole]))
    other[sole] = np.asarray(pc.fill_null(pc.not_equal(given.take(pa.array(sole)), beside), True))
    return Texts(
        place=np.arange(len(rows), dtype=np.int64),
        source=batch.column("source").cast(pa.string()),
        strings=pa.concat_arrays([text, given.filter(pa.array(other))]),
        slot=np.where(other, len(rows) - 1 + np.cumsum(other), owner),
        owner=owner,
        names=pa.array([name for row in rows for name in row], pa.string()),
        given=given,
    )


def pieces(batches: Batches, size: int = PIECE) -> Batches:
    """The same rows in batches of about `size` bytes at the most, none of them empty."""
    for batch in batches:
        parts = min(batch.num_rows, -(-batch.nbytes // size))
        for part in range(parts):
            start, end = batch.num_rows * part // parts, batch.num_rows * (part + 1) // parts
            yield batch.slice(start, end - start)


def through(steps: Sequence[tuple[int, Step]], texts: Texts) -> tuple[Texts, dict[int, Numbers]]:
    """Do all steps; returns what is left and, by the number of the step, the rows of the batch that it dropped."""
    dropped: dict[int, Numbers] = {}
    for number, step in steps:
        after = step(texts)
        if len(after) < len(texts):
            dropped[number] = np.setdiff1d(texts.place, after.place, assume_unique=True)
        texts = after
    return texts, dropped


def where(strings: pa.Array, pattern: str, change: Strings) -> pa.Array:
    """Change the strings that the pattern (RE2) is found in; the others are not copied into Python."""
    import pyarrow.compute as pc

    return at(strings, pc.match_substring_regex(strings, pattern), change)


def at(strings: pa.Array, mask: pa.Array, change: Strings) -> pa.Array:
    """Change the strings for which the mask is true."""
    import pyarrow.compute as pc

    if not pc.any(mask, min_count=0).as_py():
        return strings
    return pc.replace_with_mask(strings, mask, change(strings.filter(mask)))


def each(change: Callable[[str], str]) -> Strings:
    """Change one string at a time, in Python."""

    def changed(strings: pa.Array) -> pa.Array:
        import pyarrow as pa

        return pa.array([change(text) for text in strings.to_pylist()], pa.string())

    return changed


def _quoted(strings: pa.Array) -> pa.Array:
    """What stands between the quotation marks of JSON strings."""
    import pyarrow.compute as pc

    quoted = pc.replace_substring_regex(pc.replace_substring_regex(strings, r'["\\]', r"\\\0"), "\n", r"\\n")
    controls = pc.match_substring_regex(strings, r"[\x00-\x09\x0b-\x1f]")
    dumped = each(lambda text: json.dumps(text, ensure_ascii=False)[1:-1])
    return pc.replace_with_mask(quoted, controls, dumped(strings.filter(controls)))
