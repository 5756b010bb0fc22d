"""`noria run --watch`: a turn at the start for what is due, and one whenever sources or traffic have changed."""

from __future__ import annotations

import fcntl
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from noria import cycle, wiring
from noria import settings as reading
from noria.apps import views
from noria.apps.screen import Screen
from noria.errors import Conflict, NoriaError
from noria.lake import collect
from noria.ports import Platform
from noria.stage import Look
from noria.types import digest_of

LONGEST = 3600.0
"""Seconds between two attempts after many failures."""


class Watch:
    """Looks every so many seconds; `run` returns when it was told to stop, after the stage in hand."""

    def __init__(self, start: Path, task: str | None, until: str | None, every: float, as_json: bool) -> None:
        self._start = start
        self._task = task
        self._until = until
        self._every = every
        self._as_json = as_json
        self._stopping = threading.Event()
        self._done = ""
        self._failures = 0
        self._platform: tuple[str, Platform] | None = None

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT; raises Conflict where this task is watched already."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        platform = self._opened()
        name, _ = platform.settings.task(self._task)
        with _alone(platform.settings.state / "locks", name):
            while not self._stopping.is_set():
                self._stopping.wait(self.look())

    def look(self) -> float:
        """Run a turn if there is something new; returns how many seconds to wait until the next look."""
        try:
            self._turn()
        except Conflict as error:
            # Somebody else's turn is no failure of ours.
            self._say({"event": "waits", "because": error.fact})
            return self._every
        except (NoriaError, OSError) as error:
            self._failures += 1
            pause = min(self._every * 2.0**self._failures, max(LONGEST, self._every))
            self._say({"event": "failed", "because": str(error), "again_in": pause})
            return pause
        self._failures = 0
        return self._every

    def _turn(self) -> None:
        platform = self._opened()
        name, task = platform.settings.task(self._task)
        seen = collect.observes(Look(platform, name, task, {}))
        mark = digest_of([self._platform[0] if self._platform else "", seen])
        if mark == self._done:
            return
        # What follows may fail, and is then due whatever is seen.
        self._done = ""
        with Screen(quiet=True) as screen:
            turn = cycle.turn(platform, name, screen, until=self._until, stop=self._stopping.is_set)
        if turn.cycle.ended is None:
            self._say({"event": "stopped", "cycle": turn.cycle.id, "stages": [step.stage for step in turn.steps]})
            return
        # A cycle that was stopped before went on with what it had seen then.
        if turn.steps[0].artifact.meta.get("observed") == seen:
            self._done = mark
        self._say({"event": "turned", **views.result(platform, turn)})

    def _opened(self) -> Platform:
        """The platform, opened again when noria.toml has changed; a turn is due then too."""
        file = reading.find(self._start)
        text = digest_of(file.read_text()) if file.is_file() else ""
        if self._platform is None or self._platform[0] != text:
            self._platform = (text, wiring.open_platform(reading.load(file)))
        return self._platform[1]

    def _say(self, told: dict[str, Any]) -> None:
        if self._as_json:
            typer.echo(json.dumps(told, ensure_ascii=False))
        elif told["event"] == "turned":
            made = [stage["output"] for stage in told["stages"] if not stage["skipped"]]
            verdict = f"{told['verdict']}: {told['because']}" if told["verdict"] else ", ".join(made) or "nothing new"
            typer.echo(f"{told['cycle']}  {verdict}")
        elif told["event"] == "stopped":
            typer.echo(f"{told['cycle']}  stopped after {len(told['stages'])} stages; the next turn goes on with it")
        elif told["event"] == "waits":
            typer.echo(f"waits: {told['because']}")
        else:
            typer.echo(f"failed: {told['because']}; again in {told['again_in']:.0f} s")
        sys.stdout.flush()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"watch-{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"'{name}' is watched already", "one is enough: stop the other first") from None
        yield
