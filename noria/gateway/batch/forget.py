"""Taking a person out of uploaded files and batches: whole where they belong to the person's key, else line by line."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from noria.gateway.batch.files import FileStore, write_private
from noria.gateway.batch.store import ENDED, BatchStore


@dataclass(slots=True)
class Removed:
    """What was taken out, or would be; `open` are batches that still run with lines of the person."""

    files: int = 0
    batches: int = 0
    lines: int = 0
    open: list[str] = field(default_factory=list)


def forget(state: Path, user: str, owners: Collection[str], now: float, dry: bool) -> Removed:
    """Remove all files and batches of these keys, and of all others the lines whose request names the user.

    Answers are found by the ids that their requests have; where the request's file is gone, they are not found.
    Batches that still run are left and named. `now` is seconds since 1970.
    """
    removed = Removed()
    batches, files = BatchStore(state / "batches"), FileStore(state / "files")
    found = [(owner, each) for owner in _owners(state / "batches") for each in batches.identities(owner)]
    told = {each: batches.told(owner, each) for owner, each in found}
    for owner, each in found:
        if told[each]["status"] not in ENDED:
            if owner in owners or _named(state / "batches" / owner / each / "input.jsonl", user):
                removed.open.append(each)
        elif owner in owners:
            removed.batches += 1
            if not dry:
                for part in sorted((state / "batches" / owner / each).iterdir()):
                    part.unlink()
                (state / "batches" / owner / each).rmdir()
    for owner in _owners(state / "files"):
        ids = files.identities(owner)
        if owner in owners:
            removed.files += len(ids)
            for each in ids if not dry else ():
                files.delete(owner, each, now)
        else:
            outputs = {one["input_file_id"]: (one["output_file_id"], one["error_file_id"]) for one in told.values()}
            for each in ids:
                _lines(state / "files" / owner, each, outputs.get(each, ()), user, removed, dry)
    return removed


def _owners(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.glob("[!.]*") if each.is_dir()) if folder.is_dir() else []


def _lines(folder: Path, name: str, outputs: Collection[str | None], user: str, removed: Removed, dry: bool) -> None:
    """Take the user's requests out of one file, and their answers out of the files that belong to it."""
    custom = _named(folder / name, user)
    if not custom:
        return
    for each in (name, *filter(None, outputs)):
        path = folder / each
        if not path.is_file():
            continue
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if _object(line).get("custom_id") not in custom]
        removed.lines += len(lines) - len(kept)
        if not dry and len(kept) < len(lines):
            content = b"".join(kept)
            write_private(path, content)
            about = path.with_name(f"{each}.json")
            write_private(about, orjson.dumps({**orjson.loads(about.read_bytes()), "bytes": len(content)}))


def _named(path: Path, user: str) -> set[str]:
    """The ids of the requests in a file that name the user."""
    if not path.is_file():
        return set()
    return {str(line.get("custom_id")) for line in _objects(path) if _asked_by(line) == user}


def _asked_by(line: dict[str, Any]) -> object:
    body = line.get("body")
    return body.get("user") if isinstance(body, dict) else None


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        yield from map(_object, lines)


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
