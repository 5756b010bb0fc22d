"""The limits' file between processes: nothing passes a limit, and a dead worker holds nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from noria.gateway.limits import Ledger, Limited, Subject, forget
from noria.settings import LimitSettings

AT = 1_000_000_000.0
HAMMER = """
import json, sys
from pathlib import Path
from noria.gateway.limits import Ledger, Limited, Subject
from noria.settings import LimitSettings
file, worker, limits, tokens, settle = sys.argv[1:]
ledger = Ledger(Path(file), int(worker), alone=False)
subject = Subject("key:k1", "key 'k1'", LimitSettings.model_validate_json(limits))
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
passed, most = 0, 0
for _ in range(400):
    try:
        held = ledger.reserve((subject,), int(tokens), 0.0, 1_000_000_000.0)
    except Limited:
        continue
    passed += 1
    most = max(most, int(ledger.used(subject, 1_000_000_000.0)["streams"]))
    if settle == "yes":
        ledger.settle(held, int(tokens), 0.0)
sys.stdout.write(json.dumps([passed, most]) + "\\n")
"""
pytestmark = pytest.mark.slow

LOCKED = """
import sys, time
from pathlib import Path
from noria.gateway.limits import Ledger
ledger = Ledger(Path(sys.argv[1]), 1, alone=False)
with ledger._locked():
    sys.stdout.write("locked\\n"); sys.stdout.flush()
    time.sleep(60)
"""


def subject(**limits: int) -> Subject:
    return Subject("key:k1", "key 'k1'", LimitSettings.model_validate(limits))


def hammer(file: Path, limits: dict[str, int], tokens: int, settle: bool) -> list[tuple[int, int]]:
    """How many requests each of four workers let in at one and the same time, and the most it saw in flight."""
    words = [str(file), json.dumps(limits), str(tokens), "yes" if settle else "no"]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, words[0], str(number), *words[1:]], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    found = []
    for worker in workers:
        said, _ = worker.communicate(timeout=60)
        passed, most = json.loads(said)
        found.append((passed, most))
    return found


@pytest.mark.parametrize(
    ("limits", "tokens", "settle", "most"),
    [
        ({"requests_per_minute": 100}, 1, True, 100),
        ({"tokens_per_minute": 1000}, 10, True, 100),
        ({"tokens_per_day": 500}, 5, True, 100),
        ({"streams": 7}, 1, False, 7),
    ],
)
def test_four_workers_let_in_exactly_what_one_would(
    tmp_path: Path, limits: dict[str, int], tokens: int, settle: bool, most: int
) -> None:
    assert sum(passed for passed, _ in hammer(tmp_path / "limits.bin", limits, tokens, settle)) == most


def test_streams_that_end_make_room_and_never_pass_the_limit(tmp_path: Path) -> None:
    found = hammer(tmp_path / "limits.bin", {"streams": 2}, 1, settle=True)
    assert max(most for _, most in found) <= 2
    assert sum(passed for passed, _ in found) > 2
    ledger = Ledger(tmp_path / "limits.bin", 0, alone=False)
    assert ledger.used(subject(streams=2), AT)["streams"] == 0


def test_a_worker_killed_inside_the_lock_blocks_nobody(tmp_path: Path) -> None:
    file = tmp_path / "limits.bin"
    ledger = Ledger(file, 0, alone=False)
    with subprocess.Popen([sys.executable, "-c", LOCKED, str(file)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert ledger.reserve((subject(streams=1),), 1, 0.0, AT).open


def test_the_streams_of_a_dead_worker_are_free_again_and_what_was_used_stays(tmp_path: Path) -> None:
    file = tmp_path / "limits.bin"
    mine, dead = Ledger(file, 0, alone=False), Ledger(file, 1, alone=False)
    both = subject(streams=2, requests_per_minute=5)
    mine.reserve((both,), 1, 0.0, AT)
    dead.reserve((both,), 1, 0.0, AT)
    dead.close()
    with pytest.raises(Limited) as caught:
        mine.reserve((both,), 1, 0.0, AT)
    assert caught.value.limit == "streams"
    forget(file, 1)
    assert mine.used(both, AT)["streams"] == 1
    mine.reserve((both,), 1, 0.0, AT)
    mine.close()
    # All of them are gone; another number of workers may begin.
    forget(file)
    again = Ledger(file, 0, alone=False)
    assert again.used(both, AT)["streams"] == 0
    again.reserve((both,), 1, 0.0, AT)
    again.reserve((both,), 1, 0.0, AT)
    with pytest.raises(Limited) as caught:
        again.reserve((subject(requests_per_minute=5),), 1, 0.0, AT)
    assert caught.value.limit == "requests_per_minute"


def test_workers_may_make_the_file_at_the_same_time(tmp_path: Path) -> None:
    for round_number in range(3):
        file = tmp_path / f"limits-{round_number}.bin"
        assert sum(passed for passed, _ in hammer(file, {"requests_per_minute": 50}, 1, True)) == 50
