"""Judges put to work: engine, rows and memory brought together, results stored, listed and taken away."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from noria.apps.recording import recorder
from noria.errors import Invalid, NotFound, Unavailable
from noria.evaluation import history, shelf
from noria.evaluation.judges import calibration as calibrating
from noria.evaluation.judges import rows as reading
from noria.evaluation.judges.bench import Bench, Judged
from noria.evaluation.judges.calibration import Calibration
from noria.evaluation.judges.judge import Judge, judge_of
from noria.evaluation.judges.rows import JudgeRow
from noria.evaluation.judges.summary import summary
from noria.ports import Engine, Platform, Progress
from noria.settings import PriceSettings
from noria.types import Feedback, Message, Ref, digest_of, new_id
from noria.wiring import local_lake

JUDGED = "judge:"
"""What stands before a judge's name in the metric of its feedback. No client can send it: it has a colon."""
KIND = "judgement"
ANSWER_TOKENS = 128
"""Most tokens of an answer that is made to be judged."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished run: where it is stored, its numbers and its rows."""

    ref: Ref
    told: dict[str, JsonValue]
    judged: list[Judged]


def judge_named(platform: Platform, name: str) -> Judge:
    """The judge of this name on its engine's present model; raises NotFound, or Unavailable where that is away."""
    settings = platform.settings.judge(name)
    engine = platform.settings.engines[settings.engine]
    return judge_of(name, settings, platform.engines[engine.kind].base(engine)[0])


@contextmanager
def bench(platform: Platform, judge: Judge, running: Callable[[], Engine] | None = None) -> Iterator[Bench]:
    """The judge ready to work. Its engine is started when something is asked that is not remembered, and closed.

    With `running` it is asked of that engine, which is left alone.
    """
    settings = platform.settings.engines[judge.settings.engine]
    memory = platform.settings.state / "judges" / f"{judge.digest}.jsonl" if judge.settings.cache else None
    with ExitStack() as stack:
        start = running or once(lambda: engine(platform, judge.settings.engine, stack))
        yield Bench(judge, start, settings.slots * settings.replicas, settings.price, memory)


@contextmanager
def comparer(platform: Platform, task: str) -> Iterator[Callable[[str, str], float] | None]:
    """What says of a prediction and the truth how surely they say the same, where the task's labels want a judge.

    A pair that the judge could not score counts as different.
    """
    rules = platform.settings.tasks[task].labels
    if rules is None or rules.comparison.judge is None:
        yield None
        return
    judge = judge_named(platform, rules.comparison.judge)
    low, high = judge.bounds
    with bench(platform, judge) as asked:
        asked.prepare()

        def same(prediction: str, truth: str) -> float:
            score = asked.one(JudgeRow(question="Do both say the same?", answer=prediction, target=truth)).score
            return 0.0 if score is None else (score - low) / (high - low)

        yield same


def engine(platform: Platform, name: str, stack: ExitStack) -> Engine:
    """A running engine with its base model, closed with the stack."""
    settings = platform.settings.engines[name]
    log = platform.settings.state / "logs" / f"judge-{name}.log"
    running = platform.engines[settings.kind].start(settings, {}, log)
    stack.callback(running.close)
    return running


def rows_to_judge(
    platform: Platform, file: Path | None, task: str | None, limit: int | None, pairs: bool
) -> tuple[list[JudgeRow], str]:
    """The rows of a file, or of a task its logged traffic; and what they are called. The newest come first."""
    if file is not None:
        return reading.read_rows(file)[:limit], file.name
    name, _ = platform.settings.task(task)
    if pairs:
        raise Invalid(
            "logged traffic has one answer a question, a pairwise judge needs two", "judge a report: --report"
        )
    interactions, _ = platform.traffic.read(platform.traffic.mark())
    return reading.from_traffic(interactions, name)[::-1][:limit], f"the traffic of '{name}'"


def rows_of_report(platform: Platform, task: str | None, pairs: bool) -> tuple[list[JudgeRow], str, Ref]:
    """The answers of a task's latest report; raises NotFound where it has none."""
    name, _ = platform.settings.task(task)
    for entry in history.entries(platform, name):
        return reading.from_report(history.read(platform, entry.ref), pairs), str(entry.ref), entry.ref
    raise NotFound(f"task '{name}' has no report", "make one: noria run report")


def answered(platform: Platform, name: str, rows: Sequence[JudgeRow], progress: Progress) -> list[JudgeRow]:
    """The rows with answers of this engine's base model where they had none, and what each took.

    They are remembered beside the rulings, so that asking again judges the same answers.
    """
    if name not in platform.settings.engines:
        raise NotFound(f"there is no engine '{name}'", f"one of: {', '.join(platform.settings.engines)}")
    settings = platform.settings.engines[name]
    by = platform.engines[settings.kind].base(settings)[0]
    memory = platform.settings.state / "judges" / f"answers-{digest_of({'by': str(by), 'most': ANSWER_TOKENS})}.jsonl"
    lines = memory.read_text().splitlines() if memory.is_file() else []
    told = dict(json.loads(line) for line in lines if line.endswith("]"))
    found = []
    with ExitStack() as stack:
        start = once(lambda: engine(platform, name, stack))
        for done, row in enumerate(rows, 1):
            if not row.answer.strip():
                if row.question not in told:
                    told[row.question] = _answer(start(), row.question, settings.price)
                    memory.parent.mkdir(parents=True, exist_ok=True)
                    with memory.open("a") as file:
                        file.write(json.dumps([row.question, told[row.question]]) + "\n")
                row = row.model_copy(update={**told[row.question], "by": str(by)})
            found.append(row)
            progress.update(f"{name} answers", done, len(rows))
    return found


def _answer(running: Engine, question: str, price: PriceSettings) -> dict[str, Any]:
    began = time.monotonic()
    said = running.answer([Message(role="user", content=question)], None, ANSWER_TOKENS, ())
    prompt, completion = said.prompt_tokens or 0, said.completion_tokens or 0
    return {
        "answer": said.text.strip(), "seconds": round(time.monotonic() - began, 4), "tokens": prompt + completion,
        "cost": (prompt * price.prompt + completion * price.completion) / 1e6,
    }  # fmt: skip


def run(
    platform: Platform, judge: Judge, rows: Sequence[JudgeRow], where: str, parents: Sequence[Ref], progress: Progress
) -> Ran:
    """Judge rows and store what came of it; raises as `Bench.rule`."""
    began = time.monotonic()
    with bench(platform, judge) as at_work:
        judged = at_work.rule(rows, progress, where)
        steps = at_work.steps
    told = summary(judge, judged, calibration_of(platform, judge))
    told |= {"of": where, "at": platform.clock.now().isoformat(), "wall_seconds": round(time.monotonic() - began, 3)}
    if steps:
        told["steps"] = [*steps]
    files = {"summary.json": json.dumps(told, indent=1, ensure_ascii=False)}
    files["judged.jsonl"] = "".join(each.model_dump_json() + "\n" for each in judged)
    key = digest_of({"stage": KIND, "judge": judge.digest, "at": told["at"]})
    meta = {**told, "judge": judge.name}
    ref = shelf.keep(platform, KIND, judge.name, key, files, meta, parents=parents)
    return Ran(ref, told, judged)


def calibrate(platform: Platform, judge: Judge, file: Path, progress: Progress) -> tuple[Ref, Calibration]:
    """Hold the judge against the labels of a file; what it says is corrected by them from then on.

    The labelled rows are judged twice, the second time with rubric and examples in reverse order: a judge that answers
    otherwise then is not steady. Raises as `read_labels`, `Bench.rule` and `calibrate`.
    """
    labels = reading.read_labels(file)
    rows = calibrating.rows_of(labels)
    with bench(platform, judge) as at_work:
        judged = at_work.rule(rows, progress, file.name)
    with bench(platform, replace(judge, reverse=True)) as at_work:
        again = at_work.rule(rows, progress, file.name)
    found = calibrating.calibrate(judge, labels, judged, again)
    files = {"calibration.json": found.model_dump_json(indent=1)}
    files["judged.jsonl"] = "".join(each.model_dump_json() + "\n" for each in judged)
    key = _calibration_key(judge)
    return shelf.keep(platform, "calibration", judge.name, key, files, found.told()), found


def calibration_of(platform: Platform, judge: Judge) -> Calibration | None:
    """The latest calibration of exactly this judge; none where its wording or its model has changed since."""
    made = platform.runs.find(_calibration_key(judge))
    if made is None or not platform.lake.has(made.ref):
        return None
    return Calibration.model_validate_json((platform.lake.path(made.ref) / "calibration.json").read_text())


def known(platform: Platform, name: str) -> dict[str, Any]:
    """What is known of a judge; one whose engine is away has neither model nor digest."""
    told = {"judge": name, "method": platform.settings.judge(name).method, "labels": 0, "faults": {}}
    try:
        judge = judge_named(platform, name)
    except Unavailable as error:
        return {**told, "model": "", "digest": "", "error": error.fact}
    told |= {"model": str(judge.model), "digest": judge.digest}
    if calibration := calibration_of(platform, judge):
        told |= {"labels": calibration.labels, "faults": calibration.faults}
    return told


def tell_traffic(platform: Platform, judge: Judge, judged: Sequence[Judged]) -> int:
    """Note scores of logged answers as feedback on them, from 0 to 1; returns how many.

    The metric is `judge:NAME`. An answer that has such a note by this very judge gets no second one.
    """
    low, high = judge.bounds
    metric, user = f"{JUDGED}{judge.name}", judge.digest
    _, said = platform.traffic.read(platform.traffic.mark())
    noted = {note.interaction for note in said if note.metric == metric and note.user == user}
    fresh = [each for each in judged if each.score is not None and each.row.id not in noted]
    with recorder(platform) as log:
        for each in fresh:
            now = platform.clock.now()
            value = ((each.score or 0.0) - low) / (high - low)
            note = Feedback(
                id=new_id(now), at=now, interaction=each.row.id, metric=metric, value=value, correction=None, user=user
            )
            log.append(note.model_dump_json().encode())
    return len(fresh)


def stored(platform: Platform, name: str | None = None) -> list[tuple[Ref, dict[str, Any]]]:
    """What was judged, newest first: by one judge, or by all."""
    found = []
    for file in (local_lake(platform.settings) / KIND).glob(f"{name or '*'}/*/summary.json"):
        ref = Ref(kind=KIND, name=file.parent.parent.name, digest=file.parent.name)
        found.append((ref, json.loads(file.read_text())))
    return sorted(found, key=lambda each: str(each[1]["at"]), reverse=True)


def shown(platform: Platform, text: str) -> tuple[dict[str, Any], list[Judged]]:
    """Numbers and rows of a stored run by its ref; raises Invalid or NotFound."""
    folder = platform.lake.path(_ref(text))
    lines = (folder / "judged.jsonl").read_text().splitlines()
    return json.loads((folder / "summary.json").read_text()), [Judged.model_validate_json(line) for line in lines]


def remove(platform: Platform, text: str) -> Ref:
    """Take a stored run away; raises Invalid or NotFound."""
    ref = _ref(text)
    shutil.rmtree(platform.lake.path(ref))
    return ref


def _ref(text: str) -> Ref:
    try:
        ref = Ref.parse(text)
    except ValueError as error:
        raise Invalid(str(error), "such as judgement:quality@0123456789abcdef") from error
    if ref.kind != KIND:
        raise Invalid(f"'{text}' is not a {KIND}", "list them: noria judge list")
    return ref


def _calibration_key(judge: Judge) -> str:
    return digest_of({"stage": "calibration", "judge": judge.digest})


def once(start: Callable[[], Engine]) -> Callable[[], Engine]:
    """The engine of the first call, for every thread."""
    lock, running = threading.Lock(), list[Engine]()

    def get() -> Engine:
        with lock:
            if not running:
                running.append(start())
            return running[0]

    return get
