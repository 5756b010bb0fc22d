"""`noria features`: what the commands do, as values for JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria.errors import Invalid, NotFound
from noria.features import documents, views
from noria.ports import FeatureView, Platform
from noria.types import digest_of

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def show(platform: Platform, task: str | None) -> dict[str, Any]:
    """The view and how much there is of it; nothing is changed."""
    name, _ = platform.settings.task(task)
    view = views.of_task(platform, name)
    history = views.told(view)
    return {
        "task": name, "view": view.name, "entity": view.entity, "fields": dict(view.fields),
        "version": view.tags["version"], "tokenizer": view.tags["tokenizer"], "prompt": view.tags["prompt"],
        "project": view.project, "history": str(view.table), "parts": history.parts, "rows": history.rows,
        "ids": history.ids, "first": _shown(history.first), "last": _shown(history.last),
        "online": platform.settings.runtime.features.partition("://")[0].partition("+")[0],
    }  # fmt: skip


def online(platform: Platform, task: str | None, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The rows that serve now; raises NotFound for one that is not online."""
    name, _ = platform.settings.task(task)
    view = views.of_task(platform, name)
    rows = platform.features.read(view, keys).to_pylist()
    _there(view, rows, "bring it online: noria features materialize")
    return [dict(row) for row in rows]


def past(platform: Platform, task: str | None, keys: Sequence[str], at: datetime, out: Path | None) -> dict[str, Any]:
    """The rows as they were; all of them without keys, into a Parquet file where one is named.

    Raises NotFound for a key that had no row yet.
    """
    name, _ = platform.settings.task(task)
    view = views.present(platform, name)
    wanted = list(keys) or views.ids_of(view)
    asked = pa.table(
        {
            view.entity: pa.array(wanted, pa.string()),
            "event_timestamp": pa.array([at] * len(wanted), pa.timestamp("us", "UTC")),
        }
    )
    table = platform.features.history(view, asked)
    there = table.filter(pc.is_valid(table["token_ids"]))
    if keys:
        _there(view, table.to_pylist(), f"it had no row at {at.isoformat()}")
    told: dict[str, Any] = {"at": at.isoformat(), "asked": len(wanted), "rows": there.num_rows}
    if out is None:
        return {**told, "features": [_plain(row) for row in there.to_pylist()]}
    pq.write_table(there, out, compression="zstd")
    return {**told, "file": str(out)}


def materialize(platform: Platform, task: str | None, since: datetime | None, until: datetime | None) -> dict[str, Any]:
    """Bring the history up to date and its latest rows online."""
    name, _ = platform.settings.task(task)
    view = views.of_task(platform, name)
    added = views.publish(platform, name, view)
    rows = platform.features.materialize(view, since or BEGINNING, until or platform.clock.now())
    texts = documents.publish(platform, name)
    return {"task": name, "version": view.tags["version"], "added": added, "online": rows, "documents": texts}


def retrieve(platform: Platform, task: str | None, question: str, k: int | None) -> list[dict[str, Any]]:
    """The documents that stand beside a question, nearest first."""
    name, settings = platform.settings.task(task)
    most = k if k is not None else settings.context.k if settings.context else 1
    hits = documents.retrieve(platform, name, question, most)
    return [{"document": hit.document, "text": hit.text} for hit in hits]


def push(platform: Platform, task: str | None, file: Path, keep: bool) -> dict[str, Any]:
    """Bring rows of a file online at once, and into the history where they are to be kept; raises Invalid."""
    name, _ = platform.settings.task(task)
    view = views.of_task(platform, name)
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    rows = table_of(view, parsed(text, str(file)), platform.clock.now())
    if keep:
        platform.features.add(view, rows, f"pushed-{digest_of(text)}")
    platform.features.push(view, rows)
    return {"task": name, "version": view.tags["version"], "pushed": rows.num_rows, "kept": keep}


def remove(platform: Platform, task: str | None, keys: Sequence[str]) -> dict[str, Any]:
    """Take rows out of every version's history and out of the online store."""
    name, _ = platform.settings.task(task)
    found = [views.of_task(platform, name), *views.versions(platform, name)]
    once = {view.project: view for view in found}.values()
    gone = sum(platform.features.remove(view, keys, platform.clock.now()) for view in once)
    return {"task": name, "ids": list(keys), "rows": gone}


def parsed(text: str, where: str) -> list[Mapping[str, Any]]:
    """Rows of a JSON list, of one JSON object, of columns, or of JSON lines; raises Invalid."""
    try:
        whole = [json.loads(text)]
    except ValueError:
        try:
            whole = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise Invalid(f"'{where}' is neither JSON nor JSON lines: {error}", "give rows or columns") from error
    rows = whole[0] if len(whole) == 1 and isinstance(whole[0], list) else whole
    if len(rows) == 1 and isinstance(rows[0], dict) and isinstance(rows[0].get(views.ENTITY), list):
        columns = rows[0]
        if len({len(each) if isinstance(each, list) else -1 for each in columns.values()}) != 1:
            raise Invalid(f"the columns of '{where}' are not lists of one length", "give every row a value")
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise Invalid(f"'{where}' holds no rows", f'[{{"{views.ENTITY}": "123", "token_ids": [101, 2129]}}]')
    return list(rows)


def table_of(view: FeatureView, rows: Sequence[Mapping[str, Any]], now: datetime) -> pa.Table:
    """Rows of a file as those of the view; the time is now where they have none. Raises Invalid for a faulty row."""
    found = [_row(view, row, number, now) for number, row in enumerate(rows, 1)]
    return pa.table({name: [row[name] for row in found] for name in found[0]})


def _row(view: FeatureView, row: Mapping[str, Any], number: int, now: datetime) -> dict[str, Any]:
    known = {view.entity, *view.fields, "event_timestamp"}
    if strange := sorted(set(row) - known):
        raise Invalid(f"row {number} has an unknown column '{strange[0]}'", f"use {', '.join(sorted(known))}")
    key, ids = row.get(view.entity), row.get("token_ids")
    if not isinstance(key, str | int) or isinstance(key, bool) or key == "":
        raise Invalid(f"row {number} has no '{view.entity}'", "give each row a name")
    if not _numbers(ids) or not ids:
        raise Invalid(f"the 'token_ids' of row {number} are no list of whole numbers", '"token_ids": [101, 2129]')
    seen = row.get("attention_mask", [1] * len(ids))
    masks = {"attention_mask": seen, "loss_mask": row.get("loss_mask", seen)}
    for name, mask in masks.items():
        if not _numbers(mask) or len(mask) != len(ids) or not set(mask) <= {0, 1}:
            raise Invalid(f"the '{name}' of row {number} does not fit its {len(ids)} tokens", "a 0 or 1 for each token")
    try:
        at = datetime.fromisoformat(row["event_timestamp"]) if "event_timestamp" in row else now
    except (TypeError, ValueError) as error:
        raise Invalid(f"the time '{row['event_timestamp']}' of row {number} is none", "2026-01-31T12:00:00Z") from error
    meta = row.get("meta", "")
    return {
        view.entity: str(key), "token_ids": ids, **masks, "n_tokens": sum(masks["attention_mask"]),
        "meta": meta if isinstance(meta, str) else json.dumps(meta, ensure_ascii=False),
        "event_timestamp": at if at.tzinfo else at.replace(tzinfo=UTC), "created": now,
    }  # fmt: skip


def _numbers(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in value)


def encode(platform: Platform, task: str | None, text: str, tokenizer: str | None, length: int) -> dict[str, Any]:
    """Token ids and attention mask of a text, cut or filled up to `length` (0: as long as it is)."""
    from noria.backends import plain_tokenizer

    if tokenizer is not None:
        return plain_tokenizer.encode(plain_tokenizer.found(tokenizer), text, length)
    _, settings = platform.settings.task(task)
    folder = platform.trainer.tokenizer(platform.model(settings.base))
    return plain_tokenizer.encode(folder / "tokenizer.json", text, length)


def _there(view: FeatureView, rows: Sequence[Mapping[str, Any]], hint: str) -> None:
    missing = [row[view.entity] for row in rows if row["token_ids"] is None]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise NotFound(f"there is no row '{missing[0]}'{more} in '{view.name}'", hint)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _shown(value) if isinstance(value, datetime) else value for key, value in row.items()}


def _shown(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def moment(text: str | None, option: str) -> datetime | None:
    """A time as it was typed, in UTC where it does not say; raises Invalid."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(f"{option} '{text}' is no time", "such as 2026-01-31 or 2026-01-31T12:00:00Z") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)
