"""Requests that are being served: who has left, and whose time is up.

Both are looked at a few times a second for all requests together. A watcher and a timer for each would cost more than
everything else that is done for a short request.
"""

from __future__ import annotations

import asyncio
import time

from noria.gateway.record import Turn
from noria.gateway.wire import Receive

SWEEP_SECONDS = 0.1


class Inflight:
    """The requests in flight of one worker."""

    def __init__(self) -> None:
        self._turns: dict[Turn, Receive] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._turns)

    def enter(self, turn: Turn, receive: Receive) -> None:
        """Begin to look after a request whose body has been read."""
        # With the loop given, asking costs no look at the process.
        turn.serving = asyncio.current_task(self._loop)
        self._turns[turn] = receive

    def leave(self, turn: Turn) -> None:
        """It has ended."""
        self._turns.pop(turn, None)
        if turn.watcher is not None and not turn.watcher.done():
            turn.watcher.cancel()

    async def sweep(self) -> None:
        """Look after them for ever."""
        self._loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.perf_counter()
            for turn, receive in list(self._turns.items()):
                if turn.watcher is None and now - turn.began > SWEEP_SECONDS:
                    self._watch(turn, receive)
                if now > turn.deadline and not turn.recorded and not turn.late and turn.serving is not None:
                    turn.late = True
                    turn.serving.cancel()

    def _watch(self, turn: Turn, receive: Receive) -> None:
        """Cancel the request when its client leaves before the record is written."""

        def left(watcher: asyncio.Task[object]) -> None:
            if not watcher.cancelled() and not turn.recorded and not turn.late and turn.serving is not None:
                turn.gone = True
                turn.serving.cancel()

        turn.watcher = asyncio.ensure_future(receive())
        turn.watcher.add_done_callback(left)
