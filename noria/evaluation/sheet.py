"""All that a page about one report shows, gathered."""

from __future__ import annotations

from noria import replays
from noria.evaluation import advice, history, page, slices
from noria.evaluation.measured import Measured, served
from noria.ports import Platform
from noria.stage import Work
from noria.types import Ref, Report


def of_stage(work: Work, report: Report) -> page.Sheet:
    """What the stage `report` knows: nothing but its inputs, so that the same inputs give the same page."""
    groups = slices.groups(report)
    adapter = work.inputs["adapter"]
    known = advice.Known(margin=work.task.gate.margin, losses=history.losses(work.platform, adapter.ref), groups=groups)
    refs = [("dataset", str(work.inputs["dataset"].ref))]
    return page.Sheet(report, groups, advice.of(report, known), refs=refs, repeat=_repeat(report))


def of_entry(platform: Platform, entry: history.Entry) -> page.Sheet:
    """All that is known of a report now: what was decided, what was tried before, and what its answers took since."""
    report = history.read(platform, entry.ref)
    task = report.candidate.task
    groups = slices.groups(report)
    known = advice.Known(
        margin=platform.settings.tasks[task].gate.margin,
        tried=history.tried(platform, task, entry.ref),
        losses=history.losses(platform, report.candidate.adapter),
        groups=groups,
    )
    made = platform.runs.artifact(entry.ref)
    refs = [(ref.kind, str(ref)) for ref in (made.parents if made else ()) if ref.kind == "dataset"]
    refs += [("report", str(entry.ref)), ("cycle", entry.cycle)]
    refs += [("made again", told) for told in [replays.told(platform, report.candidate.adapter)] if told]
    return page.Sheet(
        report,
        groups,
        advice.of(report, known),
        entry.decision,
        _served(platform, report),
        refs,
        _repeat(report, entry.ref),
    )


def _served(platform: Platform, report: Report) -> dict[str, Measured]:
    return served(platform, report.candidate.task, [str(report.candidate.ref), str(report.champion.ref)])


def _repeat(report: Report, ref: Ref | None = None) -> list[str]:
    task = report.candidate.task
    commands = [
        f"noria run report --task {task}",
        f"noria compare --task {task} {report.champion.ref} {report.candidate.ref}",
    ]
    return [f"noria evaluate show {ref} --html report.html", *commands] if ref else commands
