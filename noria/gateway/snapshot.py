"""The gateway's view of the ledger: one file, watched, taken over as a whole or not at all."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from noria import prompts
from noria.errors import Invalid, NoriaError, NotFound
from noria.gateway.light import Lights
from noria.gateway.limits import Subject
from noria.gateway.routing import Live, LiveArm, Replicas, bounds_of
from noria.ports import Index
from noria.settings import GatewaySettings, LimitSettings, RecordSettings, TaskSettings
from noria.types import Arm, KeyGrant, Route, Snapshot

POLL_SECONDS = 0.2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a key: what it may do, and under which name its use is counted."""

    grant: KeyGrant
    subject: Subject

    def may_ask(self, live: Live) -> bool:
        """Whether this key may use a route: users have the tasks, others base models and adapters too."""
        models = self.grant.models
        return (not models or live.name in models) and (live.task is not None or self.grant.role != "user")


@dataclass(frozen=True, slots=True)
class View:
    """One snapshot with everything that it names opened. A request keeps the view it began with in hand.

    `holders` are by the SHA-256 of their keys, `tasks` the subjects of the tasks' own limits.
    """

    snapshot: Snapshot
    live: Mapping[str, Live]
    holders: Mapping[bytes, Holder]
    tasks: Mapping[str, Subject]
    rules: GatewaySettings

    def open_to(self, holder: Holder) -> list[str]:
        """The models that the holder of a key may ask, in order."""
        return [name for name, live in sorted(self.live.items()) if holder.may_ask(live)]


class SnapshotFile:
    """Follows a snapshot file: `current` is the last good one.

    A file that is broken, gone, or names an index that cannot be opened leaves the one before in use.
    """

    def __init__(self, path: Path, open_index: Callable[[Path], Index]) -> None:
        """Read the file; raises NotFound or Invalid: there is nothing to go back to yet."""
        self.path: Final = path
        self._open_index = open_index
        self._indexes: dict[str, Index] = {}
        self.replicas = Replicas(time.monotonic)
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
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> View:
        where = self.path.name
        try:
            snapshot = Snapshot.model_validate_json(self.path.read_bytes())
            view = self._view(snapshot)
        except FileNotFoundError as error:
            raise NotFound(
                f"there is no '{where}' in '{self.path.parent}'", "start noria up: it writes the file"
            ) from error
        except OSError as error:
            raise Invalid(f"'{where}' cannot be read: {error.strerror}", "check its owner and mode") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise Invalid(f"'{where}' is not a snapshot: {place}: {first['msg']}", "write it again") from error
        return view

    def _view(self, snapshot: Snapshot) -> View:
        arms = [arm for route in snapshot.routes.values() for arm in (*route.arms, *route.fallbacks)]
        folders = {arm.index for arm in arms if arm.index is not None}
        self._indexes = {folder: self._indexes.get(folder) or self._open(folder) for folder in sorted(folders)}
        rules = GatewaySettings.model_validate(snapshot.gateway)
        live = {name: self._live(name, route) for name, route in snapshot.routes.items()}
        self.replicas.keep({endpoint for arm in arms for endpoint in arm.upstreams})
        return View(
            snapshot=snapshot,
            live=live,
            holders={bytes.fromhex(digest): _holder(grant, rules) for digest, grant in snapshot.keys.items()},
            tasks={
                name: Subject(f"task:{name}", f"task '{name}'", each.task.limits)
                for name, each in live.items()
                if each.task is not None and each.task.limits != LimitSettings()
            },
            rules=rules,
        )

    def _live(self, name: str, route: Route) -> Live:
        arms = [arm for arm in route.arms if not arm.shadow]
        if not arms:
            raise Invalid(f"route '{name}' has no arm that answers", "write the snapshot again")
        for each in (*route.arms, *route.fallbacks):
            for replica in self.replicas.of(each):
                # An address that no request could be sent to must show here.
                replica.target("/")
        task = None if route.task is None else TaskSettings.model_validate(route.task)
        return Live(
            name=name,
            route=route,
            task=task,
            arms=tuple(self._arm(arm) for arm in arms),
            bounds=bounds_of(arms),
            shadows=tuple(self._arm(arm) for arm in route.arms if arm.shadow),
            fallbacks=tuple(self._arm(arm) for arm in route.fallbacks),
            by_user=task is None or task.sticky == "user",
            inputs=(task.guards.input or None) if task is not None else None,
            outputs=(task.guards.output or None) if task is not None else None,
            record=task.record if task is not None and task.record != RecordSettings() else None,
            lights=Lights(task.lights) if task is not None and task.lights is not None else None,
        )

    def _arm(self, arm: Arm) -> LiveArm:
        index = None if arm.index is None else self._indexes[arm.index]
        name = arm.served_by.encode("ascii", "replace")
        return LiveArm(arm, self.replicas.of(arm), index, name, prompts.worded(arm.wording))

    def _open(self, folder: str) -> Index:
        try:
            return self._open_index(Path(folder))
        except OSError as error:
            raise Invalid(f"the index '{folder}' cannot be opened: {error}", "build it again: noria run") from error


def _holder(grant: KeyGrant, rules: GatewaySettings) -> Holder:
    limits = LimitSettings.model_validate(grant.limits) if grant.limits else rules.limits
    return Holder(grant, Subject(f"key:{grant.id}", f"key '{grant.name}'", limits))
