"""Personal data left in the data set of a candidate keeps it from being released."""

from __future__ import annotations

from collections import Counter

from pydantic import JsonValue

from noria.errors import Conflict
from noria.guards import personal
from noria.ports import Platform
from noria.types import Decision, Ref, Report


def of_report(platform: Platform, report: Ref) -> tuple[Ref | None, dict[str, int]]:
    """The data set that a report's rows are of, and what its scan found, by kind."""
    made = platform.runs.artifact(report)
    dataset = next((parent for parent in made.parents if parent.kind == "dataset"), None) if made else None
    artifact = platform.runs.artifact(dataset) if dataset else None
    found = artifact.meta.get("leaks") if artifact else None
    return dataset, {kind: int(str(number)) for kind, number in found.items()} if isinstance(found, dict) else {}


def refusal(platform: Platform, report: Report, on: Ref) -> Decision | None:
    """Why nothing that was made of this data set may serve; None where its scan found nothing.

    What the candidate's own answers hold, beyond what was asked, is evidence beside it and decides nothing: a model
    that invents a number leaks none.
    """
    dataset, kinds = of_report(platform, on)
    if not kinds:
        return None
    because = f"its data set holds personal data ({_told(kinds)}): look: noria scan {dataset}"
    evidence: dict[str, JsonValue] = {"dataset": str(dataset), "leaks": {**kinds}, "answers": {**_answered(report)}}
    return Decision(verdict="refuse", because=because, evidence=evidence)


def require_none(platform: Platform, on: Ref) -> None:
    """Raise Conflict where the data set of a report leaks."""
    dataset, kinds = of_report(platform, on)
    if kinds:
        raise Conflict(
            f"the data set '{dataset}' holds personal data ({_told(kinds)})",
            f"look: noria scan {dataset}; correct [tasks.{on.name}.scrub] or the sources, then noria run",
        )


def _answered(report: Report) -> Counter[str]:
    """Personal data in sampled answers of the candidate that their questions did not hold."""
    found: Counter[str] = Counter()
    for row in report.rows:
        found.update(
            each.kind
            for each in personal.find_all(row.candidate)
            if row.candidate[each.start : each.end] not in row.question
        )
    return found


def _told(kinds: dict[str, int]) -> str:
    return ", ".join(f"{kind} {number}" for kind, number in kinds.items())
