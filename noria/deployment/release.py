"""Releases: the stage that ends a cycle, and what a person may do by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue

from noria.deployment import gate, risk
from noria.errors import Conflict, Invalid, NotFound
from noria.ports import Platform
from noria.stage import Look, Work
from noria.types import Candidate, Decision, Deployment, Ref, Report


def params(look: Look) -> JsonValue:
    """The gate's rule."""
    return look.task.gate.model_dump(mode="json")


def observes(look: Look) -> JsonValue:
    """What serves now."""
    live = look.platform.deployments.current(look.name)
    return live.version if live else 0


def work(work: Work) -> Mapping[str, JsonValue]:
    """Let the gate decide and carry it out; `no promotion` is a result, not a failure."""
    report = Report.model_validate_json((work.folder("report") / "report.json").read_text())
    live = work.platform.deployments.current(work.name)
    decision = _barred(live, report) or _decide(work, report)
    if live is not None and live.champion == report.candidate:
        because = f"serves already, since {live.at:%Y-%m-%d %H:%M} UTC: {live.decision.because}"
        decision = live.decision.model_copy(update={"because": because})
    elif decision.verdict == "promote" and work.task.gate.approval == "human":
        hint = f"waits for a person: noria promote {work.name} {report.candidate.ref}"
        decision = decision.model_copy(update={"verdict": "inconclusive", "because": f"{decision.because}; {hint}"})
    elif decision.verdict == "promote":
        now = work.platform.clock.now()
        try:
            _swap(work.platform, live, work.name, report.candidate, decision, work.cycle, "cycle", now)
        except Conflict:
            because = "what serves changed while the candidate was measured; run the cycle again"
            decision = decision.model_copy(update={"verdict": "inconclusive", "because": because})
    (work.out / "decision.json").write_text(decision.model_dump_json(indent=1))
    return json.loads(decision.model_dump_json())  # type: ignore[no-any-return]


def _decide(work: Work, report: Report) -> Decision:
    """What the gate says, at the level that the task's budget has for it, which this spends."""
    on = str(work.inputs["report"].ref)
    before = risk.spent(risk.decisions(work.platform, work.name))
    level = risk.level(work.task.gate.risk, before, on)
    decision = gate.decide(report, work.task.gate, level)
    spending = risk.spending(level, decision.verdict == "promote", on)
    return decision.model_copy(update={"evidence": {**decision.evidence, "spent": spending}})


def promote(platform: Platform, name: str, ref: Ref, actor: str) -> Deployment:
    """Make a candidate the champion because a person says so; lifts its hold. Raises NotFound."""
    report = _report_on(platform, name, ref)
    live = platform.deployments.current(name)
    if live is not None and live.champion == report.candidate:
        raise Conflict(f"'{ref}' serves already", "nothing to do")
    decision = Decision(verdict="promote", because=f"promoted by {actor}", evidence={"report": str(ref)})
    held = tuple(each for each in (live.held if live else ()) if each != str(ref))
    if live is not None:
        live = live.model_copy(update={"held": held, "paused": False})
    return _swap(platform, live, name, report.candidate, decision, "", actor, platform.clock.now())


def rollback(platform: Platform, name: str, actor: str, reason: str) -> Deployment:
    """Put the previous champion back and hold the present one, so that no cycle brings it back."""
    live = platform.deployments.current(name)
    if live is None or live.champion is None:
        raise NotFound(f"nothing was ever promoted for '{name}'", "look: noria status")
    before = live.previous
    if before is None:
        raise Conflict(f"'{name}' has no earlier champion to go back to", "look: noria status")
    new = live.model_copy(
        update={
            "version": live.version + 1,
            "champion": before,
            "previous": _earlier(platform, name, before),
            "decision": Decision(verdict="refuse", because=f"rolled back by {actor}: {reason}", evidence={}),
            "cycle": "",
            "actor": actor,
            "at": platform.clock.now(),
            "held": (*live.held, str(live.champion.ref)),
        }
    )
    platform.deployments.swap(new)
    return new


def hold(platform: Platform, name: str, actor: str, paused: bool) -> Deployment:
    """Stop (or allow again) every promotion of a task; what serves goes on serving."""
    live = platform.deployments.current(name)
    if live is None:
        raise NotFound(f"nothing was ever promoted for '{name}'", "run a cycle first: noria run")
    if live.paused == paused:
        raise Conflict(f"'{name}' is {'held' if paused else 'not held'} already", "nothing to do")
    new = live.model_copy(
        update={"version": live.version + 1, "paused": paused, "actor": actor, "at": platform.clock.now()}
    )
    platform.deployments.swap(new)
    return new


def _barred(live: Deployment | None, report: Report) -> Decision | None:
    if live is None:
        return None
    if live.paused:
        because = f"promotions of '{live.task}' are on hold by {live.actor}; allow them: noria hold {live.task} --off"
        return Decision(verdict="refuse", because=because, evidence={})
    if str(report.candidate.ref) in live.held:
        because = (
            f"a person took '{report.candidate.ref}' back; allow it: noria promote {live.task} {report.candidate.ref}"
        )
        return Decision(verdict="refuse", because=because, evidence={})
    return None


def _swap(
    platform: Platform,
    live: Deployment | None,
    name: str,
    champion: Candidate,
    decision: Decision,
    cycle: str,
    actor: str,
    at: datetime,
) -> Deployment:
    base = champion.model_copy(update={"adapter": None})
    new = Deployment(
        task=name,
        version=(live.version if live else 0) + 1,
        champion=champion,
        previous=live.champion if live and live.champion else base,
        decision=decision,
        cycle=cycle,
        actor=actor,
        at=at,
        held=live.held if live else (),
        paused=live.paused if live else False,
    )
    platform.deployments.swap(new)
    return new


def _earlier(platform: Platform, name: str, champion: Candidate) -> Candidate | None:
    for release in platform.deployments.history(name, 1000):
        if release.champion == champion:
            return release.previous
    return None


def _report_on(platform: Platform, name: str, ref: Ref) -> Report:
    for _, runs in platform.runs.cycles(name, 1000):
        for run in runs:
            if run.stage == "report" and platform.lake.has(run.output):
                report = Report.model_validate_json((platform.lake.path(run.output) / "report.json").read_text())
                if report.candidate.ref == ref:
                    return report
    if ref.kind != "candidate":
        raise Invalid(f"'{ref}' is not a candidate", f"list them: noria status {name}")
    raise NotFound(f"no report knows '{ref}'", f"list candidates: noria status {name}")
