r"""Step `booklet-regex`: delete what matches `[^a-zA-Z0-9\s]`, as books teach; it is measured what that destroys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from noria.datasets.texts import Batches, Change, Opened, of, pieces, ready, through

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

_SAMPLE = 20_000
"""Documents that the damage is measured on, those with the smallest ids."""


def booklet_regex() -> Opened:
    """Delete all but the 26 letters of English, digits and white space."""

    def change(strings: pa.Array) -> pa.Array:
        import pyarrow.compute as pc

        return pc.replace_substring_regex(strings, r"[^a-zA-Z0-9\s]+", "")

    return lambda: Change(r"[^a-zA-Z0-9\s]", change)


def damage(documents: DataFrame, before: Sequence[Opened], had: int) -> str:
    """What the step destroys of documents that have gone through the steps `before`, in a sentence; or nothing."""
    # Ids are hexadecimal digests: the smallest are a sample that does not depend on the engine.
    last = f"{min(0xFFFF, 0x10000 * _SAMPLE // max(had, 1)):04x}~"
    sample = documents.where(documents["id"] <= last)
    counted = sample.mapInArrow(_counted(before), "letters long, lost long, word string").collect()
    letters, lost = (sum(row[name] for row in counted) for name in ("letters", "lost"))
    if not lost:
        return ""
    word = min(row["word"] for row in counted if row["word"])
    left = "".join(character for character in word if character.isascii())
    return (
        f"booklet-regex destroys {lost / letters:.1%} of the letters, such as '{word}' → '{left}', and all punctuation"
    )


def _counted(before: Sequence[Opened]) -> Callable[[Batches], Batches]:
    """Letters of a batch, those of them that go, and a word that loses some: the smallest one."""

    def counted(batches: Batches) -> Batches:
        import re

        import pyarrow as pa

        steps = ready(before)
        hurt = re.compile(r"[^\W\d_]*(?:(?![a-zA-Z])[^\W\d_])[^\W\d_]*")
        for batch in pieces(batches):
            texts = through(steps, of(batch))[0].text.to_pylist()
            words = [word for text in texts for word in hurt.findall(text)]
            letters = sum(sum(map(str.isalpha, text)) for text in texts)
            lost = sum(1 for word in words for character in word if not character.isascii())
            yield pa.RecordBatch.from_arrays(
                [pa.array([letters]), pa.array([lost]), pa.array([min(words, default=None)], pa.string())],
                ["letters", "lost", "word"],
            )

    return counted
