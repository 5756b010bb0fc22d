"""What is known of a trial: the records of its two slices, read as they come in, paired in order of arrival."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from pydantic import JsonValue

from noria.deployment.slices import CHALLENGER, CONTROL, Trial
from noria.deployment.trial import Observed
from noria.settings import TaskSettings
from noria.types import Feedback, Interaction

SAID = ("thumbs", "correct", "correction")
"""Metrics of feedback that say whether an answer is right; a correction alone says that it is not."""
JUDGED = "judge:"
"""What stands before a judge's name where it gives its score, in [0, 1], as feedback; no client may write a colon."""
LIGHTS = {"green": 1.0, "yellow": 0.5, "red": 0.0}
SETTLE = timedelta(seconds=2)
"""How late a record may show up and still be put in its place."""
LATEST = 1000
"""Answers whose time makes the 95th percentile."""
REMEMBERED = 100_000
"""Answers whose feedback is waited for, the newest ones."""
MOST_PAIRS = 200_000
"""Pairs of a metric that are kept; what comes after does not count."""


@dataclass(slots=True)
class _Slice:
    """One of the two slices."""

    served_by: str
    requests: int = 0
    errors: int = 0
    milliseconds: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))
    who: set[str] = field(default_factory=set)
    waiting: dict[str, deque[float]] = field(default_factory=dict)
    """By metric: scores that have no partner yet."""

    def p95(self) -> float | None:
        """95th percentile by nearest rank."""
        ranked = sorted(self.milliseconds)
        return ranked[math.ceil(0.95 * len(ranked)) - 1] if ranked else None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What later feedback must know of an answer: its slice, whose it was, and a hash of its text."""

    side: int
    who: str
    text: int | None


class Evidence:
    """The evidence of one trial since it began. Call `read` again and again; what was paired once stays as it is.

    A score is taken in the order of its arrival: those of the answer itself when it ended, that of feedback when it
    was given. Of everybody (a user, or a conversation, as `sticky` says) the first score of each metric counts: what
    one user says of many answers is not independent, and the bounds that decide want independent scores.
    """

    def __init__(
        self, records: Callable[[], Iterator[Interaction | Feedback]], trial: Trial, task: TaskSettings
    ) -> None:
        """`records` gives what is new with each call (`ports.Traffic.follow`)."""
        self._records = records
        self._by_user = task.sticky == "user"
        self._slowest = task.release.max_p95_ms
        self._slices = _Slice(str(trial.challenger.ref)), _Slice(str(trial.control.ref))
        self._sides = {CHALLENGER: 0, CONTROL: 1}
        self._arrived: list[tuple[datetime, str, Interaction | Feedback]] = []
        self._answers: dict[str, _Answer] = {}
        self._counted: set[tuple[str, str]] = set()
        self._pairs: dict[str, list[tuple[float, float]]] = {}

    def read(self, now: datetime) -> bool:
        """Take in what has come in since and is old enough to have its place; whether there was anything."""
        for record in self._records():
            if isinstance(record, Feedback) or self._side(record) is not None:
                heapq.heappush(self._arrived, (_arrival(record), record.id, _without_texts(record)))
        any_new = False
        while self._arrived and self._arrived[0][0] <= now - SETTLE:
            record = heapq.heappop(self._arrived)[2]
            any_new = (self._hear(record) if isinstance(record, Feedback) else self._take(record)) or any_new
        return any_new

    @property
    def seen(self) -> Observed:
        """What the two slices did so far."""
        one, other = self._slices
        return Observed(
            pairs=self._pairs,
            requests=(one.requests, other.requests),
            errors=(one.errors, other.errors),
            p95_ms=(one.p95(), other.p95()),
        )

    def told(self) -> dict[str, JsonValue]:
        """The same in numbers, as JSON: by slice, and the means of the pairs by metric."""
        slices: dict[str, JsonValue] = {
            name: {
                "served_by": each.served_by, "requests": each.requests, "errors": each.errors, "p95_ms": each.p95(),
                "users" if self._by_user else "conversations": len(each.who),
            }
            for name, each in zip(self._sides, self._slices, strict=True)
        }  # fmt: skip
        metrics: dict[str, JsonValue] = {
            name: {
                "pairs": len(pairs), "challenger": sum(one for one, _ in pairs) / len(pairs),
                "control": sum(other for _, other in pairs) / len(pairs),
            }
            for name, pairs in sorted(self._pairs.items())
        }  # fmt: skip
        return {"slices": slices, "metrics": metrics}

    def _side(self, record: Interaction) -> int | None:
        side = self._sides.get(record.arm)
        return side if side is not None and record.served_by == self._slices[side].served_by else None

    def _take(self, record: Interaction) -> bool:
        """Count an answer. One that was refused as the client's fault, or that the client left, says nothing."""
        failed = record.status >= 500
        side = self._side(record)
        if side is None or (record.status != 200 and not failed):
            return False
        here = self._slices[side]
        who = record.user if self._by_user else record.conversation
        here.requests += 1
        here.errors += failed
        here.who.add(who)
        self._answers[record.id] = _Answer(side, who, _hashed(record.answer))
        if len(self._answers) > REMEMBERED:
            del self._answers[next(islice(self._answers, 1))]
        self._score(side, who, "error", 0.0 if failed else 1.0)
        if not failed:
            milliseconds = 1000 * record.seconds
            here.milliseconds.append(milliseconds)
            self._score(side, who, "latency", 1.0 - min(1.0, milliseconds / self._slowest))
            if record.light in LIGHTS:
                self._score(side, who, "light", LIGHTS[record.light])
        return True

    def _hear(self, said: Feedback) -> bool:
        answer = self._answers.get(said.interaction)
        if answer is None:
            return False
        if said.metric in SAID:
            score = _liked(said, answer)
            if score is not None:
                self._score(answer.side, answer.who, "feedback", score)
            return score is not None
        if said.metric.startswith(JUDGED) and said.value is not None and 0.0 <= said.value <= 1.0:
            self._score(answer.side, answer.who, said.metric, said.value)
            return True
        return False

    def _score(self, side: int, who: str, metric: str, value: float) -> None:
        pairs = self._pairs.get(metric, [])
        if (who, metric) in self._counted or len(pairs) >= MOST_PAIRS:
            return
        self._counted.add((who, metric))
        for each in self._slices:
            each.waiting.setdefault(metric, deque())
        self._slices[side].waiting[metric].append(value)
        one, other = (each.waiting[metric] for each in self._slices)
        if one and other:
            self._pairs.setdefault(metric, pairs).append((one.popleft(), other.popleft()))


def _arrival(record: Interaction | Feedback) -> datetime:
    """When a record's score was there."""
    return record.at if isinstance(record, Feedback) else record.at + timedelta(seconds=record.seconds)


def _without_texts(record: Interaction | Feedback) -> Interaction | Feedback:
    """What waits is many records; conversations may be long."""
    if isinstance(record, Feedback):
        return record
    return record.model_copy(update={"messages": (), "request": {}, "context": None, "output": None})


def _liked(said: Feedback, answer: _Answer) -> float | None:
    """Whether feedback says that an answer is right: a correction before all else, unless it says the same."""
    if said.correction and said.correction.strip():
        return float(answer.text is not None and _hashed(said.correction) == answer.text)
    return None if said.value is None else min(1.0, max(0.0, said.value))


def _hashed(text: str) -> int | None:
    words = " ".join(text.split()).casefold()
    return hash(words) if words else None
