"""What the command line and the control plane tell alike, as values ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from noria.cycle import Turn
from noria.datasets import looks
from noria.deployment import risk
from noria.deployment.slices import trial_of
from noria.deployment.watcher import follow
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
            name: _live(platform.deployments.current(name))
            | {"engine": task.engine, "base": task.base, "risk": _risk(platform, name, task.gate.risk)}
            | {"sealed": _sealed(platform, name)}
            for name, task in platform.settings.tasks.items()
        },
        "alerts": [
            {"subject": each.subject, "fact": each.fact, "hint": each.hint, "since": each.at.isoformat()}
            for each in platform.alerts.open()
        ],
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


def _sealed(platform: Platform, name: str) -> dict[str, Any]:
    """How often reports have looked at the sealed rows, and how often they may."""
    state = looks.sealed(platform, name)
    return {"set": state.shown, "looks": state.looks, "limit": state.limit, "advice": state.advice}


def _risk(platform: Platform, name: str, whole: float) -> dict[str, Any]:
    """The task's error budgets: what is left of them, and the level that the next decision would have."""
    promoted, taken_back = risk.promotions(platform, name), risk.rollbacks(platform, name)
    return {
        "budget": whole,
        "left": round(risk.left(whole, promoted), 6),
        "next_level": round(risk.level(whole, promoted, ""), 6),
        "decisions": len(promoted),
        "rollbacks_left": round(risk.left(whole, taken_back), 6),
    }


def trial(live: Deployment | None) -> dict[str, Any] | None:
    """The trial that a deployment is in, as JSON."""
    running = trial_of(live)
    if running is None:
        return None
    return {
        "id": running.id,
        "phase": "canary" if running.canary else "watch",
        "began": running.began.isoformat(timespec="seconds"),
        "challenger": str(running.challenger.ref),
        "control": str(running.control.ref),
    }


def evidence(platform: Platform, name: str) -> dict[str, Any]:
    """What a task's trial has shown so far, read from its traffic."""
    live = platform.deployments.current(name)
    told: dict[str, Any] = {"task": name, "trial": trial(live), "because": live.decision.because if live else ""}
    if (running := trial_of(live)) is not None:
        seen = follow(platform, name, running)
        seen.read(platform.clock.now())
        told |= seen.told()
    return told


def released(live: Deployment) -> dict[str, Any]:
    """One release as JSON."""
    champion = str(live.champion.ref) if live.champion else None
    decision = live.decision
    return {
        "task": live.task, "version": live.version, "champion": champion, "verdict": decision.verdict,
        "because": decision.because, "trial": trial(live), "held": list(live.held),
    }  # fmt: skip


def standing(task: Mapping[str, Any]) -> str:
    """What of a task's release is under way, in few words, from what `status` tells."""
    words = ["on hold"] if task["paused"] else []
    if task["trial"] is not None:
        words.append("canary runs" if task["trial"]["phase"] == "canary" else "watched")
    return ", ".join(words)


def _live(live: Deployment | None) -> dict[str, Any]:
    if live is None:
        return {
            "champion": None, "version": 0, "previous": None, "held": [], "paused": False, "because": "", "trial": None,
        }  # fmt: skip
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
        "trial": trial(live),
    }
