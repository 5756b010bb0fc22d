"""Several candidates on the same sealed rows: what each answers, what that scores, what it takes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import fmean

from noria import adapters, prompts
from noria.errors import Conflict, Invalid, NoriaError, NotFound
from noria.evaluation import history, metrics, report, slices
from noria.evaluation.answers import Examiner, form_of, sealed_rows
from noria.evaluation.comparison import Comparison, Score
from noria.evaluation.front import Front, front
from noria.evaluation.lineup import lineup, of_kinds
from noria.evaluation.measured import Measured, mean_cost, percentile
from noria.evaluation.metrics import Answered, Metric
from noria.evaluation.sides import Side, barred, kind_of, side_of, sides_of
from noria.ports import Engine, Platform, Progress
from noria.settings import PriceSettings, TaskSettings
from noria.types import Candidate, Example, Form, Generation, Ref, Report

_TEXTS = frozenset({"answer", "target", "question", "choices"})
Reading = Callable[[], float | None]
"""Something of the machine that can be read at any time; None where it cannot be known."""


def unread() -> None:
    """A reading that says nothing."""


@dataclass(frozen=True, slots=True)
class Meters:
    """Memory of all processes that this one started, in GiB, and energy that the machine has taken, in joules."""

    memory: Reading = unread
    energy: Reading = unread


UNREAD = Meters()


def compare(
    platform: Platform,
    name: str,
    words: Sequence[str],
    progress: Progress,
    *,
    timed: int = 8,
    recorded: bool = False,
    meters: Meters = UNREAD,
    kinds: Sequence[str] = (),
    also: Sequence[str] = (),
    make: Callable[[str], Candidate] | None = None,
) -> Comparison:
    """Compare candidates of a task on the sealed rows of its latest dataset.

    Answers that a report holds are taken from it, the others are asked for; with `recorded` nothing is asked. Rows
    count that all sides have answered. `timed` questions are asked one at a time, of the sides in turn, to measure
    latency, cost, memory and energy; none with 0 or `recorded`.

    Without `words` everything takes part that can be asked (`noria.evaluation.lineup`), and who turns out not to answer
    is left out and told of; `kinds` are those that are wanted of it, and one that is not there yet is made by `make`.
    `also` are words for more sides.

    Raises Invalid, NotFound (no dataset yet), Conflict (the sides share no rows) and what engines raise.
    """
    task = platform.settings.tasks[name]
    found = list(history.reports(platform, name))
    dataset = latest_dataset(platform, name)
    sides, notes = _sides(platform, name, _Wanted(words, kinds, also, make), history.candidates(found), dataset)
    rows = sealed_rows(platform.lake.path(dataset))
    earlier = history.answers(found)
    answered = {side.ref: earlier.get(side.ref, {}) for side in sides}
    # By ref, why a side cannot be asked; None where it can.
    closed = {
        side.ref: "nothing is asked with --recorded" if recorded else barred(platform, task, side.candidate)
        for side in sides
    }
    desk = _Desk(platform, task, [side for side in sides if closed[side.ref] is None], progress)
    for side in list(desk.sides):
        try:
            answered[side.ref] = {**answered[side.ref], **desk.ask(side, rows, answered[side.ref])}
        except NoriaError as error:
            if words or side is sides[0] or side.word in also or side.kind in kinds or side.word in kinds:
                raise
            notes.append(f"'{side.word}' is left out: {error.fact}")
            sides.remove(side)
            desk.sides.remove(side)
    _several(sides, notes)
    common = [row for row in rows if all(row.id in answered[side.ref] for side in sides)]
    if len(common) < 2:
        least = min(sides, key=lambda side: sum(row.id in answered[side.ref] for row in rows))
        raise Conflict(
            f"the sides have {len(common)} sealed rows of '{dataset}' in common; "
            f"'{least.word}' was not asked: {closed[least.ref]}",
            "compare what the present noria.toml can ask: champion, base, engine:NAME",
        )
    measured = desk.time(common[:timed], meters) if timed and desk.sides else {}
    texts = {side.ref: [answered[side.ref][row.id] for row in common] for side in sides}
    return _scored(name, task, dataset, sides, common, texts, measured, notes)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Who is to take part: `words` that name sides, `kinds` that are enough or may be made, `also` more words."""

    words: Sequence[str]
    kinds: Sequence[str]
    also: Sequence[str]
    make: Callable[[str], Candidate] | None


def _sides(
    platform: Platform, name: str, wanted: _Wanted, candidates: Mapping[str, Candidate], dataset: Ref
) -> tuple[list[Side], list[str]]:
    """Who takes part, and what is to be told of those who do not."""
    if wanted.words and not wanted.kinds and not wanted.also:
        return sides_of(platform, name, wanted.words, candidates, dataset), []
    notes: list[str] = []
    there: list[Side] = []
    if wanted.kinds or not wanted.words:
        there, notes = lineup(platform, name, candidates, dataset)
    taken = [side_of(platform, name, word, candidates, dataset) for word in wanted.words] or there[:1]
    more, missing = of_kinds(there, wanted.kinds) if wanted.kinds else (there, [])
    more += [side_of(platform, name, word, candidates, dataset) for word in wanted.also]
    for kind in missing:
        if wanted.make is None:
            raise NotFound(f"there is no candidate of kind '{kind}'", "make one: noria run")
        candidate = wanted.make(kind)
        more.append(Side(kind, candidate, kind_of(platform, candidate)))
    for side in more:
        if side.ref not in {each.ref for each in taken}:
            taken.append(side)
    _several(taken, notes)
    return taken, notes


def _several(sides: Sequence[Side], notes: Sequence[str]) -> None:
    if len(sides) < 2:
        because = f" ({'; '.join(notes)})" if notes else ""
        raise Invalid(
            f"there is nothing to compare '{sides[0].word}' with{because}",
            "add an engine, or name a kind to be made: noria compare --with few-shot",
        )


def latest_dataset(platform: Platform, name: str) -> Ref:
    """The dataset whose sealed rows count; raises NotFound."""
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
    sides: list[Side]
    progress: Progress

    def ask(self, side: Side, rows: Sequence[Example], answered: Mapping[str, str]) -> dict[str, str]:
        """Answers to the rows that have none yet, by row id."""
        missing = [row for row in rows if row.id not in answered]
        if not missing:
            return {}
        with self._examiner(side) as examiner:
            texts = examiner.answers(side.candidate, missing, self.progress, f"{side.word} answers")
        return {row.id: text for row, text in zip(missing, texts, strict=True)}

    def time(self, rows: Sequence[Example], meters: Meters) -> dict[str, Measured]:
        """By ref, what it takes to answer these rows one at a time, the sides in turn.

        As when it serves, an engine may keep what it has computed of an earlier prompt: examples are read once.
        """
        taken: dict[str, list[_Taken]] = {side.ref: [] for side in self.sides}
        examiners = {side.ref: self._examiner(side) for side in self.sides}
        asked = {side.ref: examiners[side.ref].asked(side.candidate, rows) for side in self.sides}
        with ExitStack() as stack:
            hosts: dict[str, _Host] = {}
            for side in self.sides:
                if side.candidate.engine not in hosts:
                    hosts[side.candidate.engine] = self._started(side.candidate.engine, stack, meters.memory)
            # The first question of each side does not count: it fills caches.
            for number in (0, *range(len(rows))):
                for side in self.sides:
                    host, adapter = hosts[side.candidate.engine], examiners[side.ref].served(side.candidate)
                    joules, level = meters.energy(), meters.memory()
                    began = time.monotonic()
                    given = host.engine.answer(
                        asked[side.ref][number], adapter, self.task.max_tokens, [prompts.STOP], self._form(side)
                    )
                    seconds = time.monotonic() - began
                    taken[side.ref].append(_Taken(seconds, _grown(joules, meters.energy()), given))
                    host.grew(_grown(level, meters.memory()))
                self.progress.update("timing", number + 1, len(rows))
        prices = {name: engine.price for name, engine in self.platform.settings.engines.items()}
        return {
            side.ref: _measured(taken[side.ref][1:], prices[side.candidate.engine], hosts[side.candidate.engine].peak)
            for side in self.sides
        }

    def _form(self, side: Side) -> Form:
        """How the side's engine holds its answers; what was computed may be taken again."""
        form = form_of(self.platform, self.task.model_copy(update={"engine": side.candidate.engine}))
        return replace(form, reuse=True)

    def _examiner(self, side: Side) -> Examiner:
        name, adapter = side.candidate.engine, side.candidate.adapter
        log = self.platform.settings.state / "logs" / f"comparison-{name}.log"
        task = self.task.model_copy(update={"engine": name})
        return Examiner(self.platform, task, [adapter] if adapter is not None else [], log)

    def _started(self, name: str, stack: ExitStack, memory: Reading) -> _Host:
        """The engine as it serves, with all adapters that are asked of it."""
        settings = self.platform.settings.engines[name]
        here = [side.candidate.adapter for side in self.sides if side.candidate.engine == name]
        folders = adapters.loaded(self.platform.lake, [each for each in here if each is not None])
        log = self.platform.settings.state / "logs" / f"comparison-{name}.log"
        before = memory()
        engine = self.platform.engines[settings.kind].start(settings, folders, log)
        stack.callback(engine.close)
        return _Host(engine, None if settings.url is not None else _grown(before, memory()))


@dataclass(slots=True)
class _Host:
    """A running engine, the memory of its processes now and at most, in GiB; None where it cannot be known."""

    engine: Engine
    gib: float | None
    most: float = 0.0

    def grew(self, by: float | None) -> None:
        """Its processes have grown while it answered; one engine answers at a time."""
        if self.gib is not None and by is not None:
            self.gib += by
            self.most = max(self.most, self.gib)

    @property
    def peak(self) -> float | None:
        """An engine without processes of its own has none that could be told apart."""
        highest = 0.0 if self.gib is None else max(self.most, self.gib)
        return round(highest, 3) if highest > 0 else None


@dataclass(frozen=True, slots=True)
class _Taken:
    """What one answer took: seconds, joules where they can be read, tokens."""

    seconds: float
    joules: float | None
    given: Generation


def _grown(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _measured(taken: Sequence[_Taken], price: PriceSettings, gib: float | None) -> Measured:
    costs = [price.of(each.seconds, each.given.prompt_tokens, each.given.completion_tokens) for each in taken]
    tokens = [each.given.completion_tokens for each in taken if each.given.completion_tokens is not None]
    times = [1000 * each.seconds for each in taken]
    joules = [each.joules for each in taken if each.joules is not None]
    return Measured(
        how="asked one at a time, the sides in turn",
        answers=len(taken),
        p50_ms=percentile(times, 0.5),
        p95_ms=percentile(times, 0.95),
        tokens=round(fmean(tokens), 2) if tokens else None,
        cost_per_1000=mean_cost(costs),
        memory_gib=gib,
        # A watt-hour is 3600 joules.
        wh_per_1000=round(1000 * fmean(joules) / 3600, 4) if len(joules) == len(taken) and joules else None,
    )


def _scored(
    name: str,
    task: TaskSettings,
    dataset: Ref,
    sides: Sequence[Side],
    rows: Sequence[Example],
    texts: Mapping[str, Sequence[str]],
    measured: Mapping[str, Measured],
    notes: Sequence[str],
) -> Comparison:
    # Texts are all that is known of answers that earlier reports hold; what they took is measured apart.
    wanted = [metric for metric in map(metrics.find, task.measured) if _TEXTS.issuperset(metric.reads)]
    answers = [_answered(task, rows, texts[side.ref]) for side in sides]
    pairs = []
    for side, after in zip(sides[1:], answers[1:], strict=True):
        scores = slices.tagged(report.scored(rows, answers[0], after, wanted), rows)
        found = report.intervals(rows, answers[0], after, wanted, 1 - task.gate.risk)
        pairs.append(
            Report(
                candidate=side.candidate, champion=sides[0].candidate, intervals=found, rows=tuple(scores), checks={}
            )
        )
    own = [_alone(pairs[0], before=True), *(_alone(pair, before=False) for pair in pairs)]
    found_front = _front(task, rows, answers, wanted, [measured.get(side.ref) for side in sides])
    return Comparison(
        name, task.gate.margin, dataset, tuple(sides), tuple(pairs), tuple(own), measured, found_front, tuple(notes)
    )


def _front(
    task: TaskSettings,
    rows: Sequence[Example],
    answers: Sequence[Sequence[Answered]],
    wanted: Sequence[Metric],
    measured: Sequence[Measured | None],
) -> Front:
    """By the gate's metric where texts suffice for it, else the first that they suffice for."""
    metric = next((each for each in wanted if each.name == task.gate.metric), wanted[0])
    confidence = 1 - task.gate.risk
    pairs, values = {}, [0.0] * len(answers)
    for one, other in itertools.combinations(range(len(answers)), 2):
        found = report.intervals(rows, answers[one], answers[other], [metric], confidence)
        each = (found.get("all") or next(iter(found.values())))[metric.name]
        pairs[one, other], values[one], values[other] = each, each.before, each.after
    return front(values, pairs, measured, task.gate.margin, task.gate.risk)


def _answered(task: TaskSettings, rows: Sequence[Example], texts: Sequence[str]) -> list[Answered]:
    choices = () if task.multi_label else task.classes
    return [
        Answered(answer=text, target=row.target or None, question=row.messages[-1].content, choices=choices)
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
