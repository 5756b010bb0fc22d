"""What a metric is: a row becomes sums, and sums of rows become a value."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from noria.errors import Invalid
from noria.stats.statistic import FloatArray, Statistic, mean

Sums = tuple[float, ...]
Needs = Literal["target", "context", "none"]


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer with all that a metric may read; None where it is not known.

    `answer`, `target`, `question` and `context` are texts; `choices` are the classes of a classification.
    `confidence` is the probability in [0, 1] that the answer is right, as the system itself says. `logprob` is the sum
    of the log-probabilities of the target's tokens after the question, in nats, and `target_tokens` their number.
    `cost` is in the currency of the engine's prices.
    """

    answer: str
    target: str | None = None
    question: str = ""
    context: str | None = None
    choices: tuple[str, ...] = ()
    confidence: float | None = None
    logprob: float | None = None
    target_tokens: int | None = None
    seconds: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None


FIELDS = tuple(each.name for each in fields(Answered))


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that answers have, alone or together.

    `rows` gives each answer its sufficient statistics, `statistic` makes a value of the sum of any of them. `reads`
    names the fields of `Answered` that must be known. Values lie in [low, high]. Where a number is neither good nor
    bad by itself, `higher_is_better` says which way a guarded metric may not move.
    """

    name: str
    definition: str
    source: str
    reads: tuple[str, ...]
    unit: str
    higher_is_better: bool
    statistic: Statistic
    rows: Callable[[Sequence[Answered]], Sequence[Sums]]

    @property
    def low(self) -> float:
        """The least value; minus infinity where there is none."""
        return self.statistic.low

    @property
    def high(self) -> float:
        """The greatest value; infinity where there is none."""
        return self.statistic.high

    @property
    def needs(self) -> Needs:
        """What must be known beside the answer: ground truth, the context it was given, or nothing."""
        return "target" if "target" in self.reads else "context" if "context" in self.reads else "none"

    def sums(self, answers: Sequence[Answered]) -> FloatArray:
        """Sufficient statistics, shape (answers, k). k may depend on the targets and choices of all the answers.

        Raises Invalid where something that the metric reads is not known.
        """
        self.check(answers)
        return np.asarray(self.rows(answers), np.float64).reshape(len(answers), -1)

    def each(self, answers: Sequence[Answered]) -> list[float]:
        """Value of each answer by itself."""
        return [float(value) for value in self.statistic.each(self.sums(answers))] if answers else []

    def value(self, answers: Sequence[Answered]) -> float:
        """Value of all answers together; raises ValueError where there are none."""
        if not answers:
            raise ValueError(f"{self.name} of no answers at all")
        return self.statistic.value(self.sums(answers))

    def check(self, answers: Sequence[Answered]) -> None:
        """Raise Invalid for the first answer of which something is not known that the metric reads."""
        for number, answered in enumerate(answers, 1):
            for field in self.reads:
                if getattr(answered, field) is None:
                    raise Invalid(
                        f"metric '{self.name}' needs '{field}', which is not known of row {number}: "
                        f"'{answered.question[:80]}'",
                        f"leave '{self.name}' out, or give rows with their {field}",
                    )


def by_row(sums: Callable[[Answered], Sums]) -> Callable[[Sequence[Answered]], list[Sums]]:
    """The rows of a metric whose statistics are those of each answer alone."""
    return lambda answers: [sums(answered) for answered in answers]


def mean_of(
    function: Callable[..., float],
    *,
    name: str = "",
    low: float = -math.inf,
    high: float = math.inf,
    higher_is_better: bool = True,
    unit: str = "",
    source: str = "",
) -> Metric:
    """The metric that is the mean of a plain function, whose docstring is its definition.

    The function's parameters are named after the fields of `Answered` and say by that what it needs:
    `def polite(answer: str) -> float`, `def same(answer: str, target: str) -> float`. Raises Invalid for a parameter
    of another name; a value that is no number in [low, high] is Invalid when it is met.
    """
    name = name or function.__name__
    reads = tuple(inspect.signature(function).parameters)
    if strange := [each for each in reads if each not in FIELDS]:
        raise Invalid(
            f"metric '{name}' has a parameter '{strange[0]}', which an answer does not have",
            f"name parameters after: {', '.join(FIELDS)}",
        )

    def sums(answered: Answered) -> Sums:
        value = function(*(getattr(answered, field) for field in reads))
        if isinstance(value, bool | int | float | np.number) and low <= value <= high and math.isfinite(value):
            return float(value), 1.0
        raise Invalid(
            f"metric '{name}' gave '{value}' for the answer '{answered.answer[:80]}'",
            "a metric gives a finite number" + (f" in [{low:g}, {high:g}]" if low > -math.inf else ""),
        )

    definition = " ".join((inspect.getdoc(function) or "").split())
    return Metric(name, definition, source, reads, unit, higher_is_better, mean(low, high), by_row(sums))
