"""What a candidate answers to rows, through the engine that serves it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import pyarrow.parquet as pq

from noria import prompts
from noria.errors import Unavailable
from noria.ports import Engine, Index, Platform, Progress
from noria.settings import TaskSettings
from noria.types import Candidate, Example, Message, Ref, digest_of

STARTS = 3
"""How often an engine that died is started again before the evaluation gives up."""


def sealed_rows(dataset: Path) -> list[Example]:
    """The test side of a dataset, in order of id."""
    rows = pq.read_table(dataset / "test.parquet").to_pylist()
    return [Example.model_validate({**row, "messages": json.loads(row["messages"])}) for row in rows]


@dataclass(slots=True)
class _Seat:
    """One engine, started at first use and again when it died; `places` answers are computed in it side by side."""

    start: Callable[[], Engine]
    places: int
    _engine: Engine | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def engine(self) -> Engine:
        with self._lock:
            if self._engine is None or not self._engine.alive():
                self.close()
                self._engine = self.start()
            return self._engine

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


@dataclass(slots=True)
class Examiner:
    """Asks candidates; holds engines with all the adapters it was made for. Use it as a context manager.

    A greedy answer is a function of candidate and prompt, so an answer that an earlier report holds is taken from
    there (`known`: candidate ref and prompt digest to answer). For this to be so, an engine that is not batch
    invariant is asked one question at a time, and several of them share the machine's cores.
    """

    platform: Platform
    task: TaskSettings
    adapters: Sequence[Ref]
    log: Path
    known: dict[tuple[str, str], str] = field(default_factory=dict)
    _seats: list[_Seat] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.platform.settings.engines[self.task.engine]
        kind = self.platform.engines[settings.kind]
        folders = {ref: self.platform.lake.path(ref) for ref in self.adapters}
        if kind.caps.batch_invariant or settings.url is not None:
            self._seats = [_Seat(partial(kind.start, settings, folders, self.log), settings.slots)]
            return
        threads = settings.threads or os.cpu_count() or 1
        count = min(settings.slots, threads)
        alone = settings.model_copy(update={"slots": 1, "threads": threads // count})
        logs = [self.log.with_stem(f"{self.log.stem}-{number}") for number in range(1, count + 1)]
        self._seats = [_Seat(partial(kind.start, alone, folders, log), 1) for log in logs]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for seat in self._seats:
            seat.close()

    def engine(self) -> Engine:
        """A running engine; started at first use, and again when it died."""
        return self._seats[0].engine()

    def answers(self, candidate: Candidate, rows: Sequence[Example], progress: Progress, label: str) -> list[str]:
        """The candidate's answers to the rows, in their order; the context comes from the candidate's own index."""
        asked = self.asked(candidate, rows)
        keys = [(str(candidate.ref), digest_of([message.model_dump() for message in turns])) for turns in asked]
        missing = sorted({key: turns for key, turns in zip(keys, asked, strict=True) if key not in self.known}.items())
        progress.update(label, 0, len(missing), f"{len(rows) - len(missing)} known" if len(missing) < len(rows) else "")
        free: SimpleQueue[_Seat] = SimpleQueue()
        for seat in self._seats:
            for _ in range(seat.places):
                free.put(seat)
        with ThreadPoolExecutor(free.qsize()) as pool:
            texts = pool.map(lambda item: self._ask(free, candidate, item[1]), missing)
            for done, ((key, _), text) in enumerate(zip(missing, texts, strict=True), 1):
                self.known[key] = text
                progress.update(label, done, len(missing))
        return [self.known[key] for key in keys]

    def asked(self, candidate: Candidate, rows: Sequence[Example]) -> list[list[Message]]:
        """What the candidate is asked for each row: the task's prompt, with the context of its own index."""
        index = self._index(candidate)
        return [self._messages(index, row) for row in rows]

    def _index(self, candidate: Candidate) -> Index | None:
        if candidate.index is None or self.task.context is None:
            return None
        return self.platform.indexes.open(self.platform.lake.path(candidate.index) / "index")

    def _messages(self, index: Index | None, row: Example) -> list[Message]:
        context, wanted = row.context, self.task.context
        if index is not None and wanted is not None:
            context = prompts.nearest(index.search, row.messages[-1].content, wanted.k, self.task.context_chars)
        return prompts.render(self.task.system, row.messages, context)

    def _ask(self, free: SimpleQueue[_Seat], candidate: Candidate, messages: Sequence[Message]) -> str:
        seat = free.get()
        try:
            for _ in range(STARTS - 1):
                try:
                    return self._once(seat, candidate, messages)
                except Unavailable:
                    continue
            return self._once(seat, candidate, messages)
        finally:
            free.put(seat)

    def _once(self, seat: _Seat, candidate: Candidate, messages: Sequence[Message]) -> str:
        given = seat.engine().answer(messages, candidate.adapter, self.task.max_tokens, [prompts.STOP])
        return prompts.answer_of(given.text)


def recorded(platform: Platform, name: str) -> dict[tuple[str, str], str]:
    """Answers that earlier reports of the task hold."""
    known: dict[tuple[str, str], str] = {}
    for _, runs in platform.runs.cycles(name, 50):
        for run in runs:
            if run.stage == "report" and platform.lake.has(run.output):
                for line in (platform.lake.path(run.output) / "answers.jsonl").read_text().splitlines():
                    candidate, prompt, answer = json.loads(line)
                    known.setdefault((candidate, prompt), answer)
    return known
