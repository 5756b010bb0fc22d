"""Where a recipe tries words: on rows that it may learn from, through the task's engine, by the gate's metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from noria import prompts
from noria.evaluation import metrics
from noria.evaluation.answers import Examiner
from noria.evaluation.metrics import Metric
from noria.stage import Work
from noria.types import Candidate, Example, Message, Wording

PROPOSAL = 200
"""Most tokens of a proposed text."""


@dataclass(frozen=True, slots=True)
class Bench:
    """An open engine with the task's metric. What was asked once is not asked again."""

    examiner: Examiner
    candidate: Candidate
    metric: Metric
    work: Work

    def value(self, wording: Wording | None, rows: Sequence[Example], label: str) -> float:
        """The metric of the answers to these rows with this wording before them, such that more is better."""
        self.examiner.wording = wording
        reads = "logprob" in self.metric.reads
        answered = self.examiner.answered(self.candidate, rows, self.work.progress, label, likelihood=reads)
        return self.told(self.metric.value(answered))

    def told(self, value: float) -> float:
        """The metric itself, of what `value` gave: the other way round again where less is better."""
        return value if self.metric.higher_is_better else -value

    def ask(self, messages: Sequence[Message]) -> str:
        """The engine's own answer to messages as they are."""
        return self.examiner.engine().answer(messages, None, PROPOSAL, [prompts.STOP]).text


@contextmanager
def bench(work: Work) -> Iterator[Bench]:
    """Open the task's engine without any adapter; raises what engines raise."""
    settings = work.platform.settings
    engine = settings.engines[work.task.engine]
    base, quantization = work.platform.engines[engine.kind].base(engine)
    candidate = Candidate(
        task=work.name, base=base, adapter=None, engine=work.task.engine, quantization=quantization,
        prompt=prompts.definition(work.task.system),
    )  # fmt: skip
    log = settings.state / "logs" / "search.log"
    with Examiner(work.platform, work.task, [], log) as examiner:
        yield Bench(examiner, candidate, metrics.find(work.task.gate.metric), work)
