"""Which engines are asked for, and how long requests wait for one that is not loaded."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from noria.errors import Unavailable

if TYPE_CHECKING:
    from noria.gateway.record import Turn
    from noria.gateway.snapshot import SnapshotFile

LOOK_SECONDS: Final = 0.05
RETRY_SECONDS: Final = 5.0
"""What a caller is told to wait where an engine cannot be had now."""


class NotServed(Unavailable):
    """The engine is stopped, broken or has no room; `wait` is after how many seconds to ask again."""

    wait = RETRY_SECONDS


@dataclass(slots=True)
class Demand:
    """What this worker's requests want of the engines. The supervisor reads it and starts what is missed."""

    asked: dict[str, float] = field(default_factory=dict)
    """When each engine was asked last, in seconds since 1970."""
    _waiting: Counter[str] = field(default_factory=Counter)

    @property
    def missed(self) -> tuple[str, ...]:
        """Engines that requests wait for."""
        return tuple(self._waiting)

    async def met(self, turn: Turn, snapshots: SnapshotFile) -> None:
        """Wait until the engine of the request's arm is there; its deadline ends this like anything else.

        Where that engine will not come, the first fallback that is not loaded is waited for in its place.

        Raises NotServed where it will not come and no fallback is there.
        """
        while (live := snapshots.current.live.get(turn.model)) is not None:
            arm = live.choose(turn.user if live.by_user else turn.conversation).arm
            self.asked[arm.engine] = turn.seconds
            if arm.refusal:
                if any(each.replicas for each in live.fallbacks):
                    return
                resting = (each.arm for each in live.fallbacks if each.arm.asleep and not each.arm.refusal)
                spare = next(resting, None)
                if spare is None:
                    raise NotServed(arm.refusal, "ask again later, or look: noria engines list")
                arm = spare
            elif not arm.asleep:
                return
            # Later than whatever put it to sleep, however long ago this request came.
            self.asked[arm.engine] = time.time()
            self._waiting[arm.engine] += 1
            try:
                await asyncio.sleep(LOOK_SECONDS)
            finally:
                self._waiting[arm.engine] -= 1
                if not self._waiting[arm.engine]:
                    del self._waiting[arm.engine]
