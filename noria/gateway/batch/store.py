"""Batches on disk: `OWNER/batch_ID/` holds what is told of a batch, its input, and the answers so far.

Whoever serves the API creates a batch and asks for its cancellation; everything else is written by the one worker that
holds the lock. A marker in `.open` stands for a batch that has not ended: it is made before the batch and removed
after its end, so that a kill in between loses nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from noria.errors import Conflict, NotFound
from noria.gateway.batch.files import write_private
from noria.gateway.limits import Limited
from noria.settings import GatewaySettings

OPEN_BATCHES: Final = 100
"""Batches of one key that may wait or be worked on at the same time."""
BATCHES: Final = 10_000
"""Batches of one key that are kept."""
KEPT_SECONDS: Final = 30 * 86400.0
"""How long a batch that has ended can be looked at."""
ENDED: Final = ("completed", "failed", "cancelled", "expired")
_IDENTITY = re.compile(r"batch_[0-9a-f]{32}")
_OWNER = re.compile(r"[A-Za-z0-9_-]{1,64}")


class BatchStore:
    """Blocking: its callers run it in a thread. Times are seconds since 1970."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = folder / ".open"

    def lock(self) -> int | None:
        """The descriptor of the worker's lock, or None while another process has it; raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._folder / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def create(self, owner: str, record: Mapping[str, Any], source: Path, rules: GatewaySettings) -> None:
        """Begin a batch on the file `source`; raises Limited or OSError."""
        identity = record["told"]["id"]
        waiting = [each for key, each in self.waiting() if key == owner]
        if len(waiting) >= OPEN_BATCHES:
            raise Limited("open_batches", "the key", OPEN_BATCHES, 60.0)
        # The inputs stay when their files are deleted, and are counted here then.
        if source.stat().st_size + sum(self._input_bytes(owner, each) for each in waiting) > rules.files_bytes:
            raise Limited("files_bytes", "the key's open batches", rules.files_bytes, 60.0)
        if len(self.identities(owner)) >= BATCHES:
            raise Limited("batches", "the key", BATCHES, 3600.0)
        folder = self.folder(owner, identity)
        folder.mkdir(mode=0o700, parents=True)
        # The input stays, whatever becomes of the uploaded file.
        os.link(source, folder / "input.jsonl")
        self._open.mkdir(mode=0o700, exist_ok=True)
        (self._open / f"{owner},{identity}").touch(mode=0o600)
        self.write(owner, record)

    def write(self, owner: str, record: Mapping[str, Any]) -> None:
        """Replace what is known of a batch; raises OSError."""
        write_private(self.folder(owner, record["told"]["id"]) / "batch.json", orjson.dumps(record))

    def read(self, owner: str, identity: str) -> dict[str, Any]:
        """What is known of a batch; raises NotFound."""
        try:
            found: dict[str, Any] = orjson.loads((self.folder(owner, identity) / "batch.json").read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            raise _unknown(identity) from None
        return found

    def told(self, owner: str, identity: str) -> dict[str, Any]:
        """A batch as the API tells of it (`Batch`); raises NotFound."""
        told: dict[str, Any] = self.read(owner, identity)["told"]
        since = None if told["status"] in ENDED else self.cancelling(owner, identity)
        return told if since is None else {**told, "status": "cancelling", "cancelling_at": since}

    def cancel(self, owner: str, identity: str) -> None:
        """Ask for a batch to be cancelled; raises NotFound, and Conflict when it has ended."""
        status = self.read(owner, identity)["told"]["status"]
        if status in ENDED:
            raise Conflict(f"a batch with status '{status}' cannot be cancelled", "nothing is left to be done")
        with suppress(FileExistsError):
            (self.folder(owner, identity) / "cancel").touch(mode=0o600, exist_ok=False)

    def cancelling(self, owner: str, identity: str) -> int | None:
        """When somebody asked for its cancellation."""
        with suppress(FileNotFoundError):
            return int((self.folder(owner, identity) / "cancel").stat().st_mtime)
        return None

    def identities(self, owner: str) -> list[str]:
        """The key's batches, oldest first."""
        if _OWNER.fullmatch(owner) is None:
            return []
        with suppress(FileNotFoundError):
            return sorted(filter(_IDENTITY.fullmatch, os.listdir(self._folder / owner)))
        return []

    def waiting(self) -> list[tuple[str, str]]:
        """Owner and id of the batches that have not ended, oldest first."""
        found = []
        with suppress(FileNotFoundError):
            for name in os.listdir(self._open):
                owner, _, identity = name.partition(",")
                if _OWNER.fullmatch(owner) and _IDENTITY.fullmatch(identity):
                    found.append((owner, identity))
        return sorted(found, key=lambda each: each[1])

    def ended(self, owner: str, identity: str) -> None:
        """Remove what a batch needs no more."""
        folder = self.folder(owner, identity)
        for name in ("input.jsonl", "output.jsonl", "errors.jsonl"):
            (folder / name).unlink(missing_ok=True)
        (self._open / f"{owner},{identity}").unlink(missing_ok=True)

    def sweep(self, now: float) -> None:
        """Forget batches that ended long ago, and those whose creation was cut off."""
        open_ = set(self.waiting())
        with suppress(FileNotFoundError):
            for folder in self._folder.glob("*/batch_*"):
                old = now - folder.stat().st_mtime > KEPT_SECONDS
                if old and (folder.parent.name, folder.name) not in open_:
                    shutil.rmtree(folder, ignore_errors=True)
        for owner, identity in open_:
            marker = self._open / f"{owner},{identity}"
            with suppress(FileNotFoundError):
                begun = (self.folder(owner, identity) / "batch.json").exists()
                if not begun and now - marker.stat().st_mtime > 3600.0:
                    marker.unlink()

    def _input_bytes(self, owner: str, identity: str) -> int:
        with suppress(FileNotFoundError):
            return (self.folder(owner, identity) / "input.jsonl").stat().st_size
        return 0

    def folder(self, owner: str, identity: str) -> Path:
        """Where a batch lies; raises NotFound for what cannot be one."""
        if _OWNER.fullmatch(owner) is None or _IDENTITY.fullmatch(identity) is None:
            raise _unknown(identity)
        return self._folder / owner / identity


def _unknown(identity: str) -> NotFound:
    return NotFound(f"there is no batch '{identity[:64]}'", "list them: GET /v1/batches")
