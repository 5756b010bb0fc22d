"""What changed between two versions of the data, by rows."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import JsonValue

from noria.datasets.profile import SIDES, question_of

Row = dict[str, Any]
Pair = tuple[Row, Row]


def of_datasets(old: Path, new: Path, samples: int, sealed: bool) -> dict[str, JsonValue]:
    """Rows of two data sets. An id is the digest of question and answer, so a row is another one when either differs.

    `changed` are questions with another answer, and rows with another context; `moved` rows are on another side,
    which must never happen. With `sealed`, the texts of test rows are shown too; they are always counted.
    """
    before, after = _examples(old), _examples(new)
    added, removed = _only(after, before), _only(before, after)
    fresh, answered, gone = _paired(removed, added, lambda row: question_of(row["messages"]))
    both = _joined(before, after, ["context", "split"])
    moved = both.filter(pc.not_equal(both["split"], both["split new"]))
    context = _differs(both, "context")
    told = _told(before.num_rows, after.num_rows, fresh, gone, _shown(sealed), "origin", samples)
    rows = [_context_pair(row) for row in context.to_pylist()]
    changed = [*answered, *rows]
    told["changed"] = _changed(changed, _shown(sealed), "origin", samples)
    told["moved"] = moved.num_rows
    return told


def of_documents(old: Path, new: Path, samples: int, heads: Mapping[str, str]) -> dict[str, JsonValue]:
    """Rows of two versions of the documents. An id is the digest of a text as it was collected.

    `changed` are documents of one id that are cleaned otherwise, and those of one source and head with another text;
    `heads` names, by source, the field that is the head, such as the question.
    """
    columns = ["id", "source", "file", "text", "fields"]
    before, after = (
        pq.read_table(folder / "documents.parquet", columns=columns, partitioning=None) for folder in (old, new)
    )

    def head(row: Row) -> str | None:
        fields = json.loads(row["fields"])
        found = fields.get(heads.get(row["source"], "heading"))
        return f"{row['source']}\0{found}" if found else None

    fresh, changed, gone = _paired(_only(before, after), _only(after, before), head)
    both = _joined(before, after, ["text", "source", "file"])
    cleaned = _differs(both, "text").to_pylist()
    changed += [({**row, "text": row["text"]}, {**row, "text": row["text new"]}) for row in cleaned]
    told = _told(before.num_rows, after.num_rows, fresh, gone, _document, "source", samples)
    told["changed"] = _changed(changed, _document, "source", samples)
    return told


Show = Callable[[Row], dict[str, JsonValue]]


def _examples(folder: Path) -> pa.Table:
    columns = ["id", "origin", "slice", "messages", "target", "context", "split"]
    return pa.concat_tables(
        pq.read_table(folder / f"{side}.parquet", columns=columns, partitioning=None) for side in SIDES
    )


def _only(here: pa.Table, there: pa.Table) -> list[Row]:
    """Rows of `here` whose id `there` has not, in order of their ids."""
    found = here.filter(pc.invert(pc.is_in(here["id"], value_set=there["id"].combine_chunks())))
    rows: list[Row] = found.sort_by("id").to_pylist()
    return rows


def _joined(before: pa.Table, after: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Rows that both have, by id, with the new columns beside the old ones as `NAME new`, and the others of the old."""
    renamed = after.select(["id", *columns]).rename_columns(["id", *(f"{name} new" for name in columns)])
    return before.join(renamed, "id", join_type="inner").sort_by("id")


def _differs(both: pa.Table, column: str) -> pa.Table:
    old, new = both[column], both[f"{column} new"]
    other = pc.fill_null(pc.not_equal(old, new), False)
    return both.filter(pc.or_(other, pc.xor(pc.is_null(old), pc.is_null(new))))


def _paired(
    removed: list[Row], added: list[Row], key: Callable[[Row], str | None]
) -> tuple[list[Row], list[Pair], list[Row]]:
    """Rows that are really new, those that took the place of another with the same key, and those that are gone."""
    waiting: dict[bytes, list[Row]] = {}
    gone: list[Row] = []
    for row in removed:
        name = key(row)
        if name is None:
            gone.append(row)
        else:
            waiting.setdefault(_digest(name), []).append(row)
    fresh: list[Row] = []
    changed: list[Pair] = []
    for row in added:
        name = key(row)
        place = waiting.get(_digest(name)) if name is not None else None
        if place:
            changed.append((place.pop(0), row))
        else:
            fresh.append(row)
    gone += [row for rows in waiting.values() for row in rows]
    return fresh, changed, sorted(gone, key=lambda row: str(row["id"]))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _told(
    before: int, after: int, fresh: list[Row], gone: list[Row], show: Show, group: str, samples: int
) -> dict[str, JsonValue]:
    return {
        "before": before,
        "after": after,
        "added": {"rows": len(fresh), "by": _by(fresh, group), "samples": [show(row) for row in fresh[:samples]]},
        "removed": {"rows": len(gone), "by": _by(gone, group), "samples": [show(row) for row in gone[:samples]]},
    }


def _changed(pairs: list[Pair], show: Show, group: str, samples: int) -> dict[str, JsonValue]:
    shown: list[JsonValue] = [{"old": show(old), "new": show(new)} for old, new in pairs[:samples]]
    return {"rows": len(pairs), "by": _by([new for _, new in pairs], group), "samples": shown}


def _by(rows: list[Row], group: str) -> dict[str, JsonValue]:
    return dict(sorted(Counter(str(row[group]) for row in rows).items()))


def _shown(sealed: bool) -> Show:
    def show(row: Row) -> dict[str, JsonValue]:
        told: dict[str, JsonValue] = {"id": row["id"], "origin": row["origin"], "split": row["split"]}
        if row["split"] == "test" and not sealed:
            return {**told, "sealed": True}
        return {
            **told,
            "question": question_of(row["messages"]),
            "answer": row["target"],
            "context": row["context"],
        }

    return show


def _document(row: Row) -> dict[str, JsonValue]:
    return {name: row[name] for name in ("id", "source", "file", "text")}


def _context_pair(row: Row) -> Pair:
    return row, {**row, "context": row["context new"], "split": row["split new"]}
