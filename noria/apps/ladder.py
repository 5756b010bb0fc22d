"""`noria doctor --ladder`: how far an installation has come, from 0 to 10, by what can be seen of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from noria.evaluation.lights import labelled
from noria.ports import Platform
from noria.settings import LimitSettings
from noria.types import Deployment, Feedback, Interaction

REGULAR = 3
"""Cycles of the last month that count as turning by itself."""
MONTH = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is looked at: the project, its traffic, and its releases."""

    platform: Platform
    interactions: list[Interaction]
    feedback: list[Feedback]
    releases: list[Deployment]


@dataclass(frozen=True, slots=True)
class Rung:
    """One step: what it takes beyond all the steps below, whether that is there, and what to do for it."""

    number: int
    name: str
    reached: bool
    hint: str


def climb(platform: Platform) -> list[Rung]:
    """All ten rungs from the lowest; one counts as reached only where all those below it are."""
    interactions, feedback = platform.traffic.read(platform.traffic.mark())
    releases = [each for name in platform.settings.tasks for each in platform.deployments.history(name, 1000)]
    seen = Seen(platform, interactions, feedback, releases)
    rungs, below = [], True
    for number, (name, look, hint) in enumerate(_RUNGS, 1):
        below = below and look(seen)
        rungs.append(Rung(number, name, below, hint))
    return rungs


def height(rungs: list[Rung]) -> int:
    """The highest rung that is reached; 0 for none."""
    return sum(each.reached for each in rungs)


def _turned(seen: Seen) -> bool:
    return any(cycle.verdict is not None for cycle, _ in seen.platform.runs.cycles(None, 1000))


def _measured(seen: Seen) -> bool:
    return any(run.stage == "report" for _, runs in seen.platform.runs.cycles(None, 1000) for run in runs)


def _gated(seen: Seen) -> bool:
    return any(each.actor in ("cycle", "canary") for each in seen.releases)


def _guarded(seen: Seen) -> bool:
    limited = seen.platform.settings.gateway.limits != LimitSettings()
    return limited and all(task.guards.input or task.guards.output for task in seen.platform.settings.tasks.values())


def _labelled(seen: Seen) -> bool:
    return bool(labelled(seen.interactions, seen.feedback))


def _lit(seen: Seen) -> bool:
    return any(each.light in ("green", "yellow", "red") for each in seen.interactions)


def _proven(seen: Seen) -> bool:
    tasks = seen.platform.settings.tasks.values()
    return all(task.release.canary > 0 and task.release.control > 0 for task in tasks)


def _regular(seen: Seen) -> bool:
    since = seen.platform.clock.now() - MONTH
    recent = [cycle for cycle, _ in seen.platform.runs.cycles(None, 1000) if cycle.began >= since and cycle.verdict]
    return len(recent) >= REGULAR


_RUNGS: tuple[tuple[str, Callable[[Seen], bool], str], ...] = (
    ("it answers, and what it answers is logged", lambda seen: bool(seen.interactions), "noria up, then noria chat"),
    ("one command makes a model of the data", _turned, "noria run"),
    ("what is made is measured on sealed rows", _measured, "noria run"),
    ("what serves was promoted on evidence", _gated, "noria run, until a candidate is better"),
    ("what people say of answers comes back", lambda seen: bool(seen.feedback), "POST /v1/feedback"),
    ("callers are limited, texts are guarded", _guarded, "[gateway] limits and [tasks.NAME.guards]"),
    ("it is known which answers are right", _labelled, "noria labels next"),
    ("each answer says how far it can be trusted", _lit, "[tasks.NAME.lights], noria lights calibrate"),
    ("a candidate proves itself on real traffic", _proven, "[tasks.NAME.release] canary and control"),
    ("it turns by itself", _regular, "let cron call noria run: three cycles in a month"),
)


def told(rungs: list[Rung]) -> Iterator[list[str]]:
    """The rungs as rows of a table, with what to do for the next one."""
    next_ = height(rungs) + 1
    for each in rungs:
        yield [
            str(each.number),
            "reached" if each.reached else "",
            each.name,
            each.hint if each.number == next_ else "",
        ]
