"""Requests that are being served: who has left, and whose time is up.

Time is looked at a few times a second for all requests together: a timer for each would cost more than everything else
that is done for a short request.
"""

from __future__ import annotations

import asyncio
import time

from noria.gateway.record import Turn
from noria.gateway.wire import Caller

SWEEP_SECONDS = 0.1


class Inflight:
    """The requests in flight of one worker."""

    def __init__(self) -> None:
        self._turns: set[Turn] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._turns)

    def enter(self, turn: Turn, caller: Caller) -> None:
        """Begin to look after a request whose body has been read."""
        # With the loop given, asking costs no look at the process.
        turn.serving = asyncio.current_task(self._loop)
        caller.left = turn.left
        self._turns.add(turn)

    def leave(self, turn: Turn) -> None:
        """It has ended."""
        self._turns.discard(turn)

    async def sweep(self) -> None:
        """Look after them for ever."""
        self._loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.perf_counter()
            for turn in list(self._turns):
                if now > turn.deadline and not turn.recorded and not turn.late and turn.serving is not None:
                    turn.late = True
                    turn.serving.cancel()
