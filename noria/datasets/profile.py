"""What a version of the data holds: rows, lengths, languages, duplicates, sources, what was left out, and samples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import JsonValue

from noria.datasets import language
from noria.datasets.schema import files_of, rows_of
from noria.guards.personal import scrub
from noria.types import Split

QUANTILES = {"least": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "most": 1.0}
BINS = 24
SIDES: tuple[Split, ...] = ("train", "test")
LANGUAGE_ROWS = 1000
"""Texts whose language is found out: the first ones, as rows lie in the order of their ids, which are digests."""
REASONS = 20
"""Kinds of faults that are told, the most frequent first."""
_BATCH = 8192


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a version of the data lies, with what it was made from and into; None for what is not there."""

    dataset: Path | None = None
    documents: Path | None = None
    sources: Path | None = None
    features: Path | None = None


def of(folders: Folders) -> dict[str, JsonValue]:
    """The profile as JSON; a part of which nothing is known is left out. Lengths are in characters, words and tokens.

    Words are what stands between white space. Texts are described, not shown: `samples` does that.
    """
    told: dict[str, JsonValue] = {"rows": {**counts(folders)}, "lengths": _lengths(folders)}
    told["languages"] = {**language.count(_texts(folders))}
    if folders.dataset is not None:
        told["origins"] = _counted(folders.dataset, "origin")
        told["slices"] = _counted(folders.dataset, "slice")
    told |= steps_of(folders)
    told["duplicates"] = _duplicates(told.get("steps"))
    if folders.documents is not None:
        told["sources"] = sources_of(folders.documents, folders.sources)
    if folders.sources is not None:
        told["quarantine"] = quarantine_of(folders.sources)
    return told


def counts(folders: Folders) -> dict[str, int]:
    """Rows of each table that is there: `train`, `test`, `documents`, `collected` (before cleaning), `features`."""
    places = (
        *((folders.dataset, side, side) for side in SIDES),
        (folders.documents, "documents", "documents"),
        (folders.sources, "collected", "documents"),
        (folders.features, "features", "features"),
    )
    files = {name: folder / f"{table}.parquet" for folder, name, table in places if folder is not None}
    return {name: rows_of(file) for name, file in files.items()}


def steps_of(folders: Folders) -> dict[str, JsonValue]:
    """`steps` with rows in and out and, of a data set, `personal_data` by kind and `quarantined`, as they were kept."""
    for folder in (folders.dataset, folders.documents):
        if folder is not None:
            kept: dict[str, JsonValue] = json.loads((folder / "steps.json").read_text(encoding="utf-8"))
            return kept
    return {}


def sources_of(documents: Path, sources: Path | None) -> list[JsonValue]:
    """By source: documents as collected and as kept, and each file with its SHA-256 and how many of them it gave."""
    table = pq.read_table(documents / "documents.parquet", columns=["source", "file", "digest"], partitioning=None)
    kept = table.group_by(["source", "file", "digest"]).aggregate([([], "count_all")]).to_pylist()
    collected: Counter[str] = Counter()
    if sources is not None:
        had = pq.read_table(sources / "documents.parquet", columns=["source"], partitioning=None)["source"]
        collected.update({row["values"]: row["counts"] for row in pc.value_counts(had).to_pylist()})
    by_name: dict[str, list[JsonValue]] = {}
    for row in sorted(kept, key=lambda row: (row["source"], row["file"], row["digest"])):
        file: JsonValue = {"file": row["file"], "sha256": row["digest"], "documents": row["count_all"]}
        by_name.setdefault(row["source"], []).append(file)
    totals = Counter({name: sum(row["count_all"] for row in kept if row["source"] == name) for name in by_name})
    return [
        {"source": name, "collected": collected[name], "documents": totals[name], "files": by_name.get(name, [])}
        for name in sorted({*by_name, *collected})
    ]


def quarantine_of(sources: Path) -> dict[str, JsonValue]:
    """How many rows could not be read, and the most frequent reasons, with personal data in them replaced."""
    table = pq.read_table(sources / "quarantine.parquet", columns=["source", "reason"], partitioning=None)
    found = table.group_by(["source", "reason"]).aggregate([([], "count_all")]).to_pylist()
    reasons: Counter[tuple[str, str]] = Counter()
    for row in found:
        reasons[row["source"], scrub(row["reason"])[0]] += row["count_all"]
    order = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
    told: list[JsonValue] = [
        {"source": source, "reason": reason, "rows": rows} for (source, reason), rows in order[:REASONS]
    ]
    return {"rows": table.num_rows, "reasons": told}


def question_of(messages: str) -> str:
    """The last question of a conversation, as `messages` keeps it."""
    return str(json.loads(messages)[-1]["content"])


def batches(file: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """A table piece by piece, so that its size does not matter."""
    for part in files_of(file):
        with pq.ParquetFile(part) as table:
            yield from table.iter_batches(_BATCH, columns=list(columns))


def _lengths(folders: Folders) -> dict[str, JsonValue]:
    texts: dict[str, list[pa.Array]] = {}
    if folders.dataset is not None:
        for side in SIDES:
            for batch in batches(folders.dataset / f"{side}.parquet", ("messages", "target", "context")):
                questions = [question_of(text) for text in batch["messages"].to_pylist()]
                texts.setdefault("question", []).append(pa.array(questions, pa.string()))
                texts.setdefault("answer", []).append(batch["target"])
                texts.setdefault("context", []).append(batch["context"].drop_null())
    if folders.documents is not None:
        for batch in batches(folders.documents / "documents.parquet", ("text",)):
            texts.setdefault("document", []).append(batch["text"])
    told: dict[str, JsonValue] = {}
    for part, found in texts.items():
        characters = _joined(map(pc.utf8_length, found))
        words = _joined(pc.count_substring_regex(each, r"\S+") for each in found)
        if len(characters):
            told[part] = {"characters": _spread(characters), "words": _spread(words)}
    if folders.features is not None:
        tokens = _joined(batch["tokens"] for batch in batches(folders.features / "features.parquet", ("tokens",)))
        told["row"] = {"tokens": _spread(tokens)}
    return told


def _joined(arrays: Iterable[pa.Array]) -> npt.NDArray[np.int64]:
    parts = [np.asarray(array.to_numpy(zero_copy_only=False), np.int64) for array in arrays]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _spread(values: npt.NDArray[np.int64]) -> dict[str, JsonValue]:
    """Quantiles and mean, and a histogram with the same number of bins per octave, which long tails need."""
    edges = np.unique(np.round(np.geomspace(1, max(2, int(values.max()) + 1), BINS + 1)).astype(np.int64))
    rows, _ = np.histogram(np.maximum(values, 1), edges)
    return {
        **{name: float(np.quantile(values, share)) for name, share in QUANTILES.items()},
        "mean": round(float(values.mean()), 2),
        "histogram": {"edges": edges.tolist(), "rows": rows.tolist()},
    }


def _texts(folders: Folders) -> list[str]:
    found: list[str] = []
    if folders.dataset is not None:
        for batch in batches(folders.dataset / "train.parquet", ("messages", "target")):
            rows: list[dict[str, Any]] = batch.slice(0, LANGUAGE_ROWS - len(found)).to_pylist()
            found += [f"{question_of(row['messages'])}\n{row['target']}" for row in rows]
    elif folders.documents is not None:
        for batch in batches(folders.documents / "documents.parquet", ("text",)):
            found += batch["text"].slice(0, LANGUAGE_ROWS - len(found)).to_pylist()
    return found


def _counted(dataset: Path, column: str) -> dict[str, JsonValue]:
    found: Counter[str] = Counter()
    for side in SIDES:
        values = pq.read_table(dataset / f"{side}.parquet", columns=[column], partitioning=None)[column]
        found.update({row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist()})
    return dict(sorted(found.items()))


def _duplicates(steps: JsonValue) -> dict[str, JsonValue]:
    """Share of the rows that each step took out as duplicates."""
    told: dict[str, JsonValue] = {}
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, dict) and step["step"] in ("exact", "near"):
            took, gave = int(str(step["in"])), int(str(step["out"]))
            told[f"{step['step']} duplicates"] = round((took - gave) / took, 6) if took else 0.0
    return told
