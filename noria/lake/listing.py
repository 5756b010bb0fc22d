"""Files of a source: those that a pattern names, those that are refused, and their digests, asked for only once."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from noria.lake.limited import too_large

RACE = 2.0
"""Seconds after a change in which another one may leave the times of a file as they are."""
_WILD = re.compile(r"[*?\[]")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A file of a source.

    `name` is as shown, `path` as opened (of an object store, as fsspec takes it), `mark` changes when the file does,
    `age` is the seconds since then. A file with a reason in `refused` is not opened.
    """

    name: str
    path: str
    size: int
    mark: str
    age: float
    refused: str = ""


def local_files(pattern: str, root: Path, file_mb: float) -> list[File]:
    """Files that `pattern` names, from `root` if it is relative, in the order of their names.

    `*` and `?` hold for one level, `**` for any number; hidden files match only a pattern with the dot. Links are
    followed where they stay in the folder that the pattern starts from; a file that is named without any wildcard is
    read wherever it lies.
    """
    parts = Path(pattern.removeprefix("file://")).parts
    fixed = next((number for number, part in enumerate(parts) if _WILD.search(part)), len(parts))
    if fixed == len(parts):
        path = root / Path(*parts)
        return (
            [_file(path, _name(path, root, path.parent), None, file_mb)] if path.exists() and not path.is_dir() else []
        )
    base = root / Path(*parts[:fixed])
    inside = Path(os.path.realpath(base))
    found = sorted(set(_matches(base, parts[fixed:]))) if base.is_dir() else []
    return [_file(path, _name(path, root, base), inside, file_mb) for path in found]


def _name(path: Path, root: Path, base: Path) -> str:
    """As shown: from the project's folder, or elsewhere from the folder that the pattern starts from."""
    return path.relative_to(root if path.is_relative_to(root) else base).as_posix()


def _matches(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    head, rest = parts[0], parts[1:]
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except PermissionError:
        return
    if head == "**":
        yield from _matches(folder, rest or ("*",))
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _matches(Path(entry.path), parts)
        return
    for entry in entries:
        hidden = entry.name.startswith(".") and not head.startswith(".")
        if hidden or not fnmatch.fnmatchcase(entry.name, head):
            continue
        # Folders that are links are never entered: what they lead to may be anywhere, or where one came from.
        if rest and entry.is_dir(follow_symlinks=False):
            yield from _matches(Path(entry.path), rest)
        elif (not rest and not entry.is_dir(follow_symlinks=False)) or entry.is_symlink():
            yield Path(entry.path)


def _file(path: Path, name: str, inside: Path | None, file_mb: float) -> File:
    link = path.is_symlink()
    real = Path(os.path.realpath(path)) if link else path
    if inside is not None and link and not real.is_relative_to(inside):
        return File(name, str(path), 0, "", 0.0, f"it is a link out of the folder '{inside.name}'")
    try:
        found = os.lstat(real)
    except OSError as error:
        return File(name, str(path), 0, "", 0.0, f"it cannot be read: {error.strerror}")
    if not stat.S_ISREG(found.st_mode):
        reason = "it is a link to a folder" if stat.S_ISDIR(found.st_mode) else "it is not a regular file"
        return File(name, str(path), 0, "", 0.0, reason)
    mark = f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}:{found.st_ino}"
    age = time.time() - max(found.st_mtime, found.st_ctime)
    refused = too_large(found.st_size, file_mb) if found.st_size > file_mb * (1 << 20) else ""
    return File(name, str(real), found.st_size, mark, age, refused)


class Digests:
    """SHA-256 of files by path, kept with the marks that they had: a file is read again only when its mark is another.

    A digest is kept only where the file was at rest when it was made, or a change in the same tick of the file
    system's clock would go unseen.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known: dict[str, tuple[str, str]] = {}
        self._seen: dict[str, tuple[str, str]] = {}
        if place.is_file():
            # Where it cannot be read only time is lost.
            with suppress(ValueError):
                self._known = {
                    path: (mark, digest) for path, (mark, digest) in orjson.loads(place.read_bytes()).items()
                }

    def of(self, file: File) -> str | None:
        """The digest of a file that has not changed since."""
        mark, digest = self._known.get(file.path, ("", ""))
        if not file.mark or mark != file.mark:
            return None
        self._seen[file.path] = (mark, digest)
        return digest

    def keep(self, file: File, digest: str) -> None:
        """Remember the digest that was found for a file, if it was at rest."""
        if file.age >= RACE:
            self._seen[file.path] = (file.mark, digest)

    def save(self) -> None:
        """Write what was asked for, as one new file."""
        if self._seen != self._known:
            replace(self._place, orjson.dumps(self._seen))


def sha256(path: str) -> str:
    """SHA-256 of a regular file, that is no link."""
    sha = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
        while chunk := stream.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def replace(place: Path, data: bytes) -> None:
    """Write a file so that it is there as a whole or as it was."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f"{place.name}.{os.getpid()}.new")
    fresh.write_bytes(data)
    fresh.replace(place)


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, int]:
    """How many files are new, changed, unchanged and deleted between two maps of names to digests."""
    both = before.keys() & now.keys()
    other = sum(before[name] != now[name] for name in both)
    return {
        "new": len(now.keys() - before.keys()),
        "changed": other,
        "unchanged": len(both) - other,
        "deleted": len(before.keys() - now.keys()),
    }
