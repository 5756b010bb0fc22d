"""Reports of a task: those of its cycles and those that compared on request, with what the gate said of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from noria.errors import NotFound
from noria.evaluation import shelf
from noria.evaluation.advice import Tried
from noria.ports import Platform
from noria.types import Candidate, Decision, Ref, Report

CYCLES = 1000
"""Cycles that are looked through."""
COMPARISON = "comparison"


@dataclass(frozen=True, slots=True)
class Entry:
    """A report of a cycle: where it is, when it was made, and the gate's decision where there is one."""

    ref: Ref
    at: datetime
    cycle: str
    decision: Decision | None


def entries(platform: Platform, task: str) -> Iterator[Entry]:
    """The reports of a task's cycles that the lake still has, newest first, each once with its latest decision."""
    seen: set[Ref] = set()
    for cycle, runs in platform.runs.cycles(task, CYCLES):
        by_stage = {run.stage: run for run in runs}
        run = by_stage.get("report")
        if run is None or run.output in seen or not platform.lake.has(run.output):
            continue
        seen.add(run.output)
        release = by_stage.get("release")
        yield Entry(run.output, run.at, cycle.id, _decision(platform, release.output) if release else None)


def read(platform: Platform, ref: Ref) -> Report:
    """The report of a cycle; raises NotFound."""
    file = platform.lake.path(ref) / "report.json"
    if not file.is_file():
        raise NotFound(f"'{ref}' is no report", "list them: noria evaluate list")
    return Report.model_validate_json(file.read_text())


def reports(platform: Platform, task: str) -> Iterator[Report]:
    """Every report of a task, newest first: those of its cycles, then those of comparisons."""
    for entry in entries(platform, task):
        yield read(platform, entry.ref)
    for artifact in shelf.kept(platform, COMPARISON, task, task):
        for file in sorted(platform.lake.path(artifact.ref).glob("report-*.json")):
            yield Report.model_validate_json(file.read_text())


def answers(found: list[Report]) -> dict[str, dict[str, str]]:
    """What every candidate answered, by its ref and the row's id; where reports differ the first one holds."""
    known: dict[str, dict[str, str]] = {}
    for report in found:
        for side, text in ((report.candidate, "candidate"), (report.champion, "champion")):
            rows = known.setdefault(str(side.ref), {})
            for row in report.rows:
                rows.setdefault(row.id, getattr(row, text))
    return known


def candidates(found: list[Report]) -> dict[str, Candidate]:
    """Every candidate that a report knows, by its ref."""
    return {str(side.ref): side for report in found for side in (report.candidate, report.champion)}


def tried(platform: Platform, task: str, before: Ref | None = None) -> list[Tried]:
    """Earlier candidates of the task, oldest first; only those before the report `before`, if it is given."""
    found = [*entries(platform, task)][::-1]
    refs = [entry.ref for entry in found]
    if before in refs:
        found = found[: refs.index(before)]
    earlier = []
    for entry in found:
        side = read(platform, entry.ref).candidate
        better = entry.decision is not None and entry.decision.verdict == "promote"
        earlier.append(Tried(side.prompt, str(side.base), str(side.adapter) if side.adapter else None, better))
    return earlier


def losses(platform: Platform, adapter: Ref | None) -> list[float]:
    """The losses of the training that made an adapter, in nats per token; empty where they are not known."""
    made = platform.runs.artifact(adapter) if adapter is not None else None
    noted = made.meta.get("losses", []) if made is not None else []
    return [float(value) for value in noted if isinstance(value, int | float)] if isinstance(noted, list) else []


def _decision(platform: Platform, release: Ref) -> Decision | None:
    made = platform.runs.artifact(release)
    if made is None:
        return None
    return Decision.model_validate({name: made.meta[name] for name in Decision.model_fields if name in made.meta})
