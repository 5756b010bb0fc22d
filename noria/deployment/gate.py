"""The offline gate: a pure function from a report to promote, refuse or inconclusive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from noria.settings import GateSettings
from noria.stats.bounds import lower, rows_to_decide
from noria.types import Decision, Interval, Report, Scored, Verdict

PARITY = 0.95
"""Least share of sampled prefixes on which trainer and engine must agree on the next token."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that must be shown: that a gain, in the better direction, lies above `null` at the gate's level."""

    what: str
    interval: Interval
    null: float
    level: float

    @property
    def gain(self) -> float:
        """More is better."""
        return self.interval.gain if self.interval.higher_is_better else -self.interval.gain

    @property
    def floor(self) -> float:
        """What the gain certainly is above, at the level."""
        each = self.interval
        if each.error is None:
            return each.low if each.higher_is_better else -each.high
        return lower(self.gain, each.error, each.clusters, self.level)

    @property
    def shown(self) -> bool:
        """Whether the rows show it."""
        return self.floor > self.null

    @property
    def refuted(self) -> bool:
        """Whether the rows speak against it: the gain as it was measured is not above what has to be shown."""
        return self.gain <= self.null

    def told(self) -> dict[str, JsonValue]:
        """As JSON; `certifies` is the smallest margin that these rows could certify, 0 where they show a gain."""
        each = self.interval
        more = rows_to_decide(self.gain - self.null, each.error or 0.0, each.clusters, each.rows, self.level)
        floor = round(self.floor, 6) if math.isfinite(self.floor) else None
        return {
            "gain": self.gain, "null": self.null, "floor": floor, "rows": each.rows, "shown": self.shown,
            "certifies": None if floor is None else max(0.0, -floor), "rows_to_decide": None if self.shown else more,
        }  # fmt: skip


def decide(report: Report, gate: GateSettings, level: float, required: Mapping[str, Scored] | None = None) -> Decision:
    """Promote only what reaches the goal and is not worse elsewhere, as far as the rows can tell.

    Everything that has to be shown is shown at `level`, each for itself: all of it together is then wrong with a chance
    of `level` at most (an intersection-union test; Berger, "Multiparameter Hypothesis Testing and Acceptance Sampling",
    1982). A slice of fewer than `min_rows` rows is told in the evidence and not judged.

    Args:
        report: of candidate and champion on the same sealed rows.
        gate: the task's rule.
        level: the share of the task's error budget that this decision may spend (`noria.stats.budget`).
        required: what outside harnesses found of the candidate, by name.
    """
    overall = report.intervals.get("all", {})
    mine = overall.get(gate.metric)
    if fault := _not_servable(report):
        return _decision("refuse", fault, report, gate, level, [])
    if mine is None or mine.rows < gate.min_rows:
        rows = mine.rows if mine else 0
        because = f"{rows} sealed rows are fewer than min_rows = {gate.min_rows}"
        return _decision("inconclusive", because, report, gate, level, [])
    goals, guards = _goals(report, gate, level), _guards(report, gate, level)
    verdict, because = _judged(goals, guards)
    if verdict == "promote" and (lacking := _lacking(report, gate, required or {})):
        verdict, because = lacking
    return _decision(verdict, because, report, gate, level, [*goals, *guards])


def _judged(goals: list[Claim], guards: list[Claim]) -> tuple[Verdict, str]:
    main = goals[0]
    if _certainly_lost(main):
        return "refuse", f"worse: {_told(main)}"
    if lost := [each for each in guards if each.refuted]:
        first = min(lost, key=lambda each: each.gain - each.null)
        return "refuse", f"loses more than the margin {-first.null:g} on '{first.what}': {_told(first)}"
    if open_ := [each for each in goals if not each.shown]:
        return "inconclusive", f"no certain {_aim(open_[0])}: {_told(open_[0])}{_more(open_[0])}"
    if unsure := [each for each in guards if not each.shown]:
        first = min(unsure, key=lambda each: each.floor - each.null)
        fact = f"'{first.what}' cannot be certified within the margin {-first.null:g}: {_told(first)}"
        return "inconclusive", f"{fact}{_more(first)}"
    return "promote", f"{'better' if main.null == 0 else 'not worse'}: {_told(main)}"


def _goals(report: Report, gate: GateSettings, level: float) -> list[Claim]:
    overall = report.intervals["all"]
    mine = overall[gate.metric]
    if gate.goal == "better":
        return [Claim(gate.metric, mine, 0.0, level)]
    goals = [Claim(gate.metric, mine, -gate.margin, level)]
    if gate.goal == "cheaper" and gate.cost in overall:
        goals.append(Claim(gate.cost, overall[gate.cost], 0.0, level))
    return goals


def _guards(report: Report, gate: GateSettings, level: float) -> list[Claim]:
    overall = report.intervals["all"]
    slices = [
        Claim(name, each[gate.metric], -gate.margins.get(name, gate.margin), level)
        for name, each in report.intervals.items()
        if name != "all" and gate.metric in each and each[gate.metric].rows >= gate.min_rows
    ]
    return slices + [
        Claim(name, overall[name], -margin, level) for name, margin in gate.guards.items() if name in overall
    ]


def _lacking(report: Report, gate: GateSettings, required: Mapping[str, Scored]) -> tuple[Verdict, str] | None:
    """What an outside harness has not shown, if anything."""
    for name, least in gate.requires.items():
        found = required.get(name)
        if found is None:
            how = f"noria evaluate harness {name.partition('.')[0]} --candidate {report.candidate.ref}"
            return "inconclusive", f"the gate requires '{name}', which nobody has measured: {how}"
        reached = found.low >= least if found.higher_is_better else found.high <= least
        missed = found.high < least if found.higher_is_better else found.low > least
        if not reached:
            told = f"'{name}' is {found.value:.3f} [{found.low:.3f}, {found.high:.3f}], {least:g} is required"
            return ("refuse" if missed else "inconclusive"), told
    return None


def _not_servable(report: Report) -> str | None:
    if report.checks.get("changed", 1.0) == 0:
        return "the adapter changes nothing that the engine answers"
    if all(row.champion == row.candidate for row in report.rows):
        return "candidate and champion give the same answer to every sealed row"
    if report.candidate.adapter is None or report.checks.get("trained") == 0:
        # No weights were changed, so that there is no trainer to agree with.
        return None
    parity = report.checks.get("parity")
    if parity is None:
        return "nobody has checked that the engine serves what the trainer made"
    if parity < PARITY:
        return f"engine and trainer agree on {parity:.1%} of next tokens only ({PARITY:.0%} wanted): not the same model"
    return None


def _certainly_lost(claim: Claim) -> bool:
    each = claim.interval
    return (each.high if each.higher_is_better else -each.low) < 0


def _aim(claim: Claim) -> str:
    return "gain" if claim.null == 0 else f"safety from losing {-claim.null:g}"


def _more(claim: Claim) -> str:
    more = claim.told()["rows_to_decide"]
    return f"; about {more} rows would decide" if more is not None else ""


def _told(claim: Claim) -> str:
    each = claim.interval
    return (
        f"{each.name} {each.before:.3f} -> {each.after:.3f}, gain {each.gain:+.3f} "
        f"[{each.low:+.3f}, {each.high:+.3f}] at {each.confidence:.0%}, {each.rows} rows"
    )


def _decision(
    verdict: Verdict, because: str, report: Report, gate: GateSettings, level: float, claims: list[Claim]
) -> Decision:
    judged = {claim.what for claim in claims}
    slices: dict[str, JsonValue] = {
        name: {**each[gate.metric].model_dump(mode="json"), "judged": name == "all" or name in judged}
        for name, each in report.intervals.items()
        if gate.metric in each
    }
    checks: dict[str, JsonValue] = {**report.checks}
    return Decision(
        verdict=verdict,
        because=because,
        evidence={
            "metric": gate.metric, "goal": gate.goal, "margin": gate.margin, "margins": {**gate.margins},
            "guards": {**gate.guards}, "requires": {**gate.requires}, "risk": gate.risk, "level": level,
            "claims": {claim.what: claim.told() for claim in claims}, "slices": slices, "checks": checks,
        },
    )  # fmt: skip
