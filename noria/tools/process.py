"""Functions in processes of their own: a call that takes too long is really stopped."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Self

from pydantic import JsonValue

from noria import errors
from noria.errors import Invalid, NoriaError, Unavailable
from noria.ports import ToolResult, ToolSpec

READY_SECONDS = 60.0
"""Longest time for the functions' modules to be imported and their tables to be read."""
IDLE = 4
"""Processes that are kept for the next call; a turn's parallel calls have one each."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a process opens: a target under a name; with options (not None) the target makes the functions."""

    name: str
    target: str
    options: Mapping[str, JsonValue] | None = None


class Functions:
    """Port `ToolSource` for Python functions. Processes start in `folder`, from which modules can be imported."""

    def __init__(self, opened: Sequence[Opened], folder: Path, environment: Mapping[str, str]) -> None:
        """Starts the first process; raises what is wrong with a function, or Unavailable when it does not start."""
        self._orders = [{"name": each.name, "target": each.target, "options": each.options} for each in opened]
        self._folder, self._environment = folder, dict(environment)
        self._guard = threading.Lock()
        self._closed = False
        self._live: list[_Child] = []
        first = self._start()
        self._specs = first.specs
        self._idle = [first]

    def specs(self) -> Sequence[ToolSpec]:
        """Its tools, in the order of the file."""
        return self._specs

    def call(self, name: str, arguments: Mapping[str, JsonValue], seconds: float, limit: int) -> ToolResult:
        """Run a function in a process that nothing else uses meanwhile."""
        try:
            child = self._taken()
        except NoriaError as error:
            return ToolResult(error.fact, "failed")
        found = child.ask({"name": name, "arguments": dict(arguments), "limit": limit}, seconds)
        if not isinstance(found, dict) or not self._kept(child):
            self._drop(child)
        if found is None:
            return ToolResult("the tool's process ended before it answered", "failed")
        if isinstance(found, ToolResult):
            return found
        return ToolResult(str(found["text"]), found["outcome"])

    def close(self) -> None:
        """End all its processes, also those that are at work."""
        with self._guard:
            self._closed = True
            live, idle, self._live, self._idle = self._live, self._idle, [], []
        for child in live:
            child.end()
        for child in idle:
            child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _taken(self) -> _Child:
        with self._guard:
            if self._closed:
                raise Unavailable("the tools were closed")
            if self._idle:
                return self._idle.pop()
        return self._start()

    def _start(self) -> _Child:
        child = _Child(self._orders, self._folder, self._environment)
        with self._guard:
            if not self._closed:
                self._live.append(child)
                return child
        child.close()
        raise Unavailable("the tools were closed")

    def _kept(self, child: _Child) -> bool:
        with self._guard:
            if self._closed or len(self._idle) >= IDLE:
                return False
            self._idle.append(child)
            return True

    def _drop(self, child: _Child) -> None:
        with self._guard, suppress(ValueError):
            self._live.remove(child)
        child.close()


class _Child:
    """One process and the pipes to it."""

    def __init__(self, orders: Sequence[Mapping[str, Any]], folder: Path, environment: Mapping[str, str]) -> None:
        argv = [sys.executable, "-m", "noria.tools.worker"]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environment), start_new_session=True
        )
        self._left = b""
        try:
            told = self._exchange({"folder": str(folder), "orders": orders}, READY_SECONDS)
            if isinstance(told, ToolResult) or told is None:
                raise Unavailable("the process for tools did not start", "look above: it says why on standard error")
            if isinstance(told, dict):
                kind = getattr(errors, str(told["kind"]), Invalid)
                raise kind(str(told["fact"]), str(told["hint"]))
        except BaseException:
            self.close()
            raise
        self.specs = tuple(ToolSpec(each["name"], each["description"], each["parameters"]) for each in told)

    def ask(self, order: Mapping[str, Any], seconds: float) -> Any:
        """Its answer; a result that says late after the time; None for a process that died of itself."""
        return self._exchange(order, seconds)

    def end(self) -> None:
        """End it with all that it started; the pipes stay open for whoever reads from them."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End it; for the one who asks it, or when nobody does."""
        self.end()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _exchange(self, value: object, seconds: float) -> Any:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return None
        line = self._line(monotonic() + seconds)
        if line is None:
            return ToolResult(f"it was stopped after {seconds:g} seconds", "late")
        return json.loads(line) if line else None

    def _line(self, until: float) -> bytes | None:
        """The next line; empty when there comes no more, None when the time is over."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._left:
                if not waiting.select(max(0.0, until - monotonic())):
                    return None
                if not (more := os.read(self._process.stdout.fileno(), 65536)):
                    return b""
                self._left += more
        line, _, self._left = self._left.partition(b"\n")
        return line
