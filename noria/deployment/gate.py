"""The gate: a pure function from a report to promote, refuse or inconclusive."""

from __future__ import annotations

from pydantic import JsonValue

from noria.settings import GateSettings
from noria.types import Decision, Interval, Report, Verdict

PARITY = 0.95
"""Least share of sampled prefixes on which trainer and engine must agree on the next token."""


def decide(report: Report, gate: GateSettings) -> Decision:
    """Promote only what is better on the task and not worse on any slice, as far as the rows can tell.

    Better: the lower bound of the paired gain over all rows of the task is above 0. Not worse: on every slice the
    lower bound is above minus its margin. A slice of fewer than `min_rows` rows is told in the evidence and not judged.
    """
    overall = report.intervals.get("all", {}).get(gate.metric)
    if fault := _not_servable(report):
        return _decision("refuse", fault, report, gate)
    if overall is None or overall.rows < gate.min_rows:
        rows = overall.rows if overall else 0
        return _decision("inconclusive", f"{rows} sealed rows are fewer than min_rows = {gate.min_rows}", report, gate)
    if overall.high < 0:
        return _decision("refuse", f"worse: {_told(overall)}", report, gate)
    slices = _judged(report, gate)
    margins = {name: gate.margins.get(name, gate.margin) for name in slices}
    lost = {name: each for name, each in slices.items() if each.gain <= -margins[name]}
    if lost:
        name, each = min(lost.items(), key=lambda item: item[1].gain)
        return _decision(
            "refuse", f"loses more than the margin {margins[name]:g} on '{name}': {_told(each)}", report, gate
        )
    if overall.low <= 0:
        return _decision("inconclusive", f"no certain gain: {_told(overall)}", report, gate)
    unsure = {name: each for name, each in slices.items() if each.low <= -margins[name]}
    if unsure:
        name, each = min(unsure.items(), key=lambda item: item[1].low)
        fact = f"'{name}' cannot be certified within the margin {margins[name]:g}: {_told(each)}"
        return _decision("inconclusive", fact, report, gate)
    return _decision("promote", f"better: {_told(overall)}", report, gate)


def _not_servable(report: Report) -> str | None:
    if report.checks.get("changed", 1.0) == 0:
        return "the adapter changes nothing that the engine answers"
    if all(row.champion == row.candidate for row in report.rows):
        return "candidate and champion give the same answer to every sealed row"
    parity = report.checks.get("parity", 1.0)
    if parity < PARITY:
        return f"engine and trainer agree on {parity:.1%} of next tokens only ({PARITY:.0%} wanted): not the same model"
    return None


def _judged(report: Report, gate: GateSettings) -> dict[str, Interval]:
    found = {name: each[gate.metric] for name, each in report.intervals.items() if name != "all"}
    return {name: each for name, each in found.items() if each.rows >= gate.min_rows}


def _told(each: Interval) -> str:
    return (
        f"{each.name} {each.before:.3f} -> {each.after:.3f}, gain {each.gain:+.3f} "
        f"[{each.low:+.3f}, {each.high:+.3f}] at {each.confidence:.0%}, {each.rows} rows"
    )


def _decision(verdict: Verdict, because: str, report: Report, gate: GateSettings) -> Decision:
    judged = _judged(report, gate)
    slices: dict[str, JsonValue] = {
        name: {**each[gate.metric].model_dump(mode="json"), "judged": name == "all" or name in judged}
        for name, each in report.intervals.items()
    }
    checks: dict[str, JsonValue] = {**report.checks}
    return Decision(
        verdict=verdict,
        because=because,
        evidence={
            "metric": gate.metric,
            "margin": gate.margin,
            "margins": {**gate.margins},
            "risk": gate.risk,
            "slices": slices,
            "checks": checks,
        },
    )
