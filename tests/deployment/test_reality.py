"""By how much the plan of a running engine was off: told after each start, kept for those who ask later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, cast

import pytest

from noria.deployment.memory_plan import GIB, Asked, Plan
from noria.deployment.reality import EVERY, Realities
from noria.deployment.replicas import Replicas
from noria.settings import EngineSettings

PLAN = Plan(
    engine="llamacpp", precision="Q4_1", asked=Asked(2048, 4), weights=GIB, cache=GIB, activations=0.0, overhead=0.0,
    limit=8 * GIB, read=GIB,
)  # fmt: skip


class Process:
    """All that is asked of an engine here."""

    def __init__(self, *pids: int) -> None:
        self.pids = pids


class Running:
    """Replicas of which the test says which live."""

    settings = EngineSettings(kind="llamacpp", model="m")

    def __init__(self, *children: Process) -> None:
        self.children = children


class World:
    def __init__(self) -> None:
        self.plan: Plan | None = PLAN
        self.held = {1: 1.6 * GIB, 2: 1.6 * GIB}
        self.seconds = 0.0
        self.lines: list[str] = []
        self.waiting: list[Callable[[], None]] = []
        self.realities = Realities(
            lambda settings: self.plan, self.taken, self.submit, lambda: self.seconds, self.lines.append
        )

    def taken(self, pids: Sequence[int]) -> int:
        return int(sum(self.held[pid] for pid in pids))

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()

        def do() -> None:
            try:
                future.set_result(work())
            except ValueError as error:
                future.set_exception(error)

        self.waiting.append(do)
        return future

    @property
    def off(self) -> float:
        found = self.realities.of("local")
        assert found is not None
        return round(found.off, 6)

    def poll(self, **running: Running) -> None:
        there = cast("dict[str, Replicas]", running)
        self.realities.poll(there)
        while self.waiting:
            self.waiting.pop()()
        self.realities.poll(there)


@pytest.fixture
def world() -> World:
    return World()


def test_a_start_is_told_once_and_the_most_that_was_held_is_kept(world: World) -> None:
    local = Running(Process(1, 5))
    world.poll(local=local)
    assert world.lines == ["engine 'local' takes 1.600 GiB of memory; planned (noria fit) were 2.000: 25.0 % too much"]
    world.held[1] = 2.5 * GIB
    world.poll(local=local)
    assert world.off == 0.25
    world.seconds += EVERY
    world.poll(local=local)
    assert world.off == -0.2
    world.held[1] = GIB
    world.seconds += EVERY
    world.poll(local=local)
    assert world.off == -0.2
    assert len(world.lines) == 1


def test_another_start_is_another_comparison_and_what_is_gone_is_forgotten(world: World) -> None:
    world.poll(local=Running(Process(1)))
    world.held[2] = 2.5 * GIB
    world.poll(local=Running(Process(2)))
    assert world.lines[1].endswith("takes 2.500 GiB of memory; planned (noria fit) were 2.000: 20.0 % too little")
    world.poll()
    assert world.realities.of("local") is None


def test_nothing_is_told_without_a_plan_without_a_process_and_after_a_fault(world: World) -> None:
    world.poll(there=Running(Process()), starting=Running())
    world.plan = None
    world.poll(odd=Running(Process(1)))
    world.plan = PLAN
    world.held[1] = 0
    world.poll(gone=Running(Process(1)))

    def broken(settings: EngineSettings) -> Plan | None:
        raise ValueError("a header of nonsense")

    world.realities._plan = broken
    world.poll(broken=Running(Process(2)))
    assert world.lines == []
    assert all(world.realities.of(name) is None for name in ("there", "starting", "odd", "gone", "broken"))
