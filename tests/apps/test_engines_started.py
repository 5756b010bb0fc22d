"""`noria engines start`: alone in the foreground, and at a running control plane."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from trial_fakes import NEW, QUESTION, learned, make, opened, serving

from noria.apps import engines, up
from noria.apps.screen import Screen
from noria.backends.fake import FakeEngine, FakeEngines
from noria.deployment.around import Around
from noria.deployment.fleet import Fleet
from noria.deployment.submit import in_thread
from noria.errors import NotFound, Unavailable
from noria.ports import Platform
from noria.settings import EngineSettings
from noria.types import Ref

pytestmark = pytest.mark.slow


class Kind(FakeEngines):
    """Starts fakes; fails as it was told, or takes as long as it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Exception] = []
        self.held: threading.Event | None = None

    def start(self, settings: EngineSettings, adapters: Mapping[Ref, Path], log: Path) -> FakeEngine:
        if self.faults:
            raise self.faults.pop(0)
        if self.held is not None:
            self.held.wait(20)
        return super().start(settings, adapters, log)


class Lines(Screen):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        self.notes.append(f"{label}: {note}")


@pytest.fixture
def kind() -> Kind:
    return Kind()


@pytest.fixture
def platform(tmp_path: Path, kind: Kind) -> Platform:
    folder = make(tmp_path / "shop", "canary = 0.1")
    file = folder / "noria.toml"
    file.write_text(file.read_text().replace("[engines.local]", "[engines.local]\nstart_limit = 0.5"))
    return replace(opened(folder)[0], engines={"llamacpp": kind})


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of the test's own process are there again afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_an_engine_alone_answers_with_the_promoted_adapter_as_it_is_told_to_be_asked(platform: Platform) -> None:
    champion = learned(platform, NEW)
    serving(platform, champion)
    seen: list[dict[str, Any]] = []

    def asked(told: dict[str, Any]) -> None:
        (adapter,), (server,) = told["adapters"], told["servers"]
        requests: tuple[dict[str, Any], ...] = ({}, adapter["request"])
        for more in requests:
            body = {"model": server["model"], "messages": [{"role": "user", "content": QUESTION}], **more}
            answer = httpx.post(
                f"{adapter['servers'][0]['url']}/chat/completions", json=body, timeout=10,
                headers={"authorization": f"Bearer {server['key']}"},
            )  # fmt: skip
            seen.append({"adapter": adapter["adapter"], **answer.json()["choices"][0]["message"]})
        signal.raise_signal(signal.SIGTERM)

    engines.Alone(platform, "local", Screen(quiet=True)).run(asked)
    assert [each["content"] for each in seen] == [QUESTION, NEW]
    assert seen[0]["adapter"] == str(champion.adapter)


@pytest.mark.usefixtures("handlers")
def test_an_engine_alone_that_does_not_come_up_is_one_error(platform: Platform, kind: Kind) -> None:
    kind.faults = [Unavailable("no memory")]
    screen = Lines()
    with pytest.raises(Unavailable, match="engine 'local' did not start: no memory") as found:
        engines.Alone(platform, "local", screen).run(lambda told: None)
    assert "engine-local.log" in str(found.value.hint)
    with pytest.raises(NotFound):
        engines.Alone(platform, "nobody", screen)


@contextmanager
def running(platform: Platform, pause: Callable[[], float] = lambda: 0.05) -> Iterator[Fleet]:
    """A fleet with its control plane, looked after every `pause` seconds."""
    fleet = Fleet(
        platform, lambda snapshot: None, lambda version, url: True, lambda line: None, time.monotonic,
        Around(in_thread),
    )  # fmt: skip
    over = threading.Event()

    def look() -> None:
        while not over.wait(pause()):
            fleet.poll()

    thread = threading.Thread(target=look)
    file = platform.settings.state / "up.json"
    try:
        with up._control_plane(platform, fleet) as url:
            thread.start()
            file.write_text(json.dumps({"data": url, "control": url}))
            yield fleet
    finally:
        over.set()
        thread.join()
        fleet.close()
        file.unlink(missing_ok=True)


def until(right: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not right():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_was_before_the_order_is_not_taken_for_its_outcome(platform: Platform, kind: Kind) -> None:
    kind.faults = [Unavailable("no memory")] * 3
    slow: list[float] = []
    with running(platform, lambda: slow[0] if slow else 0.02) as fleet:
        until(lambda: any(each.state == "failed" for each in fleet.engines))
        # The next look comes long after a person might have looked.
        slow.append(1.2)
        time.sleep(0.1)
        told = engines.ordered(platform, "start", "local", Lines())
        slow[0] = 0.02
        assert (told["state"], told["error"]) == ("ready", "")
        assert engines.ordered(platform, "stop", "local", Lines())["state"] == "stopped"


def test_a_start_is_waited_for_as_long_as_its_limit_and_ends_with_one_error(
    platform: Platform, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "MARGIN", 0.0)
    kind.held = threading.Event()
    screen = Lines()
    with running(platform):
        try:
            with pytest.raises(Unavailable, match="engine 'local' is still starting after") as found:
                engines.ordered(platform, "start", "local", screen)
        finally:
            kind.held.set()
        assert "engine-local.log" in str(found.value.hint)
        assert screen.notes[0] == "start local: starting"


@pytest.mark.parametrize(
    ("told", "limit"),
    [
        ({"kind": "llamacpp", "model": "m"}, 60), ({"kind": "llamacpp", "model": "m", "program": "llama-server"}, 600),
        ({"kind": "vllm", "model": "m"}, 600), ({"kind": "vllm", "url": "http://127.0.0.1:8000/v1"}, 60),
        ({"kind": "vllm", "model": "m", "start_limit": 7}, 7),
    ],
)  # fmt: skip
def test_how_long_a_start_may_take(told: dict[str, Any], limit: float) -> None:
    assert engines.starting_limit(EngineSettings.model_validate(told)) == limit
