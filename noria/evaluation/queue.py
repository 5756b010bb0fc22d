"""The labelling queue: which answers people are asked to label, each with a chance that is fixed when it is drawn."""

from __future__ import annotations

import fcntl
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Literal

from pydantic import JsonValue

from noria.errors import Invalid
from noria.evaluation import shelf
from noria.evaluation.metrics import token_f1
from noria.ports import Platform
from noria.settings import LabelSettings, TaskSettings
from noria.stats import trust
from noria.stats.lots import drawn
from noria.stats.sampling import proportional
from noria.types import Artifact, Feedback, Interaction, Record, digest_of

LATE = timedelta(hours=1)
"""An answer that is logged later than this, and twice the gateway's deadline, after it was asked for is left out."""
JUDGE = "judge"
"""What the metrics of judges begin with."""
SHADOW_OF = "shadow_of"

Reason = Literal["first", "confirm", "random", "uncertain", "disagree"]


class Wanted(Record):
    """An answer that people are asked to label: the chance with which it was drawn, in (0, 1], and why it was."""

    id: str
    probability: float
    reason: Reason


class Batch(Record):
    """What one run of `choose` considered and drew; each answer is considered once.

    `until` is when it ran, `considered` how many answers it looked at, `before` how many the earlier batches did, and
    `reachable` how many had any chance to be drawn: labels say nothing of the others.
    """

    number: int
    until: datetime
    considered: int
    reachable: int
    before: int
    rows: tuple[Wanted, ...]

    def told(self) -> dict[str, JsonValue]:
        """As JSON, without the rows."""
        reasons = Counter(row.reason for row in self.rows)
        return {
            "batch": self.number, "until": self.until.isoformat(), "considered": self.considered,
            "reachable": self.reachable, "wanted": len(self.rows), "reasons": dict(sorted(reasons.items())),
        }  # fmt: skip


def choose(platform: Platform, name: str) -> Batch | None:
    """Draw answers of a task that nobody has considered yet into its queue; None where there are no new ones.

    Each answer is drawn independently (`noria.stats.sampling`) with a chance that [tasks.X.labels] and what is known
    of it now give. What was drawn appears as a whole or not at all, and a second run considers none of it again, so
    that it may be killed and repeated at will. Raises Invalid for a task without labels.
    """
    task = platform.settings.task(name)[1]
    rules_of(platform, name)
    with alone(platform, name):
        earlier = batches(platform, name)
        last = earlier[-1] if earlier else None
        until = platform.clock.now()
        interactions, feedback = platform.traffic.read(platform.traffic.mark())
        slack = LATE + timedelta(seconds=2 * platform.settings.gateway.deadline)
        recent = _recent(platform, name, last)
        fresh = [
            each
            for each in eligible(interactions, name, task)
            if last is None or (each.at >= last.until - slack and each.id not in recent)
        ]
        if not fresh:
            return None
        before = last.before + last.considered if last else 0
        since = last.until if last else fresh[0].at
        days = max(until - since, timedelta(seconds=1)) / timedelta(days=1)
        shadows = [each for each in interactions if _shadow(each, task)]
        rows, reachable = draw(fresh, _doubts(fresh), _quarrels(fresh, shadows, feedback), task, before, days)
        batch = Batch(
            number=last.number + 1 if last else 0, until=until, considered=len(fresh), reachable=reachable,
            before=before, rows=tuple(rows),
        )  # fmt: skip
        times = recent | {each.id: each.at for each in fresh}
        _store(platform, name, batch, {identity: at for identity, at in times.items() if at >= until - slack})
        return batch


def batches(platform: Platform, name: str) -> list[Batch]:
    """All batches of a task, oldest first."""
    return [
        Batch.model_validate_json((platform.lake.path(made.ref) / "batch.json").read_text())
        for made in _made(platform, name)
    ]


def rules_of(platform: Platform, name: str) -> LabelSettings:
    """The task's [tasks.X.labels]; raises Invalid where it has none."""
    rules = platform.settings.task(name)[1].labels
    if rules is None:
        raise Invalid(
            f"task '{name}' asks nobody for labels", f"add [tasks.{name}.labels]",
            where=platform.settings.place("tasks", name),
        )  # fmt: skip
    return rules


def eligible(interactions: Iterable[Interaction], name: str, task: TaskSettings) -> Iterator[Interaction]:
    """The answers that labels are about: given to somebody, kept as text and, where the task says so, not private."""
    private = task.labels is not None and task.labels.private
    for each in interactions:
        given = each.task == name and each.status == 200 and each.messages and each.answer.strip()
        if given and not _shadow(each, task) and (each.trainable or private):
            yield each


def draw(
    fresh: Sequence[Interaction], doubts: Sequence[float], quarrels: Sequence[float], task: TaskSettings, before: int,
    days: float,
) -> tuple[list[Wanted], int]:  # fmt: skip
    """The answers that are drawn of `fresh`, which are in order of time, and how many had any chance to be.

    Args:
        fresh: answers that were not considered before.
        doubts: how doubtful each is, from 0 on.
        quarrels: how much is disagreed on each, from 0 on.
        task: with labels; where it has lights, the green answers whose users were asked to confirm are drawn as well.
        before: how many answers were considered before these.
        days: over which these came.
    """
    rules = task.labels or LabelSettings()
    uncertain = proportional(doubts, rules.uncertain * len(fresh))
    disagree = proportional(quarrels, rules.disagree * len(fresh))
    tail = range(max(0, rules.first - before), len(fresh))
    expected = sum(min(1.0, rules.share + uncertain[place] + disagree[place]) for place in tail)
    scale = 1.0 if rules.per_day is None or not expected else min(1.0, rules.per_day * days / expected)
    found: list[Wanted] = []
    reachable = 0
    for place, each in enumerate(fresh):
        if before + place < rules.first:
            found.append(Wanted(id=each.id, probability=1.0, reason="first"))
            reachable += 1
            continue
        # One number decides: each reason has a stretch of its own, so that the shares add up.
        parts: list[tuple[Reason, float]] = [
            ("random", rules.share), ("uncertain", uncertain[place]), ("disagree", disagree[place]),
        ]  # fmt: skip
        ends = [scale * min(1.0, end) for end in itertools.accumulate(part for _, part in parts)]
        # The same draw as the gateway's: of those whose users were asked to confirm.
        confirm = task.lights.confirm if task.lights is not None and each.light == "green" else 0.0
        chance = ends[-1] + confirm * (1 - ends[-1])
        reachable += chance > 0
        at = drawn("label", each.id)
        reason = next((reason for (reason, _), end in zip(parts, ends, strict=True) if at < end), None)
        if drawn("confirm", each.id) < confirm:
            reason = "confirm"
        if reason is not None:
            found.append(Wanted(id=each.id, probability=chance, reason=reason))
    return found, reachable


@contextmanager
def alone(platform: Platform, name: str) -> Iterator[None]:
    """Hold the task's lock on labels; others wait."""
    folder = platform.settings.state / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"labels-{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _shadow(each: Interaction, task: TaskSettings) -> bool:
    """Whether this is a shadow's copy; what a client calls so itself was answered by an arm that answers clients."""
    answering = {
        "champion",
        "challenger",
        "control",
        "fallback",
        *(arm for arm, rules in task.arms.items() if not rules.shadow),
    }
    return SHADOW_OF in each.request and each.arm not in answering


def _doubts(fresh: Sequence[Interaction]) -> list[float]:
    """One less the score of the lights ("least confident"; Settles, "Active Learning Literature Survey", 2009).

    Where there is no score, the mean of the others: what is not known tells nothing.
    """
    scores = [trust.score(each.logprob, each.support, each.findings) for each in fresh]
    known = [1 - score for score in scores if score is not None]
    middle = sum(known) / len(known) if known else 1.0
    return [middle if score is None else 1 - score for score in scores]


def _quarrels(
    fresh: Sequence[Interaction], shadows: Iterable[Interaction], feedback: Iterable[Feedback]
) -> list[float]:
    """How far shadows answered otherwise (one less token F1), or how far judges are apart on a scale of 0 to 1."""
    answers = {each.id: each.answer for each in fresh}
    found = dict.fromkeys(answers, 0.0)
    for each in shadows:
        of = str(each.request.get(SHADOW_OF, ""))
        if of in answers and each.status == 200:
            found[of] = max(found[of], 1 - token_f1(each.answer, answers[of]))
    judged: dict[str, dict[str, float]] = {}
    for note in feedback:
        if note.metric.startswith(JUDGE) and note.value is not None and note.interaction in answers:
            judged.setdefault(note.metric, {})[note.interaction] = note.value
    sides: dict[str, list[float]] = {}
    for scores in judged.values():
        low, high = min(scores.values()), max(scores.values())
        for identity, score in scores.items():
            sides.setdefault(identity, []).append((score - low) / (high - low) if high > low else 0.5)
    for identity, each_side in sides.items():
        found[identity] = max(found[identity], max(each_side) - min(each_side))
    return [found[each.id] for each in fresh]


def _key(name: str, number: int) -> str:
    return digest_of({"stage": "labels", "task": name, "batch": number})


def _made(platform: Platform, name: str) -> Iterator[Artifact]:
    for number in itertools.count():
        made = platform.runs.find(_key(name, number))
        if made is None:
            return
        yield made


def _recent(platform: Platform, name: str, last: Batch | None) -> dict[str, datetime]:
    """Answers considered so far that are young enough for others of their age to be logged still."""
    if last is None:
        return {}
    made = platform.runs.find(_key(name, last.number))
    text = (platform.lake.path(made.ref) / "recent.json").read_text() if made else "{}"
    return {identity: datetime.fromisoformat(at) for identity, at in json.loads(text).items()}


def _store(platform: Platform, name: str, batch: Batch, recent: dict[str, datetime]) -> None:
    times = json.dumps({each: at.isoformat() for each, at in sorted(recent.items())})
    files = {"batch.json": batch.model_dump_json(indent=1), "recent.json": times}
    shelf.keep(platform, "labels", name, _key(name, batch.number), files, batch.told(), task=name, at=batch.until)
