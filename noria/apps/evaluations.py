"""Reports of every kind as the command line lists, shows and removes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from noria.errors import Conflict, Invalid, NotFound
from noria.evaluation import harness, history, page, sheet, shelf
from noria.evaluation.harness import HarnessReport
from noria.evaluation.page import sections
from noria.evaluation.page.plots import Bar, forest
from noria.evaluation.slices import first_metric
from noria.ports import Platform
from noria.types import Ref


def listed(platform: Platform, task: str) -> list[dict[str, Any]]:
    """Every report of a task that the lake has: those of cycles, comparisons, harnesses; newest first within each."""
    found: list[dict[str, Any]] = []
    for entry in history.entries(platform, task):
        report = history.read(platform, entry.ref)
        metric = first_metric(report)
        overall = report.intervals.get("all", {}).get(metric or "")
        found.append(
            {
                "report": str(entry.ref), "kind": "report", "at": entry.at.isoformat(timespec="seconds"),
                "candidate": str(report.candidate.ref), "verdict": entry.decision.verdict if entry.decision else None,
                "told": sections.told(overall) + f" in {overall.name}, {overall.rows} rows" if overall else "no rows",
            }
        )  # fmt: skip
    for artifact in shelf.kept(platform, history.COMPARISON, task, task):
        told = json.loads((platform.lake.path(artifact.ref) / "comparison.json").read_text())
        found.append(
            {
                "report": str(artifact.ref), "kind": "comparison", "at": told["at"][:19], "verdict": None,
                "candidate": told["pairs"][0]["candidate"], "told": " against ".join(reversed(told["sides"])),
            }
        )  # fmt: skip
    for ref, outside in harness.kept(platform, task):
        found.append(
            {
                "report": str(ref), "kind": outside.harness, "at": outside.at.isoformat(timespec="seconds"),
                "candidate": outside.candidate, "verdict": None, "told": f"{len(outside.scores)} scores",
            }
        )  # fmt: skip
    return found


def ref_of(platform: Platform, text: str | None, task: str | None) -> Ref:
    """The report that a person named, or a task's latest one; raises Invalid and NotFound."""
    if text is not None:
        try:
            return Ref.parse(text)
        except ValueError as error:
            raise Invalid(str(error), "list them: noria evaluate list") from error
    name, _ = platform.settings.task(task)
    for entry in history.entries(platform, name):
        return entry.ref
    raise NotFound(f"there is no report of '{name}' yet", f"make one: noria run --task {name}")


def told(platform: Platform, ref: Ref) -> dict[str, Any]:
    """A report as JSON, without the texts of its rows; raises NotFound."""
    if ref.kind == harness.KIND:
        return {"report": str(ref), **harness.load(platform.lake.path(ref)).model_dump(mode="json")}
    if ref.kind == history.COMPARISON:
        whole: dict[str, Any] = json.loads((platform.lake.path(ref) / "comparison.json").read_text())
        return {"report": str(ref), **whole}
    shown = sheet.of_entry(platform, _entry(platform, ref))
    report = shown.report
    return {
        "report": str(ref),
        "task": report.candidate.task,
        "candidate": str(report.candidate.ref),
        "champion": str(report.champion.ref),
        "decision": shown.decision.model_dump(mode="json", exclude={"evidence"}) if shown.decision else None,
        "intervals": {
            group: {name: each.model_dump(mode="json") for name, each in metrics.items()}
            for group, metrics in report.intervals.items()
        },
        "rows": len(report.rows),
        "checks": dict(report.checks),
        "groups": [each.told() for each in shown.groups],
        "advice": [each.told() for each in shown.advice],
        "measured": {ref: each.model_dump(mode="json") for ref, each in shown.measured.items()},
        "refs": dict(shown.refs),
        "repeat": list(shown.repeat),
    }


def drawn(platform: Platform, ref: Ref) -> str:
    """The HTML page of a report, with all that is known of it now; raises NotFound."""
    if ref.kind == harness.KIND:
        return _outside(harness.load(platform.lake.path(ref)), ref)
    if ref.kind == history.COMPARISON:
        return (platform.lake.path(ref) / "report.html").read_text()
    return page.of(sheet.of_entry(platform, _entry(platform, ref)))


def remove(platform: Platform, ref: Ref) -> Path:
    """Take a report out of the lake; returns where it was. Raises Conflict for one that a release rests on."""
    folder = platform.lake.path(ref)
    if ref.kind not in ("report", history.COMPARISON, harness.KIND):
        raise Invalid(f"'{ref}' is no report", "list them: noria evaluate list")
    if ref.kind == "report":
        report = history.read(platform, ref)
        releases = platform.deployments.history(report.candidate.task, history.CYCLES)
        resting = next((each for each in releases if each.champion == report.candidate), None)
        if resting is not None:
            raise Conflict(
                f"release {resting.version} of '{resting.task}' rests on '{ref}'", "the evidence of a release is kept"
            )
    shutil.rmtree(folder)
    return folder


def _entry(platform: Platform, ref: Ref) -> history.Entry:
    if ref.kind != "report" or ref.name not in platform.settings.tasks:
        raise NotFound(f"'{ref}' is no report of a task of this project", "list them: noria evaluate list")
    for entry in history.entries(platform, ref.name):
        if entry.ref == ref:
            return entry
    raise NotFound(f"there is no report '{ref}'", "list them: noria evaluate list")


def _outside(report: HarnessReport, ref: Ref) -> str:
    scores = sorted(report.scores.items())
    bars = [
        Bar(name, each.low, each.value, each.high, f"{each.value:.3f} [{each.low:.3f}, {each.high:.3f}]", "even")
        for name, each in scores
    ]
    rows = [
        [name, f"{each.value:.4f}", f"{each.low:.4f}", f"{each.high:.4f}", str(each.rows),
         "more" if each.higher_is_better else "less"]
        for name, each in scores
    ]  # fmt: skip
    refs = [
        ("report", str(ref)), ("candidate", report.candidate), ("model", report.model),
        ("at", report.at.isoformat(timespec="seconds")), (report.harness, report.version),
        *((name, json.dumps(value)) for name, value in report.settings.items()),
        *(("note", note) for note in report.notes),
    ]  # fmt: skip
    return page.assembled(
        f"{report.task}: {report.harness} {report.version}",
        forest(bars, "Each score with its 95 % interval.", zero=False) if bars else None,
        sections.table(["score", "value", "low", "high", "rows", "better is"], rows, numbers=range(1, 5)),
        sections.provenance(refs, {}),
    )
