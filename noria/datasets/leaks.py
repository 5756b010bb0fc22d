"""The leakage scan: personal data in finished tables and files, counted by kind. What was found is never kept."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from noria.datasets.scrub import Rules
from noria.errors import Invalid, NotFound

TEXTS = frozenset({"messages", "context", "target", "chosen", "rejected", "text", "fields", "record", "conversation"})
"""Columns of noria's own tables that hold text; ids and digests are letters by chance. Other tables: all of them."""
_LINES = (".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".html", ".xml", ".yaml", ".yml", ".log")
_JSON = frozenset({"messages", "fields", "record"})
_ID = re.compile(r"[0-9a-f]{16,64}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Ids and digests are letters and digits by chance; one in some ten thousand would pass for a card number."""
_ANSWERS = ("question", "target", "champion", "candidate")


@dataclass(slots=True)
class Leaks:
    """What a scan found in one file: texts looked at, texts with findings, findings by kind."""

    file: str
    texts: int = 0
    leaking: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "file": self.file, "texts": self.texts, "leaking": self.leaking, "kinds": dict(sorted(self.kinds.items())),
        }  # fmt: skip


def scan(path: Path, rules: Rules = Rules()) -> list[Leaks]:
    """Look through a file, or through every table and text of a folder. Raises NotFound, and Invalid for no text."""
    if not path.exists():
        raise NotFound(f"there is no '{path}'", "name a file, or a data set as `noria status` does")
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    found = [each for each in (_file(each, path, rules) for each in files) if each is not None]
    if not found:
        raise Invalid(f"'{path}' holds no text that can be scanned", "name Parquet, JSON, CSV or text")
    return found


def kinds_of(found: list[Leaks]) -> dict[str, int]:
    """Findings of all files by kind, in order."""
    total: Counter[str] = Counter()
    for each in found:
        total.update(each.kinds)
    return dict(sorted(total.items()))


def _file(file: Path, root: Path, rules: Rules) -> Leaks | None:
    if file.suffix == ".parquet":
        texts = _of_parquet(file)
    elif file.suffix == ".sqlite":
        texts = _of_index(file)
    elif file.name == "report.json":
        texts = _of_report(file)
    elif file.suffix in _LINES:
        texts = _of_lines(file)
    else:
        return None
    leaks = Leaks(file.name if file == root else file.relative_to(root).as_posix())
    for text in texts:
        leaks.texts += 1
        found = rules.findings(text)
        if found:
            leaks.leaking += 1
            leaks.kinds.update(finding.kind for finding in found)
    return leaks


def _of_parquet(file: Path) -> Iterator[str]:
    table = pq.ParquetFile(file)
    words = [each.name for each in table.schema_arrow if pa.types.is_string(each.type) or _large(each.type)]
    own = [name for name in words if name in TEXTS]
    for batch in table.iter_batches(columns=own or words):
        for name in batch.schema.names:
            for value in batch.column(name).to_pylist():
                if value and not _ID.fullmatch(value):
                    yield from _strings(_loaded(value)) if name in _JSON else (value,)


def _large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind))


def _loaded(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _strings(value: Any) -> Iterator[str]:
    """Every text of a JSON value by itself: a line end in JSON is a letter, which hides what follows it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def _of_index(file: Path) -> Iterator[str]:
    """The texts that questions are answered with (`noria.backends.fts`)."""
    database = sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)
    try:
        yield from (row[0] for row in database.execute("SELECT text FROM texts"))
    except sqlite3.DatabaseError as error:
        raise Invalid(f"'{file.name}' is no index of texts: {error}", "name another file") from error
    finally:
        database.close()


def _of_report(file: Path) -> Iterator[str]:
    """What was asked and answered: the sampled output of an adapter."""
    for row in json.loads(file.read_text(encoding="utf-8")).get("rows", []):
        yield from (row[name] for name in _ANSWERS if row.get(name))


def _of_lines(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if file.suffix == ".jsonl":
                yield from _strings(_loaded(line))
            elif line.strip():
                yield line
