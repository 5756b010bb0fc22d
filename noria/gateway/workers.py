"""What the workers of one machine tell each other and their supervisor: a small file each, replaced as a whole."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from noria.gateway.metrics import Metrics, State

BEAT_SECONDS = 1.0
LOOK_SECONDS = 0.1
SILENT_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Worker:
    """This worker among its equals: writes `NUMBER.json` in `folder` and reads the others' files.

    The file holds the process id, the snapshot that was taken over, the requests in flight by upstream, when each
    engine was asked last, and all that was counted since the first worker of this number began: a worker goes on where
    its dead predecessor's file ends, so that no counter ever goes back.
    """

    def __init__(self, folder: Path, number: int, metrics: Metrics, state: Callable[[], State]) -> None:
        """Begin with what the file of this number holds. Raises OSError when the folder cannot be made."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = folder / f"{number}.json"
        self._metrics = metrics
        self._state = state
        self._metrics.add(counts_of(read(self._file)))

    def write(self) -> None:
        """Tell the others how things stand."""
        state = self._state()
        told = {
            "pid": os.getpid(),
            "snapshot": state.snapshot,
            "inflight": state.inflight,
            "serving": state.serving,
            "breakers": state.breakers,
            "asked": state.asked,
            "metrics": self._metrics.dump(),
        }
        fresh = self._file.with_suffix(".new")
        try:
            fresh.write_bytes(orjson.dumps(told, option=orjson.OPT_NON_STR_KEYS))
            fresh.replace(self._file)
        except OSError as error:
            # The supervisor waits for the next one; answering goes on.
            _log.warning("'%s' could not be written: %s", self._file.name, error.strerror)

    def expose(self) -> bytes:
        """The metrics of all workers together in Prometheus' text format; the others' are a second old at the most."""
        # Whatever was shown once must not be lost with this process.
        self.write()
        whole = Metrics()
        state = State()
        for told in everyone(self._folder):
            whole.add(counts_of(told))
            state.join(State.of(told))
        return whole.expose(state)

    def elsewhere(self, now: float) -> int:
        """Requests that the other workers were serving when they told last; who is silent is dead and serves none.

        `now` is in seconds since 1970.
        """
        serving = 0
        for file in self._folder.glob("*.json"):
            with suppress(FileNotFoundError):
                if file != self._file and now - file.stat().st_mtime < SILENT_SECONDS:
                    serving += State.of(read(file)).serving
        return serving

    async def beat(self, changed: Callable[[], Awaitable[None]] | None = None) -> None:
        """Write for ever: every BEAT_SECONDS, and at once when another snapshot was taken over or an engine is missed.

        `changed` is called first whenever there is another snapshot, and at the beginning.
        """
        loop = asyncio.get_running_loop()
        version, due, missed = -1, 0.0, frozenset[str]()
        while True:
            state = self._state()
            now, taken = loop.time(), state.snapshot
            if taken != version and changed is not None:
                await changed()
            if taken != version or now >= due or not missed.issuperset(state.waiting):
                version, due = taken, now + BEAT_SECONDS
                self.write()
            missed = frozenset(state.waiting)
            await asyncio.sleep(LOOK_SECONDS)


def read(file: Path) -> Mapping[str, Any]:
    """What a worker told last; empty where there is no file, or one of another version."""
    try:
        found = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def everyone(folder: Path) -> Iterator[Mapping[str, Any]]:
    """What each worker told last, dead ones too, whose successors go on from it."""
    for file in sorted(folder.glob("*.json")):
        yield read(file)


def counts_of(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """The counts in a worker's file."""
    found = told.get("metrics")
    return found if isinstance(found, dict) else {}
