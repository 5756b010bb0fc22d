"""What a task may still risk: its decisions so far, and the level of the next one.

There are two budgets of `gate.risk` each: one for promotions, by the gate or by a canary, and one for what trials take
back. Both are derived from what the ledger keeps; nothing else has to be stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from noria.deployment.slices import Trial, trial_of
from noria.ports import Platform
from noria.stats import budget
from noria.stats.budget import Spent

MANY: Final = 100_000


def of_report(platform: Platform, name: str, on: str) -> float:
    """Level at which the gate decides on a report; on one that it has decided on before, the same as then."""
    risk = platform.settings.tasks[name].gate.risk
    return level(risk, promotions(platform, name), on)


def of_trial(platform: Platform, name: str, trial: Trial) -> tuple[float, float]:
    """Levels at which a trial may promote its challenger, and take it back."""
    risk = platform.settings.tasks[name].gate.risk
    phase = f"{trial.id}:{'canary' if trial.canary else 'watch'}"
    return level(risk, promotions(platform, name), trial.id), level(risk, rollbacks(platform, name), phase)


def level(risk: float, before: Mapping[str, Spent], on: str) -> float:
    """The level of a decision on `on`: the one that it has already, or that of the next decision."""
    return before[on].level if on in before else budget.level(risk, list(before.values()))


def left(risk: float, before: Mapping[str, Spent]) -> float:
    """What may still be risked in all."""
    return budget.left(risk, list(before.values()))


def promotions(platform: Platform, name: str) -> dict[str, Spent]:
    """What decisions on promotions have spent, in order: by the report or the trial that each was on."""
    found: list[tuple[datetime, str, Spent | None, bool]] = []
    for _, runs in platform.runs.cycles(name, MANY):
        for run in runs:
            made = platform.runs.artifact(run.output) if run.stage == "release" else None
            spent = _spent(made.meta.get("evidence")) if made is not None else None
            if spent is not None:
                found.append((run.at, spent[0], spent[1], spent[1].acted))
    for identity, (began, canary, verdicts) in _trials(platform, name).items():
        if canary:
            found.append((began, identity.removesuffix(":canary"), None, "promote" in verdicts))
    return _levels(platform.settings.tasks[name].gate.risk, found)


def rollbacks(platform: Platform, name: str) -> dict[str, Spent]:
    """What trials have spent on taking back what they tried, in order, by trial and phase."""
    found = [
        (began, identity, None, "refuse" in verdicts)
        for identity, (began, _, verdicts) in _trials(platform, name).items()
    ]
    return _levels(platform.settings.tasks[name].gate.risk, found)


def _levels(risk: float, found: Sequence[tuple[datetime, str, Spent | None, bool]]) -> dict[str, Spent]:
    spent: dict[str, Spent] = {}
    for _, on, known, acted in sorted(found, key=lambda each: each[0]):
        if on not in spent:
            spent[on] = known or Spent(budget.level(risk, list(spent.values())), acted)
    return spent


def _trials(platform: Platform, name: str) -> dict[str, tuple[datetime, bool, set[str]]]:
    """By trial and phase: when it began, whether it is the canary, and the verdicts it came to by itself."""
    found: dict[str, tuple[datetime, bool, set[str]]] = {}
    for release in reversed(platform.deployments.history(name, MANY)):
        told = release.decision.evidence
        if (ended := f"{told.get('trial')}:{told.get('phase')}") in found:
            found[ended][2].add(release.decision.verdict)
        if (trial := trial_of(release)) is not None:
            phase = f"{trial.id}:{'canary' if trial.canary else 'watch'}"
            found.setdefault(phase, (trial.began, trial.canary, set()))
    return found


def _spent(evidence: object) -> tuple[str, Spent] | None:
    told = evidence.get("spent") if isinstance(evidence, Mapping) else None
    if not isinstance(told, Mapping):
        return None
    return str(told["on"]), Spent(float(told["level"]), told["acted"] is True)
