"""Several candidates on the same sealed rows: what each answers, what that scores, what it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean

from noria import prompts
from noria.errors import Conflict, NotFound
from noria.evaluation import history, metrics, report, slices
from noria.evaluation.answers import Examiner, sealed_rows
from noria.evaluation.comparison import Comparison, Score
from noria.evaluation.measured import Measured, mean_cost, percentile
from noria.evaluation.metrics import Answered
from noria.evaluation.sides import Side, barred, sides_of
from noria.ports import Engine, Platform, Progress
from noria.settings import PriceSettings, TaskSettings
from noria.types import Example, Generation, Ref, Report

_TEXTS = frozenset({"answer", "target", "question"})
Memory = Callable[[], float | None]
"""Memory of all processes that this one started, in GiB; None where it cannot be known."""


def compare(
    platform: Platform,
    name: str,
    words: Sequence[str],
    progress: Progress,
    *,
    timed: int = 8,
    recorded: bool = False,
    memory: Memory = lambda: None,
) -> Comparison:
    """Compare candidates of a task on the sealed rows of its latest dataset.

    Answers that a report holds are taken from it, the others are asked for; with `recorded` nothing is asked. Rows
    count that all sides have answered. `timed` questions are asked one at a time, of the sides in turn, to measure
    latency, cost and memory; none with 0 or `recorded`.

    Raises Invalid, NotFound (no dataset yet), Conflict (the sides share no rows) and what engines raise.
    """
    task = platform.settings.tasks[name]
    found = list(history.reports(platform, name))
    dataset = _dataset(platform, name)
    sides = sides_of(platform, name, words, history.candidates(found), dataset)
    rows = sealed_rows(platform.lake.path(dataset))
    earlier = history.answers(found)
    answered = {side.ref: earlier.get(side.ref, {}) for side in sides}
    # By ref, why a side cannot be asked; None where it can.
    closed = {
        side.ref: "nothing is asked with --recorded" if recorded else barred(platform, task, side.candidate)
        for side in sides
    }
    desk = _Desk(platform, task, [side for side in sides if closed[side.ref] is None], progress)
    answered |= {side.ref: {**answered[side.ref], **desk.ask(side, rows, answered[side.ref])} for side in desk.sides}
    common = [row for row in rows if all(row.id in answered[side.ref] for side in sides)]
    if len(common) < 2:
        least = min(sides, key=lambda side: sum(row.id in answered[side.ref] for row in rows))
        raise Conflict(
            f"the sides have {len(common)} sealed rows of '{dataset}' in common; "
            f"'{least.word}' was not asked: {closed[least.ref]}",
            "compare what the present noria.toml can ask: champion, base, engine:NAME",
        )
    measured = desk.time(common[:timed], memory) if timed and desk.sides else {}
    texts = {side.ref: [answered[side.ref][row.id] for row in common] for side in sides}
    return _scored(name, task, dataset, sides, common, texts, measured)


def _dataset(platform: Platform, name: str) -> Ref:
    for _, runs in platform.runs.cycles(name, history.CYCLES):
        for run in reversed(runs):
            if run.stage == "dataset" and platform.lake.has(run.output):
                return run.output
    raise NotFound(f"task '{name}' has no sealed rows yet", f"make them: noria run dataset --task {name}")


@dataclass(frozen=True, slots=True)
class _Desk:
    """Where the sides that can be asked are asked, each through the engine that would serve it."""

    platform: Platform
    task: TaskSettings
    sides: Sequence[Side]
    progress: Progress

    def ask(self, side: Side, rows: Sequence[Example], answered: Mapping[str, str]) -> dict[str, str]:
        """Answers to the rows that have none yet, by row id."""
        missing = [row for row in rows if row.id not in answered]
        if not missing:
            return {}
        with self._examiner(side) as examiner:
            texts = examiner.answers(side.candidate, missing, self.progress, f"{side.word} answers")
        return {row.id: text for row, text in zip(missing, texts, strict=True)}

    def time(self, rows: Sequence[Example], memory: Memory) -> dict[str, Measured]:
        """By ref, what it takes to answer these rows one at a time, the sides in turn."""
        taken: dict[str, list[tuple[float, Generation]]] = {side.ref: [] for side in self.sides}
        asked = {side.ref: self._examiner(side).asked(side.candidate, rows) for side in self.sides}
        with ExitStack() as stack:
            engines: dict[str, tuple[Engine, float | None]] = {}
            for side in self.sides:
                if side.candidate.engine not in engines:
                    engines[side.candidate.engine] = self._started(side.candidate.engine, stack, memory)
            # The first question of each side does not count: it fills caches.
            for number in (0, *range(len(rows))):
                for side in self.sides:
                    engine, messages = engines[side.candidate.engine][0], asked[side.ref][number]
                    began = time.monotonic()
                    given = engine.answer(messages, side.candidate.adapter, self.task.max_tokens, [prompts.STOP])
                    taken[side.ref].append((time.monotonic() - began, given))
                self.progress.update("timing", number + 1, len(rows))
        prices = {name: engine.price for name, engine in self.platform.settings.engines.items()}
        return {
            side.ref: _measured(taken[side.ref][1:], prices[side.candidate.engine], engines[side.candidate.engine][1])
            for side in self.sides
        }

    def _examiner(self, side: Side) -> Examiner:
        name, adapter = side.candidate.engine, side.candidate.adapter
        log = self.platform.settings.state / "logs" / f"comparison-{name}.log"
        task = self.task.model_copy(update={"engine": name})
        return Examiner(self.platform, task, [adapter] if adapter is not None else [], log)

    def _started(self, name: str, stack: ExitStack, memory: Memory) -> tuple[Engine, float | None]:
        """The engine as it serves, with all adapters that are asked of it, and by how much memory grew."""
        settings = self.platform.settings.engines[name]
        adapters = {
            side.candidate.adapter: self.platform.lake.verified(side.candidate.adapter)
            for side in self.sides
            if side.candidate.adapter is not None and side.candidate.engine == name
        }
        log = self.platform.settings.state / "logs" / f"comparison-{name}.log"
        before = memory()
        engine = self.platform.engines[settings.kind].start(settings, adapters, log)
        stack.callback(engine.close)
        after = memory()
        grown = None if settings.url is not None or before is None or after is None else round(after - before, 3)
        return engine, grown


def _measured(taken: Sequence[tuple[float, Generation]], price: PriceSettings, gib: float | None) -> Measured:
    costs = [
        (given.prompt_tokens * price.prompt + given.completion_tokens * price.completion) / 1e6
        if given.prompt_tokens is not None and given.completion_tokens is not None
        else None
        for _, given in taken
    ]
    tokens = [given.completion_tokens for _, given in taken if given.completion_tokens is not None]
    times = [1000 * seconds for seconds, _ in taken]
    return Measured(
        how="asked one at a time, the sides in turn",
        answers=len(taken),
        p50_ms=percentile(times, 0.5),
        p95_ms=percentile(times, 0.95),
        tokens=round(fmean(tokens), 2) if tokens else None,
        cost_per_1000=mean_cost(costs),
        memory_gib=gib,
    )


def _scored(
    name: str,
    task: TaskSettings,
    dataset: Ref,
    sides: Sequence[Side],
    rows: Sequence[Example],
    texts: Mapping[str, Sequence[str]],
    measured: Mapping[str, Measured],
) -> Comparison:
    # Texts are all that is known of answers that earlier reports hold; what they took is measured apart.
    wanted = [metric for metric in map(metrics.find, task.measured) if _TEXTS.issuperset(metric.reads)]
    first, *others = sides
    before = _answered(rows, texts[first.ref])
    pairs = []
    for side in others:
        after = _answered(rows, texts[side.ref])
        scores = slices.tagged(report.scored(rows, before, after, wanted), rows)
        found = report.intervals(rows, before, after, wanted, 1 - task.gate.risk)
        pairs.append(
            Report(candidate=side.candidate, champion=first.candidate, intervals=found, rows=tuple(scores), checks={})
        )
    own = [_alone(pairs[0], before=True), *(_alone(pair, before=False) for pair in pairs)]
    return Comparison(name, task.gate.margin, dataset, tuple(sides), tuple(pairs), tuple(own), measured)


def _answered(rows: Sequence[Example], texts: Sequence[str]) -> list[Answered]:
    return [
        Answered(answer=text, target=row.target or None, question=row.messages[-1].content)
        for row, text in zip(rows, texts, strict=True)
    ]


def _alone(pair: Report, *, before: bool) -> tuple[Score, ...]:
    """What one side scores by itself on the task's own rows, or on those of the first slice where it has none."""
    own = pair.intervals.get("all") or next(iter(pair.intervals.values()))
    found = []
    for name, each in own.items():
        low, high = (each.before_bounds if before else each.after_bounds) or (each.low, each.high)
        found.append(Score(name, each.before if before else each.after, low, high))
    return tuple(found)
