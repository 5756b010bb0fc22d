"""The tools of one task: which it may call, with limits and a record of each call."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from time import monotonic
from typing import Final, Literal

from pydantic import JsonValue

from noria.errors import Conflict, NotFound
from noria.names import Record, digest_of
from noria.ports import Clock, ToolResult, ToolSource, ToolSpec
from noria.settings import known
from noria.tools.functions import checked, cut, plain_schema
from noria.tools.wording import parsed

Outcome = Literal["ok", "invalid", "failed", "late", "unknown", "denied", "repeated"]
FAULTS: Final = frozenset({"invalid", "failed", "late", "unknown", "denied", "repeated"})


class Call(Record):
    """One call as it is kept: who asked for which tool, what came of it. Arguments and results are not kept.

    `arguments` is a digest, so that equal calls are seen to be equal; `result_chars` the length of what the model got.
    """

    at: datetime
    conversation: str
    who: str
    tool: str
    arguments: str
    seconds: float
    outcome: Outcome
    result_chars: int


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool with its place: `path` is what allow-lists name, `spec.name` what a model calls."""

    path: str
    spec: ToolSpec
    source: ToolSource
    seconds: float
    result_chars: int


class Toolbox:
    """All tools that are there, of which the patterns in `allowed` name those that may be called.

    A pattern is a tool's path, such as `get_current_date` or `table.*`.
    """

    def __init__(
        self,
        tools: Iterable[Tool],
        allowed: Sequence[str],
        clock: Clock,
        log: Path | None = None,
        who: str = "",
    ) -> None:
        """Calls are added to the file `log`. Raises NotFound for a pattern that names nothing, Conflict for two tools
        of one name.
        """
        self._all = {tool.path: tool for tool in tools}
        for pattern in allowed:
            if not any(fnmatchcase(path, pattern) for path in self._all):
                raise NotFound(f"'{pattern}' names no tool", known(pattern, set(self._all)))
        self._allowed: dict[str, Tool] = {}
        for path, tool in self._all.items():
            if not any(fnmatchcase(path, pattern) for pattern in allowed):
                continue
            if (other := self._allowed.get(tool.spec.name)) is not None:
                raise Conflict(f"two tools are called '{tool.spec.name}': {other.path} and {path}", "allow one of them")
            self._allowed[tool.spec.name] = replace(tool, spec=_plain(tool.spec))
        self._clock, self._log, self._who = clock, log, who
        self._guard = threading.Lock()

    def only(self, patterns: Sequence[str]) -> Toolbox:
        """A smaller one over the same tools: what these patterns name among those that may be called."""
        return Toolbox(self.tools, patterns, self._clock, self._log, self._who)

    @property
    def tools(self) -> list[Tool]:
        """Those that may be called."""
        return list(self._allowed.values())

    @property
    def specs(self) -> list[ToolSpec]:
        """Of those that may be called."""
        return [tool.spec for tool in self._allowed.values()]

    def call(self, name: str, arguments: str, conversation: str = "") -> tuple[ToolResult, Outcome]:
        """Carry out a call whose arguments are JSON text; never raises: what is wrong is told as the result."""
        began, at = monotonic(), self._clock.now()
        result, outcome, digest = self._done(name, arguments)
        self.note(
            Call(at=at, conversation=conversation, who=self._who, tool=name, arguments=digest, outcome=outcome,
                 seconds=round(monotonic() - began, 4), result_chars=len(result.text))
        )  # fmt: skip
        return result, outcome

    def note(self, call: Call) -> None:
        """Add a call to the log: one write of one line, so that processes may share the file.

        A log that cannot be written, as on a full disk, ends no conversation.
        """
        if self._log is None:
            return
        with self._guard, suppress(OSError):
            self._log.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, call.model_dump_json().encode() + b"\n")
            finally:
                os.close(descriptor)

    def _done(self, name: str, text: str) -> tuple[ToolResult, Outcome, str]:
        arguments = read(text)
        digest = digest_of(text if arguments is None else arguments)
        tool = self._allowed.get(name)
        if tool is None:
            there = any(each.spec.name == name for each in self._all.values())
            names = ", ".join(self._allowed) or "none"
            wrong = f"the tool '{name}' may not be called here" if there else f"there is no tool '{name}'"
            return _error(f"{wrong}; there are: {names}"), "denied" if there else "unknown", digest
        if arguments is None:
            return _error("the arguments are no JSON object"), "invalid", digest
        found = tool.source.call(name, arguments, tool.seconds, tool.result_chars)
        text = cut(found.text, tool.result_chars)
        return (ToolResult(text) if found.outcome == "ok" else _error(text)), found.outcome, digest


def read(text: str) -> dict[str, JsonValue] | None:
    """Arguments as a model wrote them; None for what is no JSON object. No text at all is one without properties."""
    try:
        found = parsed(text) if text.strip() else {}
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _plain(spec: ToolSpec) -> ToolSpec:
    """What a model may be told, whoever wrote it; raises Invalid."""
    return ToolSpec(checked(spec.name), " ".join(spec.description.split()), plain_schema(spec.parameters))


def _error(text: str) -> ToolResult:
    return ToolResult(json.dumps({"error": text}, ensure_ascii=False), "failed")
