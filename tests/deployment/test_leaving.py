"""Engines that go are known until they have gone, whichever thread lets them go."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import cast

from noria.backends.fake import FakeEngines
from noria.deployment.leaving import Leaving, _Closing
from noria.ports import Engine
from noria.settings import EngineSettings

THREADS = 8


class Slow:
    """All that is asked of an engine here: it ends when it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.closed = False

    def close(self) -> None:
        self.let.wait(20)
        self.closed = True


class Hesitant(Leaving):
    """Another thread gets its turn between the look at those that are going and the note of one more."""

    def _running(self) -> list[_Closing]:
        found = super()._running()
        time.sleep(0.01)
        return found


def test_engines_let_go_by_several_threads_at_once_are_all_waited_for() -> None:
    leaving = Hesitant(lambda version, url: True)
    engines = [Slow() for _ in range(THREADS)]
    threads = [threading.Thread(target=leaving.close_later, args=(cast(Engine, each),)) for each in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leaving._running()) == THREADS
    for each in engines:
        each.let.set()
    leaving.close()
    assert all(each.closed for each in engines)
    assert leaving.names == set()


def test_one_that_nobody_asks_is_closed_in_its_own_time(tmp_path: Path) -> None:
    leaving = Leaving(lambda version, url: True)
    engine = FakeEngines().start(EngineSettings(kind="fake", model="fake"), {}, tmp_path / "log")
    leaving.close_later(engine)
    leaving.close()
    assert not engine.alive()
