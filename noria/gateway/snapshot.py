"""The snapshot in use: all that the gateway knows of the ledger, replaced as a whole while it serves."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from noria.errors import Invalid, NoriaError, NotFound
from noria.gateway.client import Target, target
from noria.ports import Index
from noria.types import Route, Snapshot

POLL_SECONDS = 0.2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Live:
    """A route ready for use: where it leads and, where the task has context, its open index."""

    route: Route
    target: Target
    index: Index | None


@dataclass(frozen=True, slots=True)
class View:
    """One snapshot with everything that it names opened. A request keeps the view it began with in hand."""

    snapshot: Snapshot
    live: Mapping[str, Live]


class SnapshotFile:
    """Follows a snapshot file: `current` is the last good one.

    A file that is broken, gone, or names an index that cannot be opened leaves the one before in use.
    """

    def __init__(self, path: Path, open_index: Callable[[Path], Index]) -> None:
        """Read the file; raises NotFound or Invalid: there is nothing to go back to yet."""
        self._path = path
        self._open_index = open_index
        self._indexes: dict[str, Index] = {}
        self._seen = self._stamp()
        self.current = self._read()
        self.failures = 0

    def refresh(self) -> bool:
        """Take over the file if it was replaced; returns whether another snapshot is in use now."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self.current = self._read()
        except NoriaError as error:
            self.failures += 1
            _log.warning("snapshot %d stays in use: %s", self.current.snapshot.version, error)
            return False
        return True

    async def follow(self) -> None:
        """Refresh for ever. Reading and opening indexes happens in a thread; requests go on meanwhile."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self._stamp() != self._seen:
                await asyncio.to_thread(self.refresh)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> View:
        where = self._path.name
        try:
            snapshot = Snapshot.model_validate_json(self._path.read_bytes())
        except FileNotFoundError as error:
            raise NotFound(
                f"there is no '{where}' in '{self._path.parent}'", "start noria up: it writes the file"
            ) from error
        except OSError as error:
            raise Invalid(f"'{where}' cannot be read: {error.strerror}", "check its owner and mode") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise Invalid(f"'{where}' is not a snapshot: {place}: {first['msg']}", "write it again") from error
        folders = {route.index for route in snapshot.routes.values() if route.index is not None}
        opened = {folder: self._indexes.get(folder) or self._open(folder) for folder in sorted(folders)}
        live = {
            name: Live(
                route,
                target(route.url, route.key, "/chat/completions"),
                None if route.index is None else opened[route.index],
            )
            for name, route in snapshot.routes.items()
        }
        self._indexes = opened
        return View(snapshot, live)

    def _open(self, folder: str) -> Index:
        try:
            return self._open_index(Path(folder))
        except OSError as error:
            raise Invalid(f"the index '{folder}' cannot be opened: {error}", "build it again: noria run") from error
