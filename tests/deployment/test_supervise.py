"""Restarts of a crashed child, on a clock that the test owns."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.backends.fake import FakeClock
from noria.deployment.supervise import Backoff, Supervised
from noria.errors import Invalid, NoriaError, Unavailable


@dataclass
class Child:
    number: int
    living: bool = True
    stopped: bool = False


@dataclass
class Nursery:
    """Starts children, or fails with the errors it was given."""

    clock: FakeClock = field(default_factory=FakeClock)
    made: list[Child] = field(default_factory=list)
    faults: list[NoriaError] = field(default_factory=list)

    def start(self) -> Child:
        if self.faults:
            raise self.faults.pop(0)
        self.made.append(Child(len(self.made)))
        return self.made[-1]

    def stop(self, child: Child) -> None:
        child.living, child.stopped = False, True

    def supervised(self, backoff: Backoff | None = None) -> Supervised[Child]:
        return Supervised(self.start, lambda child: child.living, self.stop, self.clock.monotonic, backoff)

    def crash_until_restarted(self, watched: Supervised[Child]) -> float:
        """Kill the child and poll every 1/8 s (an exact binary fraction); the seconds until there is a new one."""
        self.made[-1].living = False
        assert watched.poll() is None
        began = self.clock.monotonic()
        while watched.poll() is None:
            self.clock.advance(0.125)
        return self.clock.monotonic() - began


def test_a_healthy_child_is_left_alone() -> None:
    nursery = Nursery()
    watched = nursery.supervised()
    child = watched.begin()
    for _ in range(5):
        nursery.clock.advance(10)
        assert watched.poll() is child
    assert watched.restarts == 0


def test_waits_grow_to_a_limit_and_start_over_after_calm() -> None:
    nursery = Nursery()
    watched = nursery.supervised(Backoff(first=0.25, factor=2, most=1.5, calm=30))
    watched.begin()
    assert [nursery.crash_until_restarted(watched) for _ in range(5)] == [0.25, 0.5, 1.0, 1.5, 1.5]
    assert watched.restarts == 5
    nursery.clock.advance(29)
    assert nursery.crash_until_restarted(watched) == 1.5
    nursery.clock.advance(30)
    assert nursery.crash_until_restarted(watched) == 0.25


def test_a_dead_child_is_stopped_once_and_its_place_is_empty() -> None:
    nursery = Nursery()
    watched = nursery.supervised()
    first = watched.begin()
    first.living = False
    assert watched.poll() is None
    assert watched.child is None
    assert first.stopped
    nursery.clock.advance(0.2)
    assert watched.poll() is nursery.made[1]


def test_a_failed_start_is_one_more_crash() -> None:
    nursery = Nursery()
    watched = nursery.supervised(Backoff(first=0.25))
    watched.begin()
    nursery.faults = [Unavailable("no memory"), Unavailable("no memory")]
    assert nursery.crash_until_restarted(watched) == 0.25 + 0.5 + 1.0
    assert watched.failure is None


def test_the_reason_of_a_failed_start_is_kept() -> None:
    nursery = Nursery()
    watched = nursery.supervised()
    watched.begin().living = False
    nursery.faults = [Unavailable("no memory")]
    watched.poll()
    nursery.clock.advance(0.2)
    assert watched.poll() is None
    assert str(watched.failure) == "no memory"


def test_the_first_start_fails_loudly() -> None:
    watched = Nursery(faults=[Unavailable("no memory")]).supervised()
    with pytest.raises(Unavailable):
        watched.begin()


def test_a_hopeless_restart_reaches_the_owner() -> None:
    nursery = Nursery()
    watched = nursery.supervised()
    watched.begin().living = False
    nursery.faults = [Invalid("the model file is gone")]
    watched.poll()
    nursery.clock.advance(0.2)
    with pytest.raises(Invalid):
        watched.poll()


def test_a_closed_one_stays_down() -> None:
    nursery = Nursery()
    watched = nursery.supervised()
    child = watched.begin()
    watched.close()
    assert child.stopped
    for _ in range(3):
        nursery.clock.advance(60)
        assert watched.poll() is None
    assert len(nursery.made) == 1


@given(st.floats(0.01, 5), st.floats(1, 5), st.floats(5, 100), st.integers(1, 5000))
def test_a_wait_never_shrinks_and_never_passes_the_limit(
    first: float, factor: float, most: float, crashes: int
) -> None:
    backoff = Backoff(first, factor, most)
    assert first <= backoff.delay(crashes) <= backoff.delay(crashes + 1) <= most
