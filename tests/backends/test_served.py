"""Engines that are a server of their own: how they start, fail, take adapters and end. The server is a stand-in."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import outside_server
import psutil
import pytest

from noria.backends import served, served_process
from noria.backends.served import Served, ServedEngine
from noria.backends.served_kinds import MAKES
from noria.errors import Invalid, NotFound, Unavailable
from noria.ports import Measured, Swaps
from noria.settings import EngineSettings, child_environment
from noria.types import Load, Message, Ref

pytestmark = pytest.mark.slow

ASKED = [Message(role="user", content="Which river flows through Vienna?")]


def a_ref(name: str) -> Ref:
    return Ref(kind="adapter", name=name, digest=name.encode().hex().ljust(16, "0")[:16])


def a_lora(folder: Path, weights: str, rank: int = 8) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank}))
    (folder / "adapter_model.safetensors").write_text(weights)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    (folder / "model.safetensors").write_text("weights")
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "vllm"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} {outside_server.__file__} "$@"\n')
    file.chmod(0o755)
    return file


def settings(model: Path, program: Path, *flags: str, start_limit: float = 60.0) -> EngineSettings:
    return EngineSettings(
        kind="vllm", model=str(model), program=str(program), flags=flags, start_limit=start_limit, loras=2
    )


def started(told: EngineSettings, log: Path, adapters: dict[Ref, Path] | None = None) -> ServedEngine:
    return Served(MAKES["vllm"]).start(told, adapters or {}, log)


def said(engine: ServedEngine, adapter: Ref | None = None) -> str:
    return engine.answer(ASKED, adapter, 8, ()).text


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_it_answers_with_its_adapters_and_takes_more_while_it_runs(tmp_path: Path, model: Path, program: Path) -> None:
    first, second = a_ref("first"), a_ref("second")
    engine = started(settings(model, program), tmp_path / "log", {first: a_lora(tmp_path / "1", "one")})
    try:
        assert isinstance(engine, Swaps)
        assert isinstance(engine, Measured)
        assert engine.alive()
        assert engine.measure() == Load(waiting=0.0, running=0.0)
        assert engine.endpoint.model == "tiny"
        base, tuned = said(engine), said(engine, first)
        assert base != tuned
        with pytest.raises(NotFound, match="second"):
            said(engine, second)
        engine.load(second, a_lora(tmp_path / "2", "two"))
        engine.load(second, tmp_path / "2")
        assert said(engine, second) not in (base, tuned)
        assert (said(engine), said(engine, first)) == (base, tuned)
        engine.unload(second)
        with pytest.raises(NotFound, match="second"):
            engine.extra(second)
        with pytest.raises(Invalid, match="greater than max_lora_rank"):
            engine.load(second, a_lora(tmp_path / "3", "bad"))
        with pytest.raises(NotFound, match="second"):
            engine.extra(second)
    finally:
        engine.close()
    assert not engine.alive()
    with pytest.raises(Unavailable):
        said(engine)


@pytest.mark.parametrize("when", ["start", "later"])
def test_an_adapter_that_changes_nothing_is_refused(tmp_path: Path, model: Path, program: Path, when: str) -> None:
    """The server knows its name and answers with status 200, as the base does."""
    told, lora = settings(model, program, "--forgetful"), a_lora(tmp_path / "lora", "one")
    if when == "start":
        with pytest.raises(Unavailable, match="changes nothing"):
            started(told, tmp_path / "log", {a_ref("silent"): lora})
        return
    engine = started(told, tmp_path / "log")
    try:
        with pytest.raises(Unavailable, match="changes nothing"):
            engine.load(a_ref("silent"), lora)
        with pytest.raises(NotFound):
            engine.extra(a_ref("silent"))
    finally:
        engine.close()


def test_damaged_probes_of_an_adapter_are_told(tmp_path: Path, model: Path, program: Path) -> None:
    lora = a_lora(tmp_path / "lora", "one")
    (lora / "probes.json").write_text('[{"prefix": 1}]')
    with pytest.raises(Invalid, match=r"no readable 'probes\.json'"):
        started(settings(model, program), tmp_path / "log", {a_ref("first"): lora})


def test_an_end_before_the_first_sign_of_health_shows_the_log(tmp_path: Path, model: Path, program: Path) -> None:
    with pytest.raises(Unavailable, match=r"status 1(.|\n)*No available memory") as caught:
        started(settings(model, program, "--crash"), tmp_path / "log")
    assert str(tmp_path / "log") in str(caught.value.hint)


def test_one_that_never_gets_ready_is_ended_with_all_that_it_has_started(
    tmp_path: Path, model: Path, program: Path
) -> None:
    worker = tmp_path / "worker"
    told = settings(model, program, "--deaf", "--worker", str(worker), start_limit=1.5)
    with pytest.raises(Unavailable, match="no sign of health in 2 s") as caught:
        started(told, tmp_path / "log")
    assert "start_limit" in str(caught.value.hint)
    # On a busy machine it may have come to its end before it could start anything.
    assert until(lambda: not worker.is_file() or gone(int(worker.read_text())))


@pytest.mark.parametrize("who", ["launcher", "server"])
def test_after_kill_9_nothing_of_it_is_left(tmp_path: Path, model: Path, program: Path, who: str) -> None:
    worker = tmp_path / "worker"
    engine = started(settings(model, program, "--worker", str(worker)), tmp_path / "log")
    assert engine.process is not None
    launcher = psutil.Process(engine.process.pid)
    (server,) = launcher.children()
    os.kill(engine.process.pid if who == "launcher" else server.pid, signal.SIGKILL)
    assert until(lambda: not engine.alive())
    engine.close()
    assert until(lambda: gone(server.pid))
    assert until(lambda: gone(int(worker.read_text())))


def test_one_that_ignores_sigterm_is_killed(
    tmp_path: Path, model: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "GRACE", 0.3)
    engine = started(settings(model, program, "--stubborn"), tmp_path / "log")
    assert engine.process is not None
    (server,) = psutil.Process(engine.process.pid).children()
    engine.close()
    assert until(lambda: gone(server.pid))


def test_it_ends_with_the_process_that_launched_it(tmp_path: Path, model: Path, program: Path) -> None:
    worker, port = tmp_path / "worker", served_process.free_port()
    line = [str(program), "serve", str(model), "--port", str(port), "--host", "127.0.0.1", "--worker", str(worker)]
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom noria.backends.served_process import launch\n"
        f"launch({line!r}, dict(os.environ), Path({str(tmp_path / 'log')!r}))\nsys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, env=child_environment()) as parent:
        assert until(worker.is_file)
        assert until(lambda: bool(worker.read_text()))
        parent.kill()
    assert until(lambda: gone(int(worker.read_text())))


@pytest.mark.parametrize("who", ["end", "parent"])
def test_a_container_is_taken_away_with_what_ran_it(tmp_path: Path, who: str) -> None:
    """`docker run` is a client: its SIGKILL leaves the container, which has to be removed by its name."""
    up, removed = tmp_path / "up", tmp_path / "removed it"
    line, remove = ["sh", "-c", f"touch {up}; exec sleep 60"], ["touch", str(removed)]
    if who == "end":
        process = served_process.launch(line, child_environment(), tmp_path / "log", remove)
        assert until(up.is_file)
        served_process.end(process, 0.0, remove)
        assert removed.is_file()
        return
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom noria.backends.served_process import launch\n"
        f"launch({line!r}, dict(os.environ), Path({str(tmp_path / 'log')!r}), {remove!r})\nsys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, env=child_environment()) as parent:
        assert until(up.is_file)
        parent.kill()
    assert until(removed.is_file)


def test_a_program_that_is_not_there_is_named(tmp_path: Path, model: Path) -> None:
    with pytest.raises(Unavailable, match="/no/such/vllm") as caught:
        started(settings(model, Path("/no/such/vllm")), tmp_path / "log")
    assert "container" in str(caught.value.hint)


def test_a_port_that_somebody_has_is_not_waited_for(tmp_path: Path, model: Path, program: Path) -> None:
    with socket.socket() as other:
        other.bind((served_process.LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port '{port}' cannot be had"):
            started(settings(model, program).model_copy(update={"port": port}), tmp_path / "log")
    assert served_process.port_of(port) == port


def test_adapters_that_cannot_be_served_are_refused_before_anything_starts(tmp_path: Path, model: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "adapter.json").write_text('{"kind": "model"}')
    told = EngineSettings(kind="vllm", model=str(model))
    with pytest.raises(Invalid, match="is a model"):
        started(told, tmp_path / "log", {a_ref("whole"): whole})
    with pytest.raises(Invalid, match=r"adapter_config\.json"):
        started(told, tmp_path / "log", {a_ref("empty"): tmp_path})
    with pytest.raises(Invalid, match="cannot load adapters"):
        Served(MAKES["infinity"]).start(told, {a_ref("any"): a_lora(tmp_path / "any", "x")}, tmp_path / "log")
    for kind in ("ollama", "nim"):
        with pytest.raises(Invalid, match="attached"):
            Served(MAKES[kind]).base(EngineSettings(kind=kind, model="llama3"))


def test_the_base_is_named_by_content_and_precision(model: Path) -> None:
    kind = Served(MAKES["vllm"])
    base, precision = kind.base(EngineSettings(kind="vllm", model=str(model)))
    assert (base.name, precision) == ("tiny", "bfloat16")
    assert kind.base(EngineSettings(kind="vllm", model=str(model), dtype="float32")) == (base, "float32")
    assert kind.base(EngineSettings(kind="vllm", model=str(model), quantization="awq_marlin"))[1] == "awq_marlin"
    (model / "model.safetensors").write_text("other weights")
    assert Served(MAKES["vllm"]).base(EngineSettings(kind="vllm", model=str(model)))[0] != base


def test_an_attached_server_takes_adapters_and_gives_them_back(
    tmp_path: Path, model: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = started(settings(model, program), tmp_path / "log")
    ref, lora = a_ref("lent"), a_lora(tmp_path / "lora", "one")
    monkeypatch.setenv("THE_KEY", launched.endpoint.key)
    try:
        engine = started(
            EngineSettings(kind="vllm", url=launched.endpoint.url, key="THE_KEY"), tmp_path / "log", {ref: lora}
        )
        assert engine.measure().waiting == 0.0
        assert said(engine, ref) != said(engine)
        launched.load(ref, lora)
        assert said(launched, ref) == said(engine, ref)
        engine.close()
        with pytest.raises(Invalid, match="does not exist"):
            said(launched, ref)
        assert launched.alive()
    finally:
        launched.close()
