"""Releases: the stage that ends a cycle, and what a person may do by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from pydantic import JsonValue

from noria import replays
from noria.deployment import canary, gate, leaks, risk
from noria.errors import Conflict, Invalid, NotFound
from noria.ports import Platform
from noria.stage import Look, Work
from noria.types import Candidate, Decision, Deployment, Ref, Report, Scored, new_id


def params(look: Look) -> JsonValue:
    """The gate's rule."""
    return look.task.gate.model_dump(mode="json")


def observes(look: Look) -> JsonValue:
    """What serves now."""
    live = look.platform.deployments.current(look.name)
    return live.version if live else 0


Measured = Callable[[Platform, str, str], Mapping[str, Scored]]
"""What outside harnesses have found, given a task's name and a candidate's ref."""


def work(work: Work, measured: Measured = lambda platform, name, ref: {}) -> Mapping[str, JsonValue]:
    """Let the gate decide and carry it out; `no promotion` is a result, not a failure."""
    report = Report.model_validate_json((work.folder("report") / "report.json").read_text())
    live = work.platform.deployments.current(work.name)
    decision = (
        _standing(work.platform, live, report)
        or _barred(work.platform, live, report)
        or leaks.refusal(work.platform, report, work.inputs["report"].ref)
        or _decided(work, report, measured)
    )
    if decision.verdict == "promote" and (live is None or live.champion != report.candidate):
        decision = _carried_out(work, live, report.candidate, decision)
    (work.out / "decision.json").write_text(decision.model_dump_json(indent=1))
    return json.loads(decision.model_dump_json())  # type: ignore[no-any-return]


def _decided(work: Work, report: Report, measured: Measured) -> Decision:
    """What the gate says, at the level that the task's budget has for it, which this spends.

    Before a canary sealed rows are a sieve: the promise is kept, and the budget spent, by what real traffic shows.
    """
    rule = work.task.gate
    required = measured(work.platform, work.name, str(report.candidate.ref)) if rule.requires else {}
    if work.task.release.canary > 0:
        return _with_replay(work, report, gate.decide(report, rule, rule.risk, required))
    on = str(work.inputs["report"].ref)
    level = risk.of_report(work.platform, work.name, on)
    decision = _with_replay(work, report, gate.decide(report, rule, level, required))
    if not decision.evidence["claims"]:
        # Nothing was tested: there were too few rows, or it cannot be served.
        return decision
    spent: JsonValue = {"level": level, "acted": decision.verdict == "promote", "on": on}
    return decision.model_copy(update={"evidence": {**decision.evidence, "spent": spent}})


def _with_replay(work: Work, report: Report, decision: Decision) -> Decision:
    """The decision, with how far the adapter lay apart from itself where it was made again."""
    found = replays.of(work.platform, report.candidate.adapter)
    if found is None:
        return decision
    because = decision.because if found.same else f"{decision.because}; {found.words()}"
    evidence = {**decision.evidence, replays.KEY: found.model_dump(mode="json")}
    return decision.model_copy(update={"because": because, "evidence": evidence})


def _standing(platform: Platform, live: Deployment | None, report: Report) -> Decision | None:
    """What was decided of this very candidate and is in force."""
    if live is None or report.candidate not in (live.champion, live.challenger):
        return None
    if live.champion == report.candidate:
        since = _since(platform, live)
        because = f"serves already, since {since.at:%Y-%m-%d %H:%M} UTC: {since.decision.because}"
        return since.decision.model_copy(update={"because": because})
    because = f"its canary runs since {live.began:%Y-%m-%d %H:%M} UTC: noria canary status --task {live.task}"
    return live.decision.model_copy(update={"verdict": "inconclusive", "because": because})


def _since(platform: Platform, live: Deployment) -> Deployment:
    """The release with which the present champion began to serve; holds and trials have come after it."""
    since = live
    for release in platform.deployments.history(live.task, 1000):
        if release.champion != live.champion:
            break
        since = release
    return since


def _carried_out(work: Work, live: Deployment | None, candidate: Candidate, decision: Decision) -> Decision:
    """Do what the gate allows, as far as the task's settings do; returns the decision with what came of it."""
    release, now = work.task.release, work.platform.clock.now()
    if work.task.gate.approval == "human":
        verb = "noria canary start" if release.canary > 0 else "noria promote"
        return _not_now(decision, f"{decision.because}; waits for a person: {verb} {candidate.ref}")
    if release.canary > 0 and live is not None and live.challenger is not None:
        rival = f"the canary of '{live.challenger.ref}' runs since {live.began:%Y-%m-%d %H:%M} UTC"
        return _not_now(decision, f"{decision.because}; {rival}: wait, or noria canary stop --task {live.task}")
    if release.canary > 0:
        told = f"{decision.because}; its canary has begun with {100 * release.canary:g} % of the requests"
        decision = decision.model_copy(update={"because": told})
        new = canary.begin(live, work.name, candidate, decision, work.cycle, "cycle", now)
    else:
        new = canary.promoted(live, work.name, candidate, decision, work.cycle, "cycle", now)
        new = canary.watched(new, new_id(now)) if release.control > 0 else new
    try:
        work.platform.deployments.swap(new)
    except Conflict:
        return _not_now(decision, "what serves changed while the candidate was measured; run the cycle again")
    return decision


def _not_now(decision: Decision, because: str) -> Decision:
    return decision.model_copy(update={"verdict": "inconclusive", "because": because})


def promote(platform: Platform, name: str, ref: Ref, actor: str) -> Deployment:
    """Make a candidate the champion because a person says so; lifts its hold.

    Raises NotFound, Conflict where it serves or its data set holds personal data.
    """
    report = _report_on(platform, name, ref)
    live = platform.deployments.current(name)
    if live is not None and live.champion == report.candidate:
        raise Conflict(f"'{ref}' serves already", "nothing to do")
    decision = Decision(verdict="promote", because=f"promoted by {actor}", evidence={"report": str(ref)})
    held = tuple(each for each in (live.held if live else ()) if each != str(ref))
    if live is not None:
        live = live.model_copy(update={"held": held, "paused": False})
    new = canary.promoted(live, name, report.candidate, decision, "", actor, platform.clock.now())
    platform.deployments.swap(new)
    return new


def start(platform: Platform, name: str, ref: Ref, actor: str) -> Deployment:
    """Begin the canary of a candidate because a person says so; lifts its hold.

    Raises NotFound, Conflict where it serves, another one is tried or its data set holds personal data, Invalid where
    the task has no canary.
    """
    report = _report_on(platform, name, ref)
    live = platform.deployments.current(name)
    if platform.settings.tasks[name].release.canary == 0:
        place = platform.settings.place("tasks", name)
        raise Invalid(f"task '{name}' has no canary", f"add [tasks.{name}.release] canary = 0.05", where=place)
    if live is not None and report.candidate in (live.champion, live.challenger):
        raise Conflict(f"'{ref}' serves already", f"look: noria canary status --task {name}")
    if live is not None and live.challenger is not None:
        raise Conflict(f"the canary of '{live.challenger.ref}' still runs", f"stop it: noria canary stop --task {name}")
    if live is not None:
        live = live.model_copy(update={"held": tuple(each for each in live.held if each != str(ref)), "paused": False})
    decision = Decision(verdict="promote", because=f"canary begun by {actor}", evidence={"report": str(ref)})
    new = canary.begin(live, name, report.candidate, decision, "", actor, platform.clock.now())
    platform.deployments.swap(new)
    return new


def rollback(platform: Platform, name: str, actor: str, reason: str) -> Deployment:
    """Put the previous champion back and hold the present one, so that no cycle brings it back.

    As long as a challenger is tried, it is the challenger that is taken back.
    """
    live = platform.deployments.current(name)
    if live is not None and live.challenger is not None:
        return canary.stop(platform, name, actor, reason)
    if live is None or live.champion is None:
        raise NotFound(f"nothing was ever promoted for '{name}'", "look: noria status")
    before = live.previous
    if before is None:
        raise Conflict(f"'{name}' has no earlier champion to go back to", "look: noria status")
    new = canary.over(live).model_copy(
        update={
            "version": live.version + 1,
            "champion": before,
            "previous": canary.earlier(platform, name, before),
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


def _barred(platform: Platform, live: Deployment | None, report: Report) -> Decision | None:
    if live is None:
        return None
    if live.paused:
        because = f"promotions of '{live.task}' are on hold; allow them: noria hold --task {live.task} --off"
        return Decision(verdict="refuse", because=because, evidence={})
    ref = str(report.candidate.ref)
    if ref in live.held:
        because = f"'{ref}' was taken back ({_taken_back(platform, live, ref)}); allow it: noria promote {ref}"
        return Decision(verdict="refuse", because=because, evidence={})
    return None


def _taken_back(platform: Platform, live: Deployment, ref: str) -> str:
    """Why a candidate is held: what the release says that held it."""
    because = live.decision.because
    for release in platform.deployments.history(live.task, 1000):
        if ref not in release.held:
            break
        because = release.decision.because
    return because


def _report_on(platform: Platform, name: str, ref: Ref) -> Report:
    for _, runs in platform.runs.cycles(name, 1000):
        for run in runs:
            if run.stage == "report" and platform.lake.has(run.output):
                report = Report.model_validate_json((platform.lake.path(run.output) / "report.json").read_text())
                if report.candidate.ref == ref:
                    leaks.require_none(platform, run.output)
                    return report
    if ref.kind != "candidate":
        raise Invalid(f"'{ref}' is not a candidate", f"list them: noria status {name}")
    raise NotFound(f"no report knows '{ref}'", f"list candidates: noria status {name}")
