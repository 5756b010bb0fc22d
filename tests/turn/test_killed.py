"""kill -9 of any noria process at a random moment, again and again in one cycle, under traffic."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
import sqlalchemy as sa
import turning

from noria.backends import ledger

GONE_SECONDS = 10.0


@dataclass
class Customer:
    """Asks again and again, and remembers the ids of the answers that arrived whole."""

    folder: Path
    answered: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        while not self.stop.wait(0.05):
            try:
                url = json.loads((self.folder / ".noria" / "up.json").read_text())["data"]
                key = (self.folder / ".noria" / "admin.key").read_text().strip()
                answer = httpx.post(
                    f"{url}/v1/chat/completions",
                    json={"model": "helpdesk", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 2},
                    headers={"authorization": f"Bearer {key}"},
                    timeout=5,
                )
            except (OSError, ValueError, httpx.HTTPError):
                continue
            if answer.status_code == 200 and answer.json()["choices"]:
                self.answered.append(answer.headers["x-noria-interaction"])


@dataclass
class Tree:
    """The processes of `noria up` and `noria run`, started again when killed; everything they ever started."""

    folder: Path
    seen: dict[int, psutil.Process] = field(default_factory=dict)
    up: subprocess.Popen[bytes] | None = None
    cycle: subprocess.Popen[bytes] | None = None
    ended: bool = False

    def keep(self) -> None:
        if self.up is None or self.up.poll() is not None:
            self.up = self._start("up")
        if self.cycle is not None and self.cycle.poll() == 0:
            self.ended = True
        elif self.cycle is None or self.cycle.poll() is not None:
            self.cycle = self._start("run", "--json")
        for process in self.alive():
            self.seen[process.pid] = process

    def alive(self) -> list[psutil.Process]:
        roots = [each for each in (self.up, self.cycle) if each is not None and each.poll() is None]
        found = []
        for root in roots:
            try:
                process = psutil.Process(root.pid)
                found += [process, *process.children(recursive=True)]
            except psutil.Error:
                continue
        return found

    def orphans(self) -> list[psutil.Process]:
        return [
            process
            for process in self.seen.values()
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{words[0]}.log").open("ab") as log:
            command = [*turning.NORIA, *words, "--project", str(self.folder)]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@pytest.mark.slow
def test_kills_lose_nothing(tmp_path: Path, kills: int) -> None:
    calm = turning.run(turning.make(tmp_path / "calm", tiny=True))
    folder = turning.make(tmp_path / "killed", tiny=True)
    tree, customer, choose = Tree(folder), Customer(folder), random.Random(20)
    asking = threading.Thread(target=customer.ask)
    tree.keep()
    asking.start()
    killed = 0
    deadline = time.monotonic() + 900
    try:
        while (killed < kills or not tree.ended) and time.monotonic() < deadline:
            until = time.monotonic() + choose.uniform(0.2, 5.0)
            while time.monotonic() < until:
                tree.keep()
                time.sleep(0.1)
            if killed < kills and (victims := tree.alive()):
                victim = choose.choice(victims)
                if victim.is_running():
                    victim.kill()
                    killed += 1
            if tree.ended and killed < kills:
                tree.ended, tree.cycle = False, None
    finally:
        customer.stop.set()
        asking.join()
        if tree.up is not None:
            tree.up.terminate()
            tree.up.wait(60)
    assert killed == kills
    assert tree.ended
    _nothing_is_left(tree)
    _everything_answered_is_known(folder, customer)
    _the_ledger_is_whole(folder)
    status = json.loads(turning.noria("status", "--json", "--project", str(folder)).stdout)
    assert status["cycles"][-1]["ended"]
    _the_same_refs(folder, calm)


def _nothing_is_left(tree: Tree) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while tree.orphans() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert tree.orphans() == []


def _everything_answered_is_known(folder: Path, customer: Customer) -> None:
    from noria.traffic.log import TrafficLog

    log = TrafficLog(folder / ".noria" / "segments", folder / "lake")
    interactions, _ = log.read(log.mark())
    known = [each.id for each in interactions]
    assert customer.answered
    assert set(customer.answered) <= set(known)
    assert len(known) == len(set(known))


def _the_ledger_is_whole(folder: Path) -> None:
    engine = ledger.open_engine("sqlite:///noria.db", folder)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("PRAGMA integrity_check")) == "ok"
    versions = [each.version for each in ledger.SqlDeployments(engine).history("helpdesk", 100)]
    assert versions == list(range(len(versions), 0, -1))
    engine.dispose()


def _the_same_refs(folder: Path, calm: dict[str, object]) -> None:
    """Traffic without feedback teaches nothing: what is made of the sources is what the calm run made."""
    found, wanted = turning.outputs(turning.run(folder)), turning.outputs(calm)
    assert found.pop("sources") != wanted.pop("sources")
    assert found == wanted
