"""The life of engines: started, watched, put to sleep, woken, stopped and given up; on a clock that the test owns."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trial_fakes import NEW, learned, make, opened, serving

from noria.backends.fake import FakeEngine, FakeEngines
from noria.deployment import engine_logs, sharing, verify
from noria.deployment.around import Around
from noria.deployment.engine_state import EngineStatus
from noria.deployment.fleet import Fleet
from noria.deployment.sharing import Loaded
from noria.errors import Invalid, NoriaError, NotFound, Unavailable
from noria.ports import Platform
from noria.settings import EngineSettings, load
from noria.settings.base import bytes_of
from noria.types import Arm, Caps, Ref, Snapshot


class Kind(FakeEngines):
    """Starts fakes and remembers them; fails, or forgets its adapters, as it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[FakeEngine] = []
        self.faults: list[Exception] = []
        self.wrong: dict[str, NoriaError] = {}
        self.forgets = False

    def base(self, settings: EngineSettings) -> tuple[Ref, str]:
        if settings.model in self.wrong:
            raise self.wrong[settings.model]
        return super().base(settings)

    def start(self, settings: EngineSettings, adapters: Mapping[Ref, Path], log: Path) -> FakeEngine:
        if self.faults:
            raise self.faults.pop(0)
        engine = super().start(settings, {} if self.forgets else adapters, log)
        if self.forgets:
            engine.extra = lambda adapter: {}  # type: ignore[method-assign]
        self.made.append(engine)
        return engine


@dataclass
class World:
    """A fleet with a clock, requests and a memory of its own."""

    platform: Platform
    kind: Kind
    clock: Callable[[float], None]
    snapshots: list[Snapshot] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    asked: dict[str, float] = field(default_factory=dict)
    inflight: dict[str, int] = field(default_factory=dict)
    needs: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    fleet: Fleet = field(init=False)

    def __post_init__(self) -> None:
        around = Around(
            inflight=lambda url: self.inflight.get(url, 0), asked=lambda: self.asked,
            need=lambda settings: self.needs.get(str(settings.model), 0),
        )  # fmt: skip
        self.fleet = Fleet(
            self.platform, self.snapshots.append, lambda version, url: not self.inflight.get(url),
            self.lines.append, lambda: self.seconds, around,
        )  # fmt: skip

    def poll(self, seconds: float = 1.0) -> None:
        self.seconds += seconds
        self.clock(seconds)
        self.fleet.poll()

    def ask(self, engine: str = "local") -> None:
        self.asked[engine] = self.platform.clock.now().timestamp()

    def status(self, engine: str = "local") -> EngineStatus:
        return next(each for each in self.fleet.engines if each.name == engine)

    @property
    def arm(self) -> Arm:
        return self.snapshots[-1].routes["helpdesk"].arms[0]


Build = Callable[..., World]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Build]:
    made: list[World] = []

    def build(lines: str = "", runtime: str = "", more: str = "") -> World:
        folder = make(tmp_path / "shop", "canary = 0.1")
        file = folder / "noria.toml"
        text = file.read_text().replace("[engines.local]", f"[engines.local]\n{lines}")
        file.write_text(text.replace("[runtime]", f"[runtime]\n{runtime}") + more)
        platform, clock = opened(folder)
        kind = Kind()
        made.append(World(replace(platform, engines={"llamacpp": kind}), kind, clock.advance))
        return made[-1]

    yield build
    for each in made:
        each.inflight.clear()
        each.fleet.close()


def test_an_engine_that_dies_is_back_and_counted(world: Build) -> None:
    here = world()
    here.poll()
    assert (here.status().state, here.status().live, here.status().restarts) == ("ready", 1, 0)
    here.kind.made[0].crash()
    here.poll()
    assert here.status().state == "starting"
    here.poll()
    assert (here.status().state, here.status().restarts) == ("ready", 1)
    assert here.status().error == "it died"
    assert here.arm.upstreams[0] == here.kind.made[1].endpoint


def test_three_crashes_in_a_row_open_the_breaker_until_a_person_starts_it(world: Build) -> None:
    here = world()
    here.poll()
    for _ in range(3):
        here.kind.made[-1].crash()
        here.poll()
        here.poll(10)
    assert len(here.kind.made) == 3
    assert here.status().state == "failed"
    assert "crashed too often in a row: it died" in here.arm.refusal
    assert here.arm.upstreams == ()
    (alert,) = here.platform.alerts.open()
    assert alert.subject == "engine:local"
    assert "noria engines start local" in alert.hint
    assert any(line.startswith("ALERT") for line in here.lines)
    here.poll(1000)
    assert len(here.kind.made) == 3
    here.fleet.order("start", "local")
    here.poll()
    here.poll()
    assert here.status().state == "ready"
    assert here.arm.refusal == ""
    assert here.platform.alerts.open() == []


def test_crashes_far_apart_open_nothing(world: Build) -> None:
    here = world()
    here.poll()
    for _ in range(5):
        here.poll(121)
        here.kind.made[-1].crash()
        here.poll()
        here.poll(10)
    assert here.status().state == "ready"
    assert here.platform.alerts.open() == []


def test_an_engine_that_never_starts_is_given_up_and_says_why(world: Build) -> None:
    here = world()
    here.kind.faults = [Unavailable("no memory")] * 5
    for _ in range(6):
        here.poll(10)
    assert len(here.kind.faults) == 2
    assert (here.status().state, here.status().error) == ("failed", "no memory")
    assert "no memory" in here.arm.refusal
    here.kind.faults = []
    here.fleet.order("start", "local")
    here.poll()
    assert here.status().state == "ready"


def test_a_model_that_goes_away_while_it_serves_changes_nothing(world: Build) -> None:
    here = world()
    here.poll()
    here.kind.wrong["smollm2-135m-instruct"] = NotFound("there is no model")
    for _ in range(5):
        here.poll()
    assert here.status().state == "ready"
    assert len(here.arm.upstreams) == 1


def test_a_wrong_model_ends_nothing_but_a_first_start(world: Build) -> None:
    here = world("", "", TWO.replace("idle = 600", ""))
    here.kind.wrong["other"] = NotFound("there is no model 'other'")
    for _ in range(6):
        here.poll(20)
    assert (here.status().state, here.status("second").state) == ("ready", "failed")
    assert "there is no model 'other'" in here.status("second").error
    again = World(here.platform, here.kind, here.clock)
    here.kind.wrong["smollm2-135m-instruct"] = NotFound("there is no model")
    with pytest.raises(NotFound):
        again.poll()


def test_the_alarm_for_a_model_that_is_away_is_given_once(world: Build) -> None:
    here = world("idle = 60", "", TWO)
    here.kind.wrong["other"] = Unavailable("it is not fetched")
    for _ in range(20):
        here.poll(20)
    assert sum(line.startswith("ALERT") for line in here.lines) == 1
    assert sum("next try" in line for line in here.lines) == 2


def test_an_alert_of_a_release_that_failed_ends_with_its_rollback(world: Build) -> None:
    here = world()
    here.poll()
    serving(here.platform, learned(here.platform, NEW))
    here.kind.faults = [Unavailable("no memory")] * 3
    for _ in range(4):
        here.poll(20)
    assert len(here.platform.alerts.open()) == 1
    live = here.platform.deployments.current("helpdesk")
    assert live is not None
    here.platform.deployments.swap(live.model_copy(update={"version": 2, "champion": live.previous}))
    here.poll()
    assert (here.status().state, here.status().error) == ("ready", "")
    assert here.platform.alerts.open() == []


def test_a_fault_of_the_operating_system_keeps_only_that_engine_from_starting(world: Build) -> None:
    here = world()
    here.kind.faults = [OSError("no such program"), ValueError("damaged")]
    here.poll()
    assert here.status().error == "engine 'local' could not be started: no such program"
    here.poll(20)
    here.poll(20)
    assert here.status().state == "ready"


def test_a_stopped_engine_stays_stopped_when_noria_starts_again(world: Build) -> None:
    here = world()
    here.poll()
    here.inflight[here.kind.made[0].endpoint.url] = 1
    here.fleet.order("stop", "local")
    here.poll()
    assert here.status().state == "draining"
    assert here.arm.refusal == "engine 'local' was stopped"
    assert here.kind.made[0].alive()
    here.inflight.clear()
    here.poll()
    here.fleet.close()
    assert not here.kind.made[0].alive()
    again = World(here.platform, here.kind, here.clock)
    again.poll()
    assert again.status().state == "stopped"
    again.fleet.order("start", "local")
    again.poll()
    assert again.status().state == "ready"
    again.fleet.close()


def test_an_idle_engine_sleeps_until_it_is_asked_and_again_when_it_is_not(world: Build) -> None:
    here = world("idle = 60")
    here.poll()
    assert here.status().state == "idle"
    assert (here.arm.asleep, here.arm.upstreams, here.kind.made) == (True, (), [])
    here.ask()
    here.poll()
    assert here.status().state == "ready"
    assert (here.arm.asleep, len(here.arm.upstreams)) == (False, 1)
    url = here.arm.upstreams[0].url
    here.inflight[url] = 1
    here.poll(100)
    assert here.status().state == "ready"
    here.inflight.clear()
    here.poll(50)
    here.ask()
    here.poll(50)
    assert here.status().state == "ready"
    here.poll(61)
    assert here.arm.asleep
    here.poll()
    assert not here.kind.made[0].alive()
    here.ask()
    here.poll()
    assert len(here.kind.made) == 2


TWO = """
[engines.second]
kind = "llamacpp"
model = "other"
idle = 600

[tasks.helpdesk.arms.other]
engine = "second"
share = 0.2
"""


def test_the_least_recently_used_makes_room_and_a_busy_one_does_not(world: Build) -> None:
    here = world("idle = 600", 'memory = "100MiB"', TWO)
    here.needs = {"smollm2-135m-instruct": 70 << 20, "other": 60 << 20}
    here.ask("local")
    here.poll()
    assert here.status("local").state == "ready"
    here.inflight[here.kind.made[0].endpoint.url] = 1
    here.ask("second")
    here.poll()
    arms = {arm.engine: arm for arm in here.snapshots[-1].routes["helpdesk"].arms}
    assert here.status("second").state == "idle"
    assert "it needs 60 MiB, of 100 MiB ([runtime] memory) 70 MiB are in use by local" in here.status("second").error
    assert "second" not in arms
    here.inflight.clear()
    here.poll(3)
    here.ask("second")
    here.poll()
    here.fleet._leaving.close()  # Closing takes a thread.
    here.poll()
    assert (here.status("local").state, here.status("second").state) == ("idle", "ready")
    assert not here.kind.made[0].alive()


def test_an_engine_that_forgets_its_adapters_is_never_served(world: Build) -> None:
    here = world()
    serving(here.platform, learned(here.platform, NEW))
    here.kind.forgets = True
    for _ in range(5):
        here.poll(20)
    assert len(here.kind.made) == 3
    assert here.status().state == "failed"
    assert "answers as without it" in here.status().error
    assert all(not each.alive() for each in here.kind.made)
    here.kind.forgets = False
    here.fleet.order("start", "local")
    here.poll()
    here.kind.made[-1].crash()
    here.poll()
    here.poll()
    assert here.status().adapters == (str(here.platform.deployments.current("helpdesk").champion.adapter),)  # type: ignore[union-attr]


def test_a_change_of_release_without_room_for_two_replaces_in_place(world: Build) -> None:
    here = world("", 'memory = "100MiB"')
    here.needs = {"smollm2-135m-instruct": 70 << 20}
    here.poll()
    serving(here.platform, learned(here.platform, NEW))
    here.poll()
    assert here.arm.asleep
    here.poll()
    here.fleet._leaving.close()
    here.poll()
    assert here.status().state == "ready"
    assert not here.kind.made[0].alive()
    assert len(here.status().adapters) == 1


def test_a_change_of_release_on_a_fixed_port_replaces_in_place(world: Build) -> None:
    here = world("port = 18431")
    here.poll()
    here.inflight[here.kind.made[0].endpoint.url] = 1
    serving(here.platform, learned(here.platform, NEW))
    for _ in range(3):
        here.poll()
    assert (here.arm.asleep, len(here.kind.made)) == (True, 1)
    here.inflight.clear()
    here.poll()
    here.fleet._leaving.close()
    here.poll()
    assert here.status().state == "ready"
    assert len(here.status().adapters) == 1


def test_an_adapter_is_there_when_one_answer_differs(tmp_path: Path) -> None:
    ref = Ref(kind="adapter", name="helpdesk", digest="a" * 16)
    (tmp_path / "answers.json").write_text(json.dumps({verify.PROMPTS[2]: "Nothing like it."}))
    engine = FakeEngines().start(EngineSettings(kind="fake", model="fake"), {ref: tmp_path}, tmp_path / "log")
    try:
        for caps in (Caps(exact_tokens=True), Caps()):
            verify.present(engine, [ref], caps)
        (tmp_path / "answers.json").write_text(json.dumps({"Is it open?": NEW}))
        engine.close()
        engine = FakeEngines().start(EngineSettings(kind="fake", model="fake"), {ref: tmp_path}, tmp_path / "log")
        with pytest.raises(Unavailable, match=f"with adapter '{ref}'"):
            verify.present(engine, [ref], Caps())
    finally:
        engine.close()


@given(
    st.integers(1, 100), st.integers(1, 300),
    st.dictionaries(
        st.sampled_from("abcdef"), st.builds(Loaded, st.integers(0, 100), st.floats(0, 10), st.booleans())
    ),
)  # fmt: skip
def test_room_is_made_by_the_oldest_only_and_no_more_than_needed(
    wanted: int, budget: int, loaded: dict[str, Loaded]
) -> None:
    going = sharing.room(wanted, budget, loaded)
    kept = sum(each.bytes for name, each in loaded.items() if going is None or name not in going)
    if going is None:
        pinned = sum(each.bytes for each in loaded.values() if not each.free)
        assert pinned + wanted > budget
        return
    assert kept + wanted <= budget
    assert all(loaded[name].free for name in going)
    left = [each.asked for name, each in loaded.items() if each.free and name not in going]
    assert not going or not left or max(loaded[name].asked for name in going) <= min(left)
    if going:
        assert kept + loaded[going[-1]].bytes + wanted > budget


def test_what_a_model_needs_grows_with_files_slots_and_replicas(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(bytes(1 << 20))
    one = EngineSettings(kind="llamacpp", model="m", slots=1)
    assert sharing.need(one, file) < sharing.need(one.model_copy(update={"slots": 8}), file)
    assert sharing.need(one.model_copy(update={"replicas": 3}), tmp_path) == 3 * sharing.need(one, file)
    assert sharing.need(one.model_copy(update={"replicas": 2}), file, planned=5 << 20) == 2 * (5 << 20)
    assert sharing.need(one.model_copy(update={"memory": "1GiB"}), file, planned=5 << 20) == 1 << 30


def test_logs_are_put_aside_by_size_and_read_from_their_end(tmp_path: Path) -> None:
    file = tmp_path / "engine-local.log"
    with file.open("ab") as log:
        for turn in range(5):
            log.write(b"".join(b"turn %d line %d\n" % (turn, line) for line in range(100)))
            log.flush()
            engine_logs.rotate(file, 1000)
        log.write(b"the last\n")
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "engine-local.log",
        *(f"engine-local.log.{n}" for n in (1, 2, 3)),
    ]
    assert engine_logs.tail(file, 5) == ["the last"]
    assert engine_logs.tail(file.with_name("engine-local.log.1"), 1) == ["turn 4 line 99"]
    assert engine_logs.files_of(tmp_path, "local") == [file]


def test_a_log_is_emptied_where_the_disk_has_no_room_for_the_copy(tmp_path: Path) -> None:
    file = tmp_path / "engine-local.log"
    file.write_bytes(b"x" * 4096)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        engine_logs.rotate(file, 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [each.name for each in tmp_path.iterdir()] == ["engine-local.log"]
    assert file.stat().st_size == 0


@pytest.mark.parametrize(
    ("size", "found"), [("2GiB", 2 << 30), ("500MB", 500_000_000), ("1.5kB", 1500), ("1TiB", 1 << 40)]
)
def test_sizes(size: str, found: int) -> None:
    assert bytes_of(size) == found


@pytest.mark.parametrize(
    ("lines", "fact"),
    [
        ('memory = "2 gigs"', 'such as "2GiB"'),
        ("idle = 0", "greater than 0"),
        ("idel = 5", "did you mean 'idle'"),
        ("health = { evry = 5 }", "did you mean 'every'"),
    ],
)
def test_wrong_limits_are_told(tmp_path: Path, lines: str, fact: str) -> None:
    folder = make(tmp_path / "shop", "canary = 0.1")
    file = folder / "noria.toml"
    file.write_text(file.read_text().replace("[engines.local]", f"[engines.local]\n{lines}"))
    with pytest.raises(Invalid) as caught:
        load(file)
    assert fact in f"{caught.value.fact} {caught.value.hint}"


def test_what_belongs_to_launched_engines_is_refused_of_attached_ones() -> None:
    with pytest.raises(ValueError, match="idle is for engines that noria launches"):
        EngineSettings(kind="openai", url="http://127.0.0.1:1/v1", idle=5)
