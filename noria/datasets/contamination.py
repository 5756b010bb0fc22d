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

import pyarrow.parquet as pq
from pydantic import JsonValue

from noria.datasets import similar
from noria.datasets.draft import Draft
from noria.datasets.shingles import words
from noria.errors import Invalid

GRAM, LEAST = 13, 8
NEAR = 6
"""Words from which a text says enough to be nearly the same as another."""

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
    """Texts that no training row may repeat, in memory: some 60 bytes for each run of words.

    `texts` are those of `least` words or more, which say enough to be nearly the same as another. A run that stands in
    more than `often` of the texts does not count.
    """

    def __init__(self, texts: Iterable[str], *, often: int | None = None, least: int = NEAR) -> None:
        self.texts: list[str] = []
        self._lengths: set[int] = set()
        counts: Counter[int] = Counter()
        for text in texts:
            found = words(text)
            length = min(GRAM, len(found))
            if length >= LEAST:
                self._lengths.add(length)
                counts.update(set(_grams(found, length)))
            if len(found) >= least:
                self.texts.append(text)
        self._grams = {gram for gram, count in counts.items() if often is None or count <= often}

    def near(self, texts: Sequence[str]) -> set[int]:
        """Numbers of the texts that are nearly the same as a held one."""
        return set(similar.matches(texts, self.texts))

    def shares(self, draft: Draft) -> bool:
        """Whether the row has a run of words in common with a held text."""
        if not self._grams:
            return False
        found = words(draft.whole)
        return any(not self._grams.isdisjoint(_grams(found, length)) for length in self._lengths)


def _grams(found: Sequence[str], length: int) -> Iterator[int]:
    return (hash(tuple(found[at : at + length])) for at in range(len(found) - length + 1))


def cleaned(
    train: list[Draft], test: Sequence[Draft], files: Sequence[File]
) -> tuple[list[Draft], dict[str, JsonValue]]:
    """The training rows that repeat neither a test question nor a benchmark, and how many did, by file.

    The split itself has parted near duplicates of test questions; here runs of words are looked for. Answers of the
    test side are not held: the same answer to another question is what is to be learned.
    """
    by: dict[int, str] = {}
    held = [(OWN, Held((draft.example.messages[-1].content for draft in test), often=FORM_OF_WORDS))]
    held += [(file.name, Held(texts_of(file))) for file in files]
    for name, texts in held:
        for number, draft in enumerate(train):
            if number not in by and texts.shares(draft):
                by[number] = name
    owners = [name for name, texts in held if name != OWN for _ in texts.texts]
    near = [text for name, texts in held if name != OWN for text in texts.texts]
    for number, place in similar.matches([draft.example.messages[-1].content for draft in train], near).items():
        by.setdefault(number, owners[place])
    counts = Counter(by.values())
    kept = [draft for number, draft in enumerate(train) if number not in by]
    return kept, {name: counts[name] for name, _ in held}
