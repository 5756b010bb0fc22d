"""What a candidate answers to rows, through the engine that serves it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
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
class Examiner:
    """Asks candidates; holds one engine with all the adapters it was made for. Use it as a context manager.

    A greedy answer is a function of candidate and prompt, so an answer that an earlier report holds is taken from
    there (`known`: candidate ref and prompt digest to answer).
    """

    platform: Platform
    task: TaskSettings
    adapters: Sequence[Ref]
    log: Path
    known: dict[tuple[str, str], str] = field(default_factory=dict)
    _engine: Engine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._engine is not None:
            self._engine.close()

    def engine(self) -> Engine:
        """The running engine; started at first use, and again when it died."""
        if self._engine is None or not self._engine.alive():
            if self._engine is not None:
                self._engine.close()
            settings = self.platform.settings.engines[self.task.engine]
            folders = {ref: self.platform.lake.path(ref) for ref in self.adapters}
            self._engine = self.platform.engines[settings.kind].start(settings, folders, self.log)
        return self._engine

    def answers(self, candidate: Candidate, rows: Sequence[Example], progress: Progress, label: str) -> list[str]:
        """The candidate's answers to the rows, in their order; the context comes from the candidate's own index."""
        index = self._index(candidate)
        asked = [self._messages(index, row) for row in rows]
        keys = [(str(candidate.ref), digest_of([message.model_dump() for message in turns])) for turns in asked]
        missing = sorted({key: turns for key, turns in zip(keys, asked, strict=True) if key not in self.known}.items())
        slots = self.platform.settings.engines[self.task.engine].slots
        progress.update(label, 0, len(missing), f"{len(rows) - len(missing)} known" if len(missing) < len(rows) else "")
        with ThreadPoolExecutor(slots) as pool:
            texts = pool.map(lambda item: self._ask(candidate, item[1]), missing)
            for done, ((key, _), text) in enumerate(zip(missing, texts, strict=True), 1):
                self.known[key] = text
                progress.update(label, done, len(missing))
        return [self.known[key] for key in keys]

    def _index(self, candidate: Candidate) -> Index | None:
        if candidate.index is None or self.task.context is None:
            return None
        return self.platform.indexes.open(self.platform.lake.path(candidate.index) / "index")

    def _messages(self, index: Index | None, row: Example) -> list[Message]:
        context, wanted = row.context, self.task.context
        if index is not None and wanted is not None:
            context = prompts.nearest(index.search, row.messages[-1].content, wanted.k, self.task.context_chars)
        return prompts.render(self.task.system, row.messages, context)

    def _ask(self, candidate: Candidate, messages: Sequence[Message]) -> str:
        for _ in range(STARTS - 1):
            try:
                return self._once(candidate, messages)
            except Unavailable:
                continue
        return self._once(candidate, messages)

    def _once(self, candidate: Candidate, messages: Sequence[Message]) -> str:
        given = self.engine().answer(messages, candidate.adapter, self.task.max_tokens, [prompts.STOP])
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
