"""What the command line and the control plane tell alike, as values ready for JSON."""

from __future__ import annotations

from math import isfinite
from typing import Any

from noria.cycle import Turn
from noria.evaluation.lights import Calibrated
from noria.evaluation.metrics import Metric
from noria.ports import Platform
from noria.stats.conformal import Certified
from noria.types import Deployment, Interval, Report


def result(platform: Platform, turn: Turn) -> dict[str, Any]:
    """A finished cycle, in the form that `noria run --json` promises."""
    name = turn.cycle.task
    gate = platform.settings.tasks[name].gate
    live = platform.deployments.current(name)
    champion = live.champion if live else None
    report = report_of(platform, turn)
    told: dict[str, Any] = {
        "cycle": turn.cycle.id,
        "task": name,
        "verdict": turn.decision.verdict if turn.decision else None,
        "because": turn.decision.because if turn.decision else None,
        "champion": str(champion.ref) if champion else None,
        "metric": None,
        "stages": [
            {
                "stage": step.stage,
                "seconds": round(step.seconds, 3),
                "skipped": step.skipped,
                "output": str(step.artifact.ref),
            }
            for step in turn.steps
        ],
    }
    if report is not None and (overall := report.intervals.get("all")):
        told["metric"] = metric(overall[gate.metric])
        told["slices"] = {slice_: metric(each[gate.metric]) for slice_, each in report.intervals.items()}
    return told


def report_of(platform: Platform, turn: Turn) -> Report | None:
    """The turn's report, if it came that far."""
    for step in turn.steps:
        if step.stage == "report":
            return Report.model_validate_json((platform.lake.path(step.artifact.ref) / "report.json").read_text())
    return None


def metric(each: Interval) -> dict[str, Any]:
    """An interval as JSON."""
    return each.model_dump(mode="json")


def metric_told(each: Metric) -> dict[str, Any]:
    """A metric as JSON; a range without an end has None there."""
    return {
        "name": each.name,
        "needs": {"target": "ground truth", "context": "context", "none": "nothing"}[each.needs],
        "reads": list(each.reads),
        "low": each.low if isfinite(each.low) else None,
        "high": each.high if isfinite(each.high) else None,
        "better": "higher" if each.higher_is_better else "lower",
        "unit": each.unit,
        "definition": each.definition,
        "source": each.source,
    }


def status(platform: Platform) -> dict[str, Any]:
    """What serves, and the latest cycles."""
    return {
        "project": platform.settings.project.name,
        "tasks": {
            name: _live(platform.deployments.current(name)) | {"engine": task.engine, "base": task.base}
            for name, task in platform.settings.tasks.items()
        },
        "cycles": [
            {
                "cycle": cycle.id,
                "task": cycle.task,
                "began": cycle.began.isoformat(timespec="seconds"),
                "ended": cycle.ended.isoformat(timespec="seconds") if cycle.ended else None,
                "verdict": cycle.verdict,
                "stages": [run.stage for run in runs],
                "seconds": round(sum(run.seconds for run in runs), 1),
            }
            for cycle, runs in platform.runs.cycles(None, 10)
        ],
    }


def lights_of(found: Calibrated) -> list[str]:
    """One candidate's calibration as a row of a table."""

    def side(shown: Certified | None, bound: str) -> list[str]:
        if shown is None:
            return ["" if found.known else f"{found.needed} labels needed", "not shown" if found.known else ""]
        return [f"{shown.threshold:.4f}", f"{shown.wrong} of {shown.rows}, {bound} {100 * shown.bound:.1f} %"]

    green, red = side(found.green, "at most"), side(found.red, "at least")
    return [found.served_by, str(found.labels), str(found.wrong), *green, *red]


def _live(live: Deployment | None) -> dict[str, Any]:
    if live is None:
        return {"champion": None, "version": 0, "previous": None, "held": [], "paused": False, "because": ""}
    return {
        "champion": str(live.champion.ref) if live.champion else None,
        "adapter": str(live.champion.adapter) if live.champion and live.champion.adapter else None,
        "version": live.version,
        "previous": str(live.previous.ref) if live.previous else None,
        "since": live.at.isoformat(timespec="seconds"),
        "by": live.actor,
        "because": live.decision.because,
        "held": list(live.held),
        "paused": live.paused,
    }
