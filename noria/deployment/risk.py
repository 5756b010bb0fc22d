"""What a task may still risk: its decisions so far, and the level of the next one."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import JsonValue

from noria.ports import Platform
from noria.stats import budget
from noria.stats.budget import Spent
from noria.types import Decision

MANY = 100_000


def spending(level: float, passed: bool, on: str) -> dict[str, JsonValue]:
    """What the evidence of a decision says of its spending; `on` names what was decided on, such as a report's ref."""
    return {"level": level, "passed": passed, "on": on}


def spent(decisions: Iterable[Decision]) -> dict[str, Spent]:
    """What decisions have spent, by what each was on, in their order. To decide on the same again costs nothing."""
    found: dict[str, Spent] = {}
    for each in decisions:
        told = each.evidence.get("spent")
        if isinstance(told, dict):
            found.setdefault(str(told["on"]), Spent(float(str(told["level"])), told["passed"] is True))
    return found


def level(risk: float, before: dict[str, Spent], on: str) -> float:
    """The level of a decision on `on`: the one that it had, where it was decided on before."""
    return before[on].level if on in before else budget.level(risk, list(before.values()))


def decisions(platform: Platform, name: str) -> list[Decision]:
    """What the gate has decided on a task, in order: by its cycles, and on real traffic."""
    found = []
    for _, runs in platform.runs.cycles(name, MANY):
        for run in runs:
            made = platform.runs.artifact(run.output) if run.stage == "release" else None
            if made is not None:
                told = {key: value for key, value in made.meta.items() if key in Decision.model_fields}
                found.append((run.at, Decision.model_validate(told)))
    found += [(each.at, each.decision) for each in platform.deployments.history(name, MANY) if not each.cycle]
    return [decision for _, decision in sorted(found, key=lambda each: each[0])]


def left(risk: float, before: dict[str, Spent]) -> float:
    """What the task may still risk in all."""
    return budget.left(risk, list(before.values()))
