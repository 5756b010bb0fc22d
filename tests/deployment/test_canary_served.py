"""A canary under `noria up`: real processes and a real gateway, engines that answer from tables, feedback over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from trial_fakes import NEW, OLD, QUESTION, decision, learned, make, serving

from noria.deployment import canary
from noria.deployment.evidence import SETTLE
from noria.ports import Platform
from noria.types import Candidate, Deployment
from noria.wiring import open_project

pytestmark = pytest.mark.slow

RELEASE = "canary = 0.4\ncontrol = 0.2\nmax_p95_ms = 20000"
MOST = 4000
"""Answers within which a verdict must come."""


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of an installed package whose entry point opens engines of kind `fake`, for us and our children."""
    made = tmp_path / "plugin" / "noria_fake-1.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: noria-fake\nVersion: 1\n")
    (made / "entry_points.txt").write_text("[noria.engines]\nfake = noria.backends.fake:open\n")
    monkeypatch.syspath_prepend(made.parent)
    paths = [str(made.parent), *filter(None, [os.environ.get("PYTHONPATH")])]  # noqa: TID251
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return made.parent


@dataclass
class Shop:
    """A project whose champion gives the old answer and whose challenger gives the new one."""

    folder: Path
    platform: Platform
    champion: Candidate
    challenger: Candidate
    users: Iterator[int] = field(default_factory=count)
    answered: list[str] = field(default_factory=list)

    def begin(self) -> None:
        new = canary.begin(
            self.live(), "helpdesk", self.challenger, decision("better offline"), "two", "cycle",
            self.platform.clock.now(),
        )  # fmt: skip
        self.platform.deployments.swap(new)

    def live(self) -> Deployment:
        found = self.platform.deployments.current("helpdesk")
        assert found is not None
        return found

    def talk(self, client: httpx.Client, liked: str, until: Callable[[], bool]) -> None:
        """Customers who like one of the two answers, until something is true."""
        asked = 0
        with ThreadPoolExecutor(4) as pool:
            while not until():
                assert asked < MOST, self.live()
                asked += sum(
                    pool.map(lambda user: self.ask(client, user, liked), [next(self.users) for _ in range(40)])
                )

    def ask(self, client: httpx.Client, user: int, liked: str) -> int:
        body = {"model": "helpdesk", "messages": [{"role": "user", "content": QUESTION}], "user": f"customer-{user}"}
        try:
            got = client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError:
            return 1
        if got.status_code == 200:
            identity = got.headers["x-noria-interaction"]
            thumbs = float(got.json()["choices"][0]["message"]["content"] == liked)
            said = client.post("/v1/feedback", json={"interaction": identity, "metric": "thumbs", "value": thumbs})
            assert said.status_code == 200
            self.answered.append(identity)
        return 1

    def noria(self, *words: str) -> Any:
        command = [sys.executable, "-m", "noria", *words, "--json", "--project", str(self.folder)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.fixture
def shop(tmp_path: Path, doors: Path) -> Shop:
    folder = make(tmp_path / "shop", RELEASE)
    platform = open_project(folder)
    champion = learned(platform, OLD)
    serving(platform, champion)
    return Shop(folder, platform, champion, learned(platform, NEW))


@contextmanager
def up(shop: Shop, end: int = signal.SIGTERM) -> Iterator[httpx.Client]:
    """`noria up` until it answers; ended by this signal."""
    ready = shop.folder / "ready.json"
    ready.unlink(missing_ok=True)
    with (shop.folder / "up.log").open("ab") as log:
        command = [sys.executable, "-m", "noria", "up", "--project", str(shop.folder), "--ready-file", str(ready)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not ready.is_file():
            lives = time.monotonic() < deadline and process.poll() is None
            assert lives, (shop.folder / "up.log").read_text()
            time.sleep(0.05)
        key = (shop.folder / ".noria" / "admin.key").read_text().strip()
        url = json.loads(ready.read_text())["data"]
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=30) as client:
            yield client
    finally:
        process.send_signal(end)
        process.wait(60)


def test_a_good_challenger_is_promoted_and_when_it_declines_rolled_back(shop: Shop) -> None:
    shop.begin()
    with up(shop) as client:
        shop.talk(client, NEW, lambda: shop.live().champion == shop.challenger)
        now = shop.live()
        assert (now.control, now.actor, now.decision.verdict) == (shop.champion, "canary", "promote")
        assert shop.noria("status")["tasks"]["helpdesk"]["trial"]["phase"] == "watch"
        shop.talk(client, OLD, lambda: shop.live().champion == shop.champion)
        now = shop.live()
        assert now.decision.verdict == "refuse"
        assert now.held == (str(shop.challenger.ref),)
        shop.talk(client, OLD, lambda: _served(client) == {str(shop.champion.ref)})


def _served(client: httpx.Client) -> set[str]:
    body = {"model": "helpdesk", "messages": [{"role": "user", "content": QUESTION}]}
    return {
        client.post("/v1/chat/completions", json={**body, "user": f"again-{user}"}).headers["x-noria-served-by"]
        for user in range(40)
    }


def test_a_kill_in_the_middle_of_a_canary_loses_nothing_and_a_bad_challenger_is_taken_back(shop: Shop) -> None:
    shop.begin()
    with up(shop, signal.SIGKILL) as client:
        shop.talk(client, OLD, lambda: len(shop.answered) >= 40)
    assert shop.live().challenger == shop.challenger
    interactions, _ = shop.platform.traffic.read(shop.platform.traffic.mark())
    assert {each.id for each in interactions} >= set(shop.answered)
    requests = sum(each.arm in ("challenger", "control") for each in interactions)
    # Records count once they are old enough to have their place among those of other workers.
    time.sleep(SETTLE.total_seconds())
    told = shop.noria("canary", "status")
    assert sum(each["requests"] for each in told["slices"].values()) == requests > 0
    with up(shop) as client:
        shop.talk(client, OLD, lambda: shop.live().challenger is None)
    now = shop.live()
    assert (now.champion, now.held) == (shop.champion, (str(shop.challenger.ref),))
    assert now.decision.verdict == "refuse"
    slices: Any = now.decision.evidence["slices"]
    assert sum(each["requests"] for each in slices.values()) >= requests
    tried = next(each for each in interactions if each.arm == "challenger")
    why = shop.noria("why", tried.id)
    assert (why["decision"]["because"], why["adapter"]) == ("better offline", str(shop.challenger.adapter))
