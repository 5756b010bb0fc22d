"""What a candidate answers to rows, through the engine that serves it."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self, TypeVar

import pyarrow.parquet as pq
from pydantic import JsonValue

from noria import adapters, prompts
from noria.errors import Unavailable
from noria.evaluation.likelihood import Scorer
from noria.evaluation.metrics import Answered
from noria.ports import Engine, Index, Platform, Progress
from noria.retrieval import Retriever, embedding
from noria.settings import TaskSettings
from noria.types import Candidate, Example, Form, Message, Ref, Wording, digest_of

Result = TypeVar("Result")
STARTS = 3
"""How often an engine that died is started again before the evaluation gives up."""


def sealed_rows(dataset: Path) -> list[Example]:
    """The test side of a dataset, in order of id."""
    rows = pq.read_table(dataset / "test.parquet").to_pylist()
    return [Example.model_validate({**row, "messages": json.loads(row["messages"])}) for row in rows]


@dataclass(frozen=True, slots=True)
class Reply:
    """What an engine answered, in how many seconds, and the tokens it counted; None where that was not measured."""

    text: str
    seconds: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    confidence: float | None = None
    """Probability of the answer, where the engine names classes."""


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
    there (`known`: candidate ref and prompt digest to answer), with the seconds it took then. For this to be so, an
    engine that is not batch invariant is asked one question at a time, and several of them share the machine's cores.
    """

    platform: Platform
    task: TaskSettings
    adapters: Sequence[Ref]
    log: Path
    known: dict[tuple[str, str], Reply] = field(default_factory=dict)
    wording: Wording | None = None
    """Words to try with a candidate that has none of its own yet."""
    _seats: list[_Seat] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.platform.settings.engines[self.task.engine]
        kind = self.platform.engines[settings.kind]
        folders = adapters.loaded(self.platform.lake, self.adapters)
        if kind.caps.batch_invariant or settings.url is not None:
            self._seats = [_Seat(partial(kind.start, settings, folders, self.log), settings.slots)]
            return
        threads = settings.threads or os.cpu_count() or 1
        # A whole model has a server of its own beside the base's: it is held in memory once, not once for each seat.
        whole = any(adapters.kind_of(folder) == "model" for folder in folders.values())
        count = 1 if whole else min(settings.slots, threads)
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
        return [each.answer for each in self.answered(candidate, rows, progress, label)]

    def answered(
        self, candidate: Candidate, rows: Sequence[Example], progress: Progress, label: str, *, likelihood: bool = False
    ) -> list[Answered]:
        """The answers with all that metrics may read of them.

        With `likelihood` the targets' log-probabilities too, for which the engine must have `caps.prompt_logprobs`.
        """
        contexts = self._contexts(candidate, rows)
        asked = self._rendered(candidate, rows, contexts)
        replies = self._replies(candidate, asked, progress, label)
        probable: Sequence[tuple[float | None, int | None]] = [(None, None)] * len(rows)
        if likelihood:
            probable = self._likelihood(
                candidate, asked, [row.target for row in rows], progress, f"{label}: likelihood"
            )
        price = self.platform.settings.engines[self.task.engine].price
        return [
            Answered(
                answer=reply.text,
                target=row.target or None,
                question=row.messages[-1].content,
                context=context,
                choices=() if self.task.multi_label else self.task.classes,
                confidence=reply.confidence,
                logprob=logprob,
                target_tokens=tokens,
                seconds=reply.seconds,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                cost=price.of(reply.seconds, reply.prompt_tokens, reply.completion_tokens),
            )
            for row, context, reply, (logprob, tokens) in zip(rows, contexts, replies, probable, strict=True)
        ]

    def _replies(
        self, candidate: Candidate, asked: Sequence[list[Message]], progress: Progress, label: str
    ) -> list[Reply]:
        held: list[JsonValue] = [list(self.task.classes)] if self.task.classes else []
        keys = [
            (str(candidate.ref), digest_of([*(message.model_dump() for message in turns), *held])) for turns in asked
        ]
        missing = sorted({key: turns for key, turns in zip(keys, asked, strict=True) if key not in self.known}.items())
        progress.update(
            label, 0, len(missing), f"{len(asked) - len(missing)} known" if len(missing) < len(asked) else ""
        )
        free, adapter = self._free(), self.served(candidate)
        with ThreadPoolExecutor(free.qsize()) as pool:
            replies = pool.map(lambda item: self._ask(free, partial(self._reply, adapter, item[1])), missing)
            for done, ((key, _), reply) in enumerate(zip(missing, replies, strict=True), 1):
                self.known[key] = reply
                progress.update(label, done, len(missing))
        return [self.known[key] for key in keys]

    def _likelihood(
        self,
        candidate: Candidate,
        asked: Sequence[list[Message]],
        targets: Sequence[str],
        progress: Progress,
        label: str,
    ) -> list[tuple[float, int]]:
        def score(item: tuple[list[Message], str], engine: Engine) -> tuple[float, int]:
            if not isinstance(engine, Scorer):
                raise Unavailable("the engine gives no log-probabilities of targets, though its caps say so")
            return engine.logprob(*item, adapter)

        adapter = self.served(candidate)
        free, found = self._free(), []
        with ThreadPoolExecutor(free.qsize()) as pool:
            pairs = list(zip(asked, targets, strict=True))
            for done, each in enumerate(pool.map(lambda item: self._ask(free, partial(score, item)), pairs), 1):
                found.append(each)
                progress.update(label, done, len(pairs))
        return found

    def _free(self) -> SimpleQueue[_Seat]:
        free: SimpleQueue[_Seat] = SimpleQueue()
        for seat in self._seats:
            for _ in range(seat.places):
                free.put(seat)
        return free

    def asked(self, candidate: Candidate, rows: Sequence[Example]) -> list[list[Message]]:
        """What the candidate is asked for each row: the task's prompt, with the context of its own index."""
        return self._rendered(candidate, rows, self._contexts(candidate, rows))

    def _contexts(self, candidate: Candidate, rows: Sequence[Example]) -> list[str | None]:
        index, wanted = self._index(candidate), self.task.context
        if index is None or wanted is None:
            return [row.context for row in rows]
        questions = [row.messages[-1].content for row in rows]
        with embedding(self.platform, wanted) as embed:
            found = Retriever(index, wanted, self.task.context_chars, embed)
            found.ready(questions)
            return [found.context(question) for question in questions]

    def _rendered(
        self, candidate: Candidate, rows: Sequence[Example], contexts: Sequence[str | None]
    ) -> list[list[Message]]:
        words = prompts.worded(self._wording(candidate))
        pairs = zip(rows, contexts, strict=True)
        return [prompts.render(self.task.system, row.messages, each, words) for row, each in pairs]

    def _wording(self, candidate: Candidate) -> Wording | None:
        return self.wording or adapters.wording_of(self.platform.lake, candidate.adapter)

    def served(self, candidate: Candidate) -> Ref | None:
        """The adapter that an engine is asked for; None for words, which stand in the prompt."""
        return None if self._wording(candidate) is not None else candidate.adapter

    def _index(self, candidate: Candidate) -> Index | None:
        if candidate.index is None or self.task.context is None:
            return None
        return self.platform.indexes.open(self.platform.lake.path(candidate.index) / "index")

    def _ask(self, free: SimpleQueue[_Seat], question: Callable[[Engine], Result]) -> Result:
        """Put a question to a free engine, and again to a fresh one where it dies."""
        seat = free.get()
        try:
            for _ in range(STARTS - 1):
                try:
                    return question(seat.engine())
                except Unavailable:
                    continue
            return question(seat.engine())
        finally:
            free.put(seat)

    def _reply(self, adapter: Ref | None, messages: Sequence[Message], engine: Engine) -> Reply:
        began = time.perf_counter()
        given = engine.answer(messages, adapter, self.task.max_tokens, [prompts.STOP], self._form())
        seconds = round(time.perf_counter() - began, 4)
        text, sure = prompts.answer_of(given.text), None
        if given.tokens:
            sure = round(math.exp(math.fsum(token[0][1] for token in given.tokens)), 6)
        return Reply(text, seconds, given.prompt_tokens, given.completion_tokens, sure)

    def _form(self) -> Form:
        """How answers are held to the task's classes, as the gateway holds them."""
        return form_of(self.platform, self.task)


def form_of(platform: Platform, task: TaskSettings) -> Form:
    """The form of a task's answers: free text, or its classes; with probabilities where the engine names classes."""
    if task.kind == "chat":
        return Form()
    heads = platform.engines[platform.settings.engines[task.engine].kind].caps.heads
    return Form(choices=1 if heads else 0, among=task.classes, several=task.multi_label)


def recorded(platform: Platform, name: str, *, measured: bool = False) -> dict[tuple[str, str], Reply]:
    """Answers that earlier reports of the task hold; only those of which the seconds are known where `measured`."""
    known: dict[tuple[str, str], Reply] = {}
    for _, runs in platform.runs.cycles(name, 50):
        for run in runs:
            if run.stage == "report" and platform.lake.has(run.output):
                for line in (platform.lake.path(run.output) / "answers.jsonl").read_text().splitlines():
                    candidate, prompt, *rest = json.loads(line)
                    reply = Reply(*rest)
                    if reply.seconds is not None or not measured:
                        known.setdefault((candidate, prompt), reply)
    return known


def keep(file: Path, known: Mapping[tuple[str, str], Reply], refs: set[str], *, measured: bool) -> None:
    """Write the answers of these candidates where `recorded` finds them: a JSON list a line.

    What an answer took is written where it was `measured` for a metric only: the same work then makes the same report.
    """
    kept = sorted(
        (*key, *(astuple(reply) if measured else (reply.text,))) for key, reply in known.items() if key[0] in refs
    )
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
