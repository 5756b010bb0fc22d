"""Object stores and other places that fsspec reaches: their files are listed, and fetched to be read."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

from noria import buckets
from noria.lake.limited import too_large
from noria.lake.listing import File

_CHUNK = 1 << 20
_HINT = "check the address, the credentials in the environment and the source's storage"


def is_remote(path: str) -> bool:
    """Whether a path names a place beyond the file system."""
    return "://" in path and not path.startswith("file://")


class Store:
    """The file system behind a source's path; `where` is the place in noria.toml for its errors."""

    def __init__(self, path: str, options: Mapping[str, str | int | bool], where: str) -> None:
        self.path, self.where = path, where
        self.protocol = path.partition("://")[0]
        with self._told():
            self._system = buckets.opened(self.protocol, options, _HINT, where)

    def files(self, file_mb: float) -> list[File]:
        """The files that the pattern names, in the order of their names."""
        with self._told():
            self._system.invalidate_cache()
            found: dict[str, dict[str, Any]] = self._system.glob(self.path, detail=True)
        files = [self._file(path, found[path], file_mb) for path in sorted(found)]
        return [file for file in files if file is not None]

    def digest(self, file: File) -> str:
        """SHA-256 of the file, of which nothing stays on this machine."""
        sha = hashlib.sha256()
        for chunk in self._chunks(file):
            sha.update(chunk)
        return sha.hexdigest()

    def fetch(self, file: File, place: Path) -> str:
        """Write the file to `place`; returns its SHA-256."""
        sha = hashlib.sha256()
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as out:
            for chunk in self._chunks(file):
                sha.update(chunk)
                out.write(chunk)
        return sha.hexdigest()

    def _chunks(self, file: File) -> Iterator[bytes]:
        with self._told(), self._system.open(file.path, "rb") as stream:
            left = file.size
            while left > 0 and (chunk := stream.read(min(_CHUNK, left))):
                left -= len(chunk)
                yield chunk

    def _file(self, path: str, info: Mapping[str, Any], file_mb: float) -> File | None:
        if info.get("type", "file") != "file":
            return None
        size = int(info.get("size") or 0)
        tag = info.get("ETag") or info.get("etag") or ""
        times = (info.get(name) for name in ("LastModified", "last_modified", "mtime", "created"))
        changed = next((at for at in times if at), None)
        mark = f"{size}:{tag}:{changed}" if tag or changed else ""
        # A tag says what is inside; a time alone may hide a change of the same moment.
        age = 1e9 if tag else _age(changed)
        refused = too_large(size, file_mb) if size > file_mb * (1 << 20) else ""
        return File(f"{self.protocol}://{path.lstrip('/')}", path, size, mark, age, refused)

    def _told(self) -> AbstractContextManager[None]:
        return buckets.told(self.path, "cannot be read", _HINT, self.where)


def _age(changed: object) -> float:
    if isinstance(changed, datetime):
        changed = changed.timestamp()
    return time.time() - changed if isinstance(changed, int | float) else 0.0
