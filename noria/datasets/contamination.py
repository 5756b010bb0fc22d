"""What training rows must not repeat: the sealed rows, and the benchmark files that the user names.

A training row is contaminated when it shares a run of 13 words with a held text (Brown et al., "Language models are
few-shot learners", 2020, appendix C; a shorter text of 8 words or more is one run), or when its question is nearly the
same as a held text of six words or more. Words are those of `shingles.words`: single characters where no spaces are.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import JsonValue

from noria.datasets import similar
from noria.datasets.draft import Draft
from noria.datasets.shingles import words
from noria.errors import Invalid

GRAM, LEAST = 13, 8
NEAR = 6
"""Words from which a text says enough to be nearly the same as another."""

_BATCH = 4096
_NEVER = 1 << 62
_ODD = [pow(0x5851F42D4C957F2D, place + 1, 1 << 62) for place in range(LEAST)]
"""By place in a run, so that the order of words counts; keys are verified word by word."""

OWN = "sealed rows"
"""What the test side is called among the files."""

FORM_OF_WORDS = 10
"""A run of words in more sealed rows than this is a form of words, such as a greeting, and tells nothing."""


@dataclass(frozen=True, slots=True)
class File:
    """One benchmark file: its name as shown, where it is, and the SHA-256 of its bytes."""

    name: str
    path: Path
    digest: str


def benchmark_files(patterns: Sequence[str], root: Path, where: str) -> list[File]:
    """The files that the patterns name, each once; raises Invalid for a pattern that names none."""
    found: dict[Path, File] = {}
    for pattern in patterns:
        named = sorted(Path(root, name) for name in glob.glob(pattern, root_dir=root, recursive=True))
        files = [path for path in named if path.is_file()]
        if not files:
            raise Invalid(
                f"no benchmark file matches '{pattern}'", f"relative patterns start from '{root}'", where=where
            )
        for path in files:
            name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
            with path.open("rb") as stream:
                found[path] = File(name, path, hashlib.file_digest(stream, "sha256").hexdigest())
    return list(found.values())


def texts_of(file: File) -> Iterator[str]:
    """All texts of a benchmark file, whatever its columns are called; raises Invalid for one that cannot be read."""
    if file.path.suffix == ".parquet":
        try:
            for batch in pq.ParquetFile(file.path).iter_batches():
                for row in batch.to_pylist():
                    yield from _strings(row)
        except (OSError, ValueError) as error:
            raise Invalid(f"'{file.name}' is no Parquet file: {error}", "look at the file") from error
        return
    try:
        with file.path.open(encoding="utf-8-sig") as stream:
            if file.path.suffix in (".jsonl", ".ndjson"):
                yield from _lines(stream, file.name)
            else:
                yield from (line for line in map(str.strip, stream) if line)
    except UnicodeDecodeError as error:
        raise Invalid(f"'{file.name}' is not UTF-8: {error.reason}", "convert it: iconv -t utf-8") from error


def _lines(stream: Iterable[str], name: str) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                yield from _strings(json.loads(line))
            except ValueError as error:
                raise Invalid(
                    f"'{name}' is not JSONL: {error}", "one JSON value a line", where=f"{name}:{number}"
                ) from error


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)


class Held:
    """Texts that no training row may repeat, by owner; in memory some 200 bytes for each run of words."""

    def __init__(self) -> None:
        self.owners: list[str] = []
        """Names in the order in which they came."""
        self._runs: dict[int, dict[tuple[str, ...], str]] = {}
        self._near: list[tuple[str, str]] = []

    def add(self, owner: str, texts: Iterable[str], *, often: int | None = None, least: int = NEAR) -> None:
        """Hold these texts; a run of words that stands in more than `often` of them does not count.

        Those of `least` words or more say enough to be nearly the same as another.
        """
        self.owners.append(owner)
        counts: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            found = words(text)
            length = min(GRAM, len(found))
            if length >= LEAST:
                counts.update({tuple(found[at : at + length]) for at in range(len(found) - length + 1)})
            if len(found) >= least:
                self._near.append((text, owner))
        runs = [run for run, count in counts.items() if often is None or count <= often]
        for run, key in zip(runs, _keys([run[:LEAST] for run in runs])[::LEAST].tolist(), strict=True):
            self._runs.setdefault(key, {}).setdefault(run, owner)

    def shared(self, texts: Sequence[str]) -> dict[int, str]:
        """Numbers of the texts that have a run of words in common with a held one, with its owner."""
        anchors, by = np.array(sorted(self._runs), np.int64), dict[int, str]()
        if not len(anchors):
            return by
        for start in range(0, len(texts), _BATCH):
            found = [words(text) for text in texts[start : start + _BATCH]]
            keys = _keys(found)
            number, begun = 0, 0
            for place in np.flatnonzero(np.isin(keys, anchors, kind="sort")).tolist():
                while place >= begun + len(found[number]):
                    begun += len(found[number])
                    number += 1
                if start + number not in by and (owner := self._run(found[number][place - begun :], int(keys[place]))):
                    by[start + number] = owner
        return by

    def near(self, texts: Sequence[str]) -> dict[int, str]:
        """Numbers of the texts that are nearly the same as a held one, with its owner."""
        held = [text for text, _ in self._near]
        return {number: self._near[place][1] for number, place in similar.matches(texts, held).items()}

    def _run(self, found: Sequence[str], key: int) -> str | None:
        """Owner of the held run with this key that the words begin with."""
        runs = self._runs[key]
        lengths = range(min(GRAM, len(found)), LEAST - 1, -1)
        return next((owner for length in lengths if (owner := runs.get(tuple(found[:length])))), None)


def _keys(texts: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """A key for each word of all texts, made of it and the seven that follow."""
    flat = np.fromiter((hash(word) for text in texts for word in text), np.int64)
    keys = np.zeros(len(flat), np.int64)
    for place in range(LEAST):
        keys[: len(flat) - place] += flat[place:] * np.int64(_ODD[place])
    return keys


def cleaned(
    train: list[Draft], test: Sequence[Draft], files: Sequence[File]
) -> tuple[list[Draft], dict[str, JsonValue]]:
    """The training rows that repeat neither a test question nor a benchmark, and how many did, by file.

    The split itself has parted near duplicates of test questions; here runs of words are looked for. Answers of the
    test side are not held: the same answer to another question is what is to be learned.
    """
    held = Held()
    held.add(OWN, (draft.example.messages[-1].content for draft in test), often=FORM_OF_WORDS, least=_NEVER)
    for file in files:
        held.add(file.name, texts_of(file))
    by = held.shared([draft.whole for draft in train])
    by = held.near([draft.example.messages[-1].content for draft in train]) | by
    counts = Counter(by.values())
    kept = [draft for number, draft in enumerate(train) if number not in by]
    return kept, {name: counts[name] for name in held.owners}
