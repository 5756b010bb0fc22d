"""Real engines of a running `noria up` that are killed, hung, stopped and unloaded while clients ask."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from trial_fakes import make, serving
from typer.testing import CliRunner

from noria import prompts
from noria.apps import access
from noria.apps.cli import app
from noria.backends import llamacpp
from noria.ports import Platform
from noria.types import Candidate
from noria.wiring import open_project

pytestmark = pytest.mark.slow

STREAMS, SLOTS, TOKENS = 16, 4, 48
PATIENCE = 90.0


@dataclass
class Up:
    """A running project."""

    folder: Path
    platform: Platform
    candidate: str
    process: subprocess.Popen[bytes]
    data: str
    control: str
    headers: dict[str, str]

    def engine(self) -> dict[str, Any]:
        found = httpx.get(f"{self.control}/api/engines", headers=self.headers, timeout=30).json()["data"]
        one: dict[str, Any] = found[0]
        return one

    def until(self, right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while not right(found := self.engine()):
            assert time.monotonic() < end, found
            time.sleep(0.1)
        return found

    def noria(self, *words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--project", str(self.folder)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    def ask(self, text: str = "Hello", **more: Any) -> httpx.Response:
        body = {"model": "helpdesk", "messages": [{"role": "user", "content": text}], "max_tokens": 4, **more}
        return httpx.post(f"{self.data}/v1/chat/completions", json=body, headers=self.headers, timeout=PATIENCE)


@dataclass
class Stream:
    """One client: how many pieces it got, and how it ended."""

    up: Up
    number: int
    pieces: int = 0
    at_kill: int = -1
    """Pieces it had when an engine was killed."""
    error: str = ""
    whole: bool = False
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        body = {
            "model": "helpdesk", "messages": [{"role": "user", "content": f"Count to {self.number} and on."}],
            "max_tokens": TOKENS, "ignore_eos": True, "stream": True,
        }  # fmt: skip
        url = f"{self.up.data}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=self.up.headers, timeout=PATIENCE) as answer:
            if answer.status_code != 200:
                self.error = f"{answer.status_code} {answer.read().decode()}"
                return
            for line in answer.iter_lines():
                self._take(line.removeprefix("data: "))

    def _take(self, event: str) -> None:
        if event == "[DONE]":
            self.whole = True
        elif event:
            told = json.loads(event)
            self.error = told["error"]["message"] if "error" in told else self.error
            self.pieces += any(each["delta"].get("content") for each in told.get("choices", ()))


def adapted(platform: Platform) -> Candidate:
    """A candidate whose adapter is a LoRA by lot, large enough not to go unnoticed."""
    import gguf
    import numpy as np

    folder = platform.lake.scratch("adapted")
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(folder / llamacpp.ADAPTER_FILE, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 8.0)
    for name, shape in (("lora_a", (4, 576)), ("lora_b", (576, 4))):
        writer.add_tensor(f"blk.7.attn_q.weight.{name}", random.normal(0, 0.05, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    task = platform.settings.tasks["helpdesk"]
    settings = platform.settings.engines["local"]
    base, quantization = platform.engines[settings.kind].base(settings)
    return Candidate(
        task="helpdesk", base=base, adapter=platform.lake.commit(folder, "adapter", "helpdesk"), engine="local",
        quantization=quantization, prompt=prompts.definition(task.system),
    )  # fmt: skip


def changed(folder: Path, lines: str) -> None:
    """Make the engine's table one of these lines."""
    file = folder / "noria.toml"
    head, _, rest = file.read_text().partition("[engines.local]")
    table = f'[engines.local]\nkind = "llamacpp"\nmodel = "smollm2-135m-instruct"\n{lines}\n\n'
    file.write_text(f"{head}{table}[[sources]]{rest.partition('[[sources]]')[2]}")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = make(tmp_path_factory.mktemp("killed") / "shop", "canary = 0")
    changed(folder, f"replicas = 2\nslots = {SLOTS}\ncontext = 256\nthreads = 1\ncpus = 1\nhealth = {{ limit = 120 }}")
    platform = open_project(folder)
    candidate = adapted(platform)
    serving(platform, candidate)
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "noria", "up", "--ready-file", str(ready), "--project", str(folder)]
    with (folder / "up.log").open("wb") as out:
        process = subprocess.Popen([*command, "--parent", str(os.getpid())], stdout=out, stderr=out)
    try:
        end = time.monotonic() + PATIENCE
        while not ready.is_file():
            assert process.poll() is None, (folder / "up.log").read_text()
            assert time.monotonic() < end, (folder / "up.log").read_text()
            time.sleep(0.1)
        urls = json.loads(ready.read_text())
        headers = {"authorization": f"Bearer {(folder / '.noria' / 'admin.key').read_text().strip()}"}
        yield Up(folder, platform, str(candidate.ref), process, urls["data"], urls["control"], headers)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_after_the_start_plan_and_reality_are_compared(up: Up) -> None:
    plan = up.until(lambda told: told["plan"] is not None)["plan"]
    assert abs(plan["off"]) < 0.15, plan
    assert plan["off"] == pytest.approx(plan["planned"] / plan["measured"] - 1, abs=1e-3)
    assert "planned (noria fit) were" in (up.folder / "up.log").read_text()
    assert f"{plan['planned'] / 2**20:.0f} MiB (" in up.noria("engines", "list")


def test_a_kill_under_streams_breaks_only_what_that_replica_had_begun(up: Up) -> None:
    """With -rP it says how long the replica was away."""
    first = up.until(lambda told: told["live"] == 2)
    assert len(first["adapters"]) == 1
    streams = [Stream(up, number) for number in range(STREAMS)]
    end = time.monotonic() + PATIENCE
    while sum(each.pieces > 0 for each in streams) < 2 * SLOTS:
        assert time.monotonic() < end, [each.error for each in streams]
        time.sleep(0.02)
    for each in streams:
        each.at_kill = each.pieces
    os.kill(first["pids"][0], signal.SIGKILL)
    killed = time.monotonic()
    told = up.until(lambda told: told["live"] == 2 and first["pids"][0] not in told["pids"])
    sys.stdout.write(f"back and verified after {time.monotonic() - killed:.1f} s\n")
    for each in streams:
        each.thread.join(PATIENCE)
    broken = [each for each in streams if not each.whole]
    assert 1 <= len(broken) <= 2 * SLOTS
    assert all("the engine's answer broke off" in each.error for each in broken)
    # What had begun at the other replica went on, and what had not begun was asked there.
    assert sum(each.whole and each.at_kill > 0 for each in streams) >= 1
    assert all(each.whole for each in streams if each.at_kill == 0 and each not in broken)
    assert sum(each.whole for each in streams if each.at_kill == 0) >= STREAMS - 3 * SLOTS
    told = up.until(lambda told: told["live"] == 2)
    assert (told["state"], told["restarts"], told["alert"]) == ("ready", 1, None)
    assert told["adapters"] == first["adapters"]
    assert first["pids"][0] not in told["pids"]
    assert up.ask().headers["x-noria-served-by"] == up.candidate


def test_three_crashes_in_a_row_open_the_breaker_raise_an_alert_and_leave_the_other_one_serving(up: Up) -> None:
    # The kill before this one counts: it was a crash of the same row.
    for crashes in range(up.engine()["restarts"] + 1, 4):
        told = up.engine()
        os.kill(told["pids"][0], signal.SIGKILL)
        up.until(lambda told, crashes=crashes: told["live"] == (2 if crashes < 3 else 1) and _new(told, crashes))  # type: ignore[misc]
    told = up.until(lambda told: told["alert"] is not None)
    assert (told["state"], told["live"], told["restarts"]) == ("ready", 1, 2)
    assert "crashed too often in a row" in told["alert"]["fact"]
    assert "ALERT engine 'local' (1 of 2 replicas)" in up.noria("status")
    assert up.ask().status_code == 200
    assert 'noria_alert{subject="engine:local"} 1.0' in httpx.get(f"{up.control}/metrics").text
    started = json.loads(up.noria("engines", "start", "local", "--json"))
    assert started["state"] == "ready"
    assert up.until(lambda told: told["live"] == 2 and told["alert"] is None)["restarts"] == 3


def _new(told: dict[str, Any], crashes: int) -> bool:
    return bool(told["restarts"] == crashes) if crashes < 3 else told["alert"] is not None


def test_one_that_hangs_is_noticed_and_replaced(up: Up) -> None:
    before = up.engine()
    pid = before["pids"][1]
    os.kill(pid, signal.SIGSTOP)
    told = up.until(lambda told: pid not in told["pids"] and told["live"] == 2)
    assert (told["state"], told["restarts"]) == ("ready", before["restarts"] + 1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_stopped_engine_says_so_to_clients_until_it_is_started(up: Up) -> None:
    assert os.sched_getaffinity(up.engine()["pids"][0]) == {min(os.sched_getaffinity(0))}
    assert json.loads(up.noria("engines", "stop", "local", "--json"))["state"] == "stopped"
    refused = up.ask()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert "engine 'local' was stopped" in refused.json()["error"]["message"]
    assert "stopped" in up.noria("engines", "list")
    up.noria("engines", "start", "local")
    assert up.ask().status_code == 200
    assert json.loads(up.noria("engines", "logs", "local", "--json"))["engine"] == "local"


def test_roles(up: Up) -> None:
    developer = {"authorization": f"Bearer {access.make(up.platform, 'dev', 'developer')[1]}"}
    for method, path, statuses in (
        ("GET", "", (401, 200, 200)), ("GET", "/local/logs", (401, 200, 200)), ("GET", "/nobody/logs", (401, 404, 404)),
        ("POST", "/local/start", (401, 401, 200)), ("POST", "/local/stop", (401, 401, None)),
    ):  # fmt: skip
        for headers, status in zip(({}, developer, up.headers), statuses, strict=True):
            if status is not None:
                got = httpx.request(method, f"{up.control}/api/engines{path}", headers=headers)
                assert (path, got.status_code) == (path, status)


def test_an_idle_engine_is_unloaded_and_the_next_request_waits_for_it(up: Up) -> None:
    changed(up.folder, "idle = 1\ncontext = 256\nthreads = 1")
    up.process.send_signal(signal.SIGHUP)
    up.until(lambda told: told["state"] == "idle" and told["replicas"] == 1)
    answer = up.ask()
    assert (answer.status_code, answer.headers["x-noria-served-by"]) == (200, up.candidate)
    told = up.until(lambda told: told["state"] == "idle")
    assert told["pids"] == []
