"""A small project on real components, and how its processes are found and ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from tiny_llama import tiny_model

NORIA = [sys.executable, "-m", "noria"]
ROWS = 30
RECIPE = 'recipe = { kind = "lora", rank = 4, layers = 2, epochs = 1, batch = 8, learning_rate = 2e-3 }'


def make(folder: Path, *, tiny: bool = False) -> Path:
    """The project of `noria init` with a recipe of seconds, on free ports; `tiny`: on a random model of two layers."""
    noria("init", str(folder))
    faq = folder / "data" / "faq.csv"
    faq.write_text("".join(faq.read_text().splitlines(keepends=True)[: 1 + ROWS]))
    file = folder / "noria.toml"
    lines = [RECIPE if line.startswith("recipe") else line for line in file.read_text().splitlines()]
    text = "\n".join(lines) + "\nmax_tokens = 16\n"
    if tiny:
        tiny_model(folder / "tiny.gguf", context=2048)
        text = text.replace('"smollm2-135m-instruct"', '"tiny.gguf"')
    file.write_text(
        text.replace('spark = "embedded"', 'spark = "embedded"\nlisten = "127.0.0.1:0"\ncontrol = "127.0.0.1:0"')
    )
    return folder


def noria(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*NORIA, *arguments], capture_output=True, text=True, check=check, timeout=600)


def run(folder: Path, *more: str) -> dict[str, Any]:
    done = noria("run", "--json", "--project", str(folder), *more)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def outputs(told: dict[str, Any]) -> dict[str, str]:
    return {stage["stage"]: stage["output"] for stage in told["stages"]}


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, Any]]:
    """`noria up`, until both doors answer; ended as a person would end it."""
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    with (folder / "up.log").open("ab") as log:
        command = [*NORIA, "up", "--project", str(folder), "--ready-file", str(ready)]
        up = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield wait_until_ready(ready, up)
    finally:
        up.terminate()
        up.wait(60)


def wait_until_ready(ready: Path, up: subprocess.Popen[bytes], seconds: float = 90) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and up.poll() is None:
        if ready.is_file():
            told: dict[str, Any] = json.loads(ready.read_text())
            return told
        time.sleep(0.1)
    raise AssertionError((ready.parent / "up.log").read_text())


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every live process that works on this project, found by its command line and by descent."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            named = any(str(folder) in word for word in words) and process.pid != os.getpid()
            if named and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
                found |= {child.pid: child for child in process.children(recursive=True)}
        except psutil.Error:
            continue
    return [process for process in found.values() if process.is_running()]


def status(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(noria("status", "--json", "--project", str(folder)).stdout)
    return told


def champion(folder: Path) -> str | None:
    served: str | None = status(folder)["tasks"]["helpdesk"]["champion"]
    return served


def promote_latest(folder: Path) -> None:
    """Promote the candidate of the latest report by hand, if the gate did not."""
    reports = sorted((folder / "lake" / "report" / "helpdesk").iterdir(), key=lambda path: path.stat().st_mtime)
    told = json.loads((reports[-1] / "report.json").read_text())
    from noria.types import Candidate

    ref = str(Candidate.model_validate(told["candidate"]).ref)
    if champion(folder) != ref:
        noria("promote", ref, "--project", str(folder))
