"""Documents for the data benchmark, made of sentences found on this machine, with duplicates planted among them.

    python benchmarks/data/generate.py 50000 build/50k.parquet --truth build/50k-truth.parquet --corpus FOLDER

Of the documents 20 % are exact copies of an earlier one (half of them only after white space is folded), 10 % near
duplicates of a Jaccard similarity from 0.8 to 0.97, 2 % related texts from 0.3 to 0.6, which are no duplicates. The
similarity is that of their word 3-grams, measured on each pair and written down in the truth. The same seed and the
same sentences give the same bytes. Nothing grows with the number of documents: each follows from its number.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import re
import sysconfig
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from noria.datasets.shingles import jaccard, word_shingles
from noria.tables import DOCUMENTS

EXACT, NEAR, RELATED = 0.20, 0.10, 0.02
"""Shares of the documents. Half of the exact ones differ in white space."""

LEAST_WORDS = 60
LOT = 10_000
MOST_BYTES = 8_000_000
"""Read from one folder at most, in the order of the names."""

TRUTH = pa.schema([("id", pa.string()), ("kind", pa.string()), ("of", pa.string()), ("jaccard", pa.float64())])

_TAG = re.compile(r"<(script|style).*?</\1>|<[^>]{1,200}>", re.DOTALL | re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_TEXT = (".txt", ".html", ".htm", ".md", ".rst", ".gz", ".en", "")
_NOISE = ("\u00a0", "\u200b ", " \u00ad", "\t", "\r\n", "\u2003")
"""What stands for a space in some documents; cleaning takes it away."""


@dataclass(frozen=True, slots=True)
class Made:
    """One document; `of` is the number of the one it was made from, which is itself for a fresh one."""

    kind: str
    text: str
    of: int
    jaccard: float


class Draw:
    """Random whole numbers that follow from what they are for; the same on every machine and version."""

    def __init__(self, *what: int | str) -> None:
        self._what = ":".join(map(str, what)).encode()
        self._more = self._left = self._bits = 0

    def below(self, most: int) -> int:
        """A number from 0 to `most` - 1."""
        if self._bits < 64:
            block = hashlib.blake2b(self._what + b"/%d" % self._more).digest()
            self._left, self._bits, self._more = int.from_bytes(block, "big"), 512, self._more + 1
        # 32 bits suffice: what is drawn from is far smaller.
        value = self._left & 0xFFFFFFFF
        self._left, self._bits = self._left >> 32, self._bits - 32
        return value * most >> 32

    def share(self) -> float:
        """A number in [0, 1)."""
        return self.below(1 << 32) / (1 << 32)


class Maker:
    """Makes the document of any number from a pool of sentences."""

    def __init__(self, sentences: Sequence[str], seed: int) -> None:
        self.sentences, self.seed = sentences, seed
        self.vocabulary = sorted({word for line in sentences[::7] for word in line.split() if word.isalpha()})

    def id(self, number: int) -> str:
        """Name of a document: 16 hexadecimal characters."""
        return hashlib.blake2b(f"{self.seed}:id:{number}".encode(), digest_size=8).hexdigest()

    def make(self, number: int) -> Made:
        """The document of this number."""
        draw = Draw(self.seed, "kind", number)
        share = draw.share()
        if share >= EXACT + NEAR + RELATED or (of := self._earlier(number, draw)) is None:
            return Made("fresh", self._noisy(number, self._fresh(number)), number, 1.0)
        text = self._fresh(of)
        if share < EXACT / 2:
            return Made("exact", self._noisy(of, text), of, 1.0)
        if share < EXACT:
            return Made("folded", _respaced(text, draw), of, 1.0)
        wanted = 0.80 + 0.17 * draw.share() if share < EXACT + NEAR else 0.3 + 0.3 * draw.share()
        near, found = self._near(text, wanted, draw)
        return Made("near" if found >= 0.8 else "related", self._noisy(number, near), of, found)

    def _earlier(self, number: int, draw: Draw) -> int | None:
        """A fresh document before this one; None where there is none yet."""
        for _ in range(20 if number else 0):
            other = draw.below(number)
            if Draw(self.seed, "kind", other).share() >= EXACT + NEAR + RELATED:
                return other
        return None

    def _fresh(self, number: int) -> str:
        draw = Draw(self.seed, "text", number)
        wanted = LEAST_WORDS + draw.below(70)
        lines: list[str] = []
        words = 0
        while words < wanted:
            lines.append(self.sentences[draw.below(len(self.sentences))])
            words += lines[-1].count(" ") + 1
        return " ".join(lines)

    def _near(self, text: str, wanted: float, draw: Draw) -> tuple[str, float]:
        """The text with as many words exchanged as bring it close to a similarity, and the similarity it has."""
        words, old = text.split(" "), word_shingles(text)
        edits = max(1, round(len(words) * (1 - wanted) / (3 * (1 + wanted))))
        places = [place for place, word in enumerate(words) if word.isalpha()]
        while True:
            changed = list(words)
            for _ in range(edits):
                changed[places[draw.below(len(places))]] = self.vocabulary[draw.below(len(self.vocabulary))]
            found = jaccard(old, word_shingles(" ".join(changed)))
            if wanted < 0.8 or (0.8 <= found < 1) or edits == 1:
                return " ".join(changed), found
            edits -= found < 0.8

    def _noisy(self, number: int, text: str) -> str:
        """One document of five has other characters in the place of some spaces."""
        draw = Draw(self.seed, "noise", number)
        if draw.below(5):
            return text
        return _respaced(text, draw, _NOISE)


def _respaced(text: str, draw: Draw, spaces: Sequence[str] = ("  ", "\n", "   ")) -> str:
    words = text.split(" ")
    for _ in range(3):
        place = draw.below(len(words) - 1)
        words[place] += spaces[draw.below(len(spaces))].removesuffix(" ")
    return " ".join(words)


def sentences(folders: Iterable[Path]) -> list[str]:
    """The different sentences of the texts found: folders given, what comes with Python, what Debian documents."""
    found: set[str] = set()
    for text in _texts(folders):
        for paragraph in re.split(r"\n\s*\n", text):
            for line in _SENTENCE.split(" ".join(paragraph.split())):
                if 40 <= len(line) <= 240 and line.count(" ") >= 6 and _plain(line):
                    found.add(line)
    return sorted(found)


def _plain(line: str) -> bool:
    return sum(map(str.isalpha, line)) >= 0.7 * len(line) and line.isprintable()


def _texts(folders: Iterable[Path]) -> Iterator[str]:
    shared = Path("/usr/share")
    for folder in (*folders, shared / "common-licenses", *sorted((shared / "doc").glob("*"))):
        left = MOST_BYTES
        for file in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if left > 0 and file.suffix in _TEXT and file.is_file() and "changelog" not in file.name.lower():
                text = _read(file)
                left -= len(text)
                yield text
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("**/*.py")):
        if not {"site-packages", "test", "tests", "idlelib"} & set(file.parts):
            yield from _docstrings(file)
    yield from _chats()


def _read(file: Path) -> str:
    data = file.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    text = data.decode("utf-8", "replace") if b"\0" not in data[:4096] else ""
    return _TAG.sub(" ", text) if "<" in text else text


def _docstrings(file: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_text(encoding="utf-8", errors="replace"))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def _chats() -> Iterator[str]:
    """Questions and answers of the package chatterbot-corpus, where it is installed."""
    folder = Path(sysconfig.get_path("purelib")) / "chatterbot_corpus" / "data"
    for file in sorted(folder.glob("*/*.yml")):
        try:
            value = yaml.safe_load(file.read_text(encoding="utf-8", errors="replace"))
        except yaml.YAMLError:
            continue
        for turns in value.get("conversations") or [] if isinstance(value, dict) else []:
            yield "\n\n".join(map(str, turns))


def write(maker: Maker, count: int, out: Path, truth: Path | None) -> None:
    """Write documents as Parquet, or as JSON lines where `out` ends so, and what was planted."""
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = out.open("wb") if out.suffix == ".jsonl" else None
    table = None if lines else pq.ParquetWriter(out, DOCUMENTS, compression="zstd")
    planted = pq.ParquetWriter(truth, TRUTH, compression="zstd") if truth else None
    starts = range(0, count, LOT)
    # Forked processes have the sentences already, and leave no process of the pool's own behind.
    with ProcessPoolExecutor(mp_context=get_context("fork"), initializer=_ready, initargs=(maker,)) as pool:
        for start, (rows, facts) in zip(starts, pool.map(_lot, ((each, count) for each in starts)), strict=True):
            if lines:
                lines.writelines(orjson.dumps(row) + b"\n" for row in rows)
            if table:
                table.write_table(_documents(rows, start))
            if planted:
                planted.write_table(pa.table(list(map(list, zip(*facts, strict=True))), schema=TRUTH))
    for stream in (lines, table, planted):
        if stream:
            stream.close()


def _ready(maker: Maker) -> None:
    """Give a process of the pool its maker."""
    global _maker
    _maker = maker


def _lot(bounds: tuple[int, int]) -> tuple[list[dict[str, str]], list[tuple[str, str, str, float]]]:
    """The documents from a number on, and what was planted."""
    start, count = bounds
    rows, facts = [], []
    for number in range(start, min(count, start + LOT)):
        made, name = _maker.make(number), _maker.id(number)
        rows.append({"id": name, "text": made.text})
        facts.append((name, made.kind, _maker.id(made.of), made.jaccard))
    return rows, facts


def _documents(rows: Sequence[dict[str, str]], start: int) -> pa.Table:
    """Rows as the stage `sources` writes them."""
    ids, texts = [row["id"] for row in rows], [row["text"] for row in rows]
    fields = [orjson.dumps({"text": text}).decode() for text in texts]
    fixed = [["made.jsonl"] * len(rows), list(range(start, start + len(rows))), ["0" * 64] * len(rows)]
    return pa.table([ids, ["made"] * len(rows), texts, fields, ids, *fixed], schema=DOCUMENTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("out", type=Path, help="NAME.parquet, as the stage `sources` writes it, or NAME.jsonl")
    parser.add_argument("--truth", type=Path, help="Parquet: id, kind, of, jaccard")
    parser.add_argument("--corpus", type=Path, action="append", default=[], help="one more folder of texts")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    began = time.process_time()
    pool = sentences(options.corpus)
    digest = hashlib.sha256("\n".join(pool).encode()).hexdigest()[:16]
    print(f"{len(pool):,} sentences, digest {digest}, {time.process_time() - began:.0f} CPU-s")
    write(Maker(pool, options.seed), options.count, options.out, options.truth)
    print(f"{options.count:,} documents in {options.out}, {time.process_time() - began:.0f} CPU-s")


if __name__ == "__main__":
    main()
