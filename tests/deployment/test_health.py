"""When an engine counts as ill: a look, a request for one token, its memory; by a clock that the test owns."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from noria.backends.fake import FakeEngine, FakeEngines
from noria.backends.processes import LinuxMachine, tree
from noria.deployment.health import Health
from noria.deployment.replicas import House, Replicas
from noria.errors import Invalid, NoriaError, Unavailable
from noria.settings import EngineSettings

SETTINGS = EngineSettings(kind="llamacpp", model="m", slots=4, memory="1MiB")


class Body:
    """A machine whose numbers the test says."""

    def __init__(self) -> None:
        self.bytes = 0
        self.killed: list[int] = []

    def memory(self, pids: Sequence[int]) -> int:
        return self.bytes

    def taken(self, pids: Sequence[int]) -> int:
        return self.bytes

    def kill(self, pids: Sequence[int]) -> None:
        self.killed += pids

    def confined(self, cores: int, place: int) -> AbstractContextManager[None]:
        return nullcontext()


class Patient:
    """An engine under observation; each request for a token ends as it was told, or not at all."""

    def __init__(self, engine: FakeEngine) -> None:
        self.seconds = 0.0
        self.queue = 0
        self.hangs = self.silent = False
        self.fault: NoriaError | None = None
        self.body = Body()
        self.engine = engine
        engine.pids = (7,)  # type: ignore[attr-defined]
        engine.answer = self._answer  # type: ignore[assignment,method-assign]
        self.health = Health(engine, SETTINGS, lambda: self.seconds, self._submit, lambda url: self.queue, self.body)

    def _answer(self, *given: object) -> None:
        if self.fault is not None:
            raise self.fault

    def _submit(self, work: Callable[[], str]) -> Future[str]:
        future: Future[str] = Future()
        if not (self.hangs and work == self.health._answers):
            future.set_result(work())
        if self.silent and work == self.health._alive:
            return Future()
        return future

    def after(self, seconds: float) -> str:
        self.seconds += seconds
        return self.health.fault()


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Patient]:
    engine = FakeEngines().start(EngineSettings(kind="fake", model="fake"), {}, tmp_path / "log")
    yield Patient(engine)
    engine.close()


def test_a_well_one_is_well(patient: Patient) -> None:
    assert [patient.after(10) for _ in range(5)] == [""] * 5


def test_no_token_in_the_limit_is_a_hang_and_a_queue_before_it_lengthens_the_limit(patient: Patient) -> None:
    patient.hangs, patient.queue = True, 9
    assert patient.after(15) == ""
    patient.queue = 3
    assert patient.after(89) == ""
    assert patient.after(2) == "no token in 90 s"


def test_silence_is_a_fault_unless_more_is_in_flight_than_it_has_slots(patient: Patient) -> None:
    patient.silent = True
    assert [patient.after(0), patient.after(7)] == ["", ""]
    patient.queue = 5
    assert patient.after(2) == ""
    patient.queue = 4
    assert patient.after(0) == "it answers no more"


def test_three_failed_requests_in_a_row_are_a_fault_and_a_refusal_is_an_answer(patient: Patient) -> None:
    patient.fault = Unavailable("500")
    assert [patient.after(15), patient.after(15)] == ["", ""]
    patient.fault = Invalid("I make vectors only")
    assert patient.after(15) == ""
    patient.fault = Unavailable("500")
    assert [patient.after(15), patient.after(15), patient.after(15)] == ["", "", "it gives no token: 500"]


def test_too_much_memory_is_a_fault(patient: Patient) -> None:
    patient.body.bytes = 1 << 20
    assert patient.after(3) == ""
    patient.body.bytes += 1
    assert patient.after(1) == ""
    assert patient.after(2) == "it took 1 MiB, and its limit is 1MiB"


def test_what_is_ill_is_killed_before_it_is_closed(patient: Patient) -> None:
    closed: list[object] = []
    house = House(lambda: patient.seconds, closed.append, machine=patient.body)
    replicas = Replicas(SETTINGS, frozenset(), lambda settings, number: patient.engine, house)
    replicas.begin()
    replicas.poll()
    assert replicas.pids == (7,)
    patient.body.bytes = 2 << 20
    patient.seconds += 3
    assert replicas.poll() == (1, 0)
    assert (patient.body.killed, closed, replicas.fault) == (
        [7],
        [patient.engine],
        "it took 2 MiB, and its limit is 1MiB",
    )


FAMILY = """
import os, subprocess, sys, time
held = bytearray(64 << 20)
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, sys.argv[0], "child"])
print(len(os.sched_getaffinity(0)), flush=True)
time.sleep(60)
"""


def test_the_machine_counts_children_and_ends_groups_and_confines_for_life(tmp_path: Path) -> None:
    script = tmp_path / "family.py"
    script.write_text(FAMILY)
    machine = LinuxMachine()
    mine = os.sched_getaffinity(0)
    with machine.confined(1, 5):
        parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, start_new_session=True)
    assert os.sched_getaffinity(0) == mine
    assert parent.stdout is not None
    assert [parent.stdout.readline() for _ in range(2)] == [b"1\n", b"1\n"]
    assert len(tree([parent.pid])) == 2
    assert machine.memory([parent.pid]) > 2 * (64 << 20)
    (child,) = [pid for pid in tree([parent.pid]) if pid != parent.pid]
    machine.kill([parent.pid])
    machine.kill([parent.pid])
    assert parent.wait(10) == -9
    parent.stdout.close()
    end = time.monotonic() + 10
    while Path(f"/proc/{child}/cmdline").is_file() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert machine.memory([parent.pid]) == 0


def test_confinement_is_of_the_thread_that_starts(tmp_path: Path) -> None:
    seen: list[int] = []

    def start() -> None:
        with LinuxMachine().confined(1, 0):
            seen.append(len(os.sched_getaffinity(0)))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert seen == [1]
