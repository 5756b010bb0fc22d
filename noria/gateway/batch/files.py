"""The files that clients have uploaded and batches have written, on disk: a folder for each key.

`OWNER/file-ID` holds the content and `OWNER/file-ID.json` what is told of it; a file exists when the second one does.
The owner is the id of the key, so that no name that a client sends leads to another key's files.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from noria.errors import Invalid, NotFound

FILES: Final = 10_000
"""Files that one key may have."""
STALE_SECONDS: Final = 3600.0
"""After this time an upload that has not ended was cut off."""
_IDENTITY = re.compile(r"file-[0-9a-f]{32}")
_OWNER = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UPLOAD = ".upload-"


class FileStore:
    """Blocking: its callers run it in a thread. Times are seconds since 1970."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, owner: str, identity: str) -> Upload:
        """Begin to write a file; raises OSError."""
        folder = self._of(owner)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Upload(folder, identity)

    def used(self, owner: str) -> tuple[int, int]:
        """Bytes and number of the files of a key, those that are being uploaded included."""
        size = count = 0
        with suppress(FileNotFoundError), os.scandir(self._of(owner)) as found:
            for entry in found:
                # A file may be deleted while it is counted.
                with suppress(FileNotFoundError):
                    if not entry.name.endswith(".json"):
                        size += entry.stat().st_size
                        count += 1
        return size, count

    def require_room(self, owner: str, most: int, more: int = 0) -> None:
        """Raise Invalid when a key's files have more than `most` bytes, or there are too many of them."""
        size, count = self.used(owner)
        if size + more > most:
            raise Invalid(f"the key's files have {size + more} bytes; the most is {most}", "delete some of them")
        if count > FILES:
            raise Invalid(f"the key has {FILES} files; that is the most", "delete some of them")

    def get(self, owner: str, identity: str, now: float) -> dict[str, Any]:
        """What is told of a file; raises NotFound."""
        found = None if _IDENTITY.fullmatch(identity) is None else self._read(self._of(owner) / identity, now)
        if found is None:
            raise _unknown(identity)
        return found

    def path(self, owner: str, identity: str, now: float) -> Path:
        """Where a file's content lies; raises NotFound."""
        self.get(owner, identity, now)
        return self._of(owner) / identity

    def open(self, owner: str, identity: str, now: float) -> tuple[dict[str, Any], BinaryIO]:
        """What is told of a file, and the file itself, for reading; raises NotFound."""
        told = self.get(owner, identity, now)
        try:
            return told, (self._of(owner) / identity).open("rb")
        except FileNotFoundError:
            raise _unknown(identity) from None

    def delete(self, owner: str, identity: str, now: float) -> None:
        """Delete a file; raises NotFound."""
        _remove(self.path(owner, identity, now))

    def identities(self, owner: str) -> list[str]:
        """The key's files, oldest first."""
        try:
            names = os.listdir(self._of(owner))
        except FileNotFoundError:
            return []
        return sorted(name[:-5] for name in names if name.endswith(".json") and _IDENTITY.fullmatch(name[:-5]))

    def publish(self, owner: str, source: Path, told: dict[str, Any]) -> None:
        """Take over a finished file under the id in `told`; a second call changes nothing. Raises OSError."""
        folder = self._of(owner)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.link(source, folder / told["id"])
        write_private(folder / f"{told['id']}.json", orjson.dumps(told))

    def sweep(self, now: float) -> None:
        """Remove files whose time is up, and what cut-off uploads and deletions have left."""
        for folder in self._folder.glob("*/"):
            for name in os.listdir(folder):
                path = folder / name
                if name.endswith(".json") and _IDENTITY.fullmatch(name[:-5]):
                    self._read(path.with_suffix(""), now)
                elif _IDENTITY.fullmatch(name) is None or not path.with_name(f"{name}.json").exists():
                    with suppress(FileNotFoundError):
                        if now - path.stat().st_mtime > STALE_SECONDS:
                            path.unlink()

    def _read(self, path: Path, now: float) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = orjson.loads(path.with_name(f"{path.name}.json").read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None
        expires = found.get("expires_at")
        if expires is not None and expires <= now:
            _remove(path)
            return None
        return found

    def _of(self, owner: str) -> Path:
        if _OWNER.fullmatch(owner) is None:
            raise NotFound(f"key '{owner}' has no files")
        return self._folder / owner


class Upload:
    """A file that is being written. Unless it was kept, `close` leaves nothing of it."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._identity = identity
        self._path = folder / f"{_UPLOAD}{identity}"
        self._file: BinaryIO = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", 0)
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append; raises OSError."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.size += len(data)

    def keep(self, told: dict[str, Any]) -> None:
        """Force the file to the disk and make it known; raises OSError."""
        os.fsync(self._file.fileno())
        self._path.rename(self._folder / self._identity)
        write_private(self._folder / f"{self._identity}.json", orjson.dumps(told))

    def close(self) -> None:
        """Let go; a second call does nothing."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def new_file(
    at: float, identity: str, name: str, purpose: str, size: int, expires: float | None = None
) -> dict[str, Any]:
    """A file as OpenAI's API tells of it (`FileObject`)."""
    return {
        "id": identity, "object": "file", "bytes": size, "created_at": int(at), "filename": name, "purpose": purpose,
        "status": "processed", "expires_at": None if expires is None else int(expires), "status_details": None,
    }  # fmt: skip


def write_private(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its owner only; raises OSError."""
    fresh = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)


def _remove(path: Path) -> None:
    # Without what is told of it, a file does not exist any more.
    path.with_name(f"{path.name}.json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _unknown(identity: str) -> NotFound:
    return NotFound(f"there is no file '{identity[:64]}'", "list them: GET /v1/files")
