"""Trials on real traffic: how one begins, what its verdict does, and how a person ends it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pydantic import JsonValue

from noria.deployment.slices import Trial, trial_of
from noria.errors import Conflict, NotFound
from noria.ports import Platform
from noria.types import Candidate, Decision, Deployment, new_id

ACTOR: Final = "canary"
"""Who changed what serves, where a trial did."""
_OVER: Final = {"trial": "", "challenger": None, "control": None, "began": None}


def begin(
    live: Deployment | None, name: str, challenger: Candidate, decision: Decision, cycle: str, actor: str, at: datetime
) -> Deployment:
    """The deployment in which a candidate is tried beside a fresh slice of the champion; for `Deployments.swap`.

    Where nothing was ever promoted that slice has the base with the candidate's own context, which is what the
    candidate was measured against.
    """
    told = live or Deployment(
        task=name, version=0, champion=None, previous=None, decision=decision, cycle=cycle, actor=actor, at=at
    )
    return told.model_copy(
        update={
            "version": told.version + 1, "decision": decision, "cycle": cycle, "actor": actor, "at": at,
            "trial": new_id(at), "challenger": challenger, "control": told.champion or _base(challenger), "began": at,
        }
    )  # fmt: skip


def promoted(
    live: Deployment | None, name: str, champion: Candidate, decision: Decision, cycle: str, actor: str, at: datetime
) -> Deployment:
    """The deployment in which a candidate is the champion and any trial is over; for `Deployments.swap`."""
    return Deployment(
        task=name, version=(live.version if live else 0) + 1, champion=champion,
        previous=live.champion if live and live.champion else _base(champion), decision=decision, cycle=cycle,
        actor=actor, at=at, held=live.held if live else (), paused=live.paused if live else False,
    )  # fmt: skip


def watched(new: Deployment, trial: str) -> Deployment:
    """A promotion after which the previous champion keeps a slice. `trial` places it: the canary's id, or a new one."""
    return new.model_copy(update={"trial": trial, "control": new.previous, "began": new.at})


def conclude(platform: Platform, live: Deployment, decision: Decision) -> Deployment:
    """Carry out the verdict of the trial that a deployment is in; raises Conflict when somebody else was quicker.

    Canary: `promote` makes the challenger the champion, any other verdict takes it back and holds it. After the
    promotion: `refuse` puts the control's candidate back and holds the champion, any other verdict ends the watch.
    """
    trial = trial_of(live)
    if trial is None:
        raise NotFound(f"there is no trial of '{live.task}'", "look: noria status")
    return _concluded(platform, live, trial, decision, ACTOR)


def promote(platform: Platform, name: str, actor: str) -> Deployment:
    """Make the challenger the champion because a person says so; lifts a hold. Raises NotFound."""
    live, trial = _running(platform, name)
    if not trial.canary:
        raise Conflict(f"the trial of '{name}' has promoted its challenger already", "look: noria canary status")
    because = f"promoted by {actor} before its canary was decided"
    decision = Decision(verdict="promote", because=because, evidence=_gate_of(live))
    return _concluded(platform, live.model_copy(update={"paused": False}), trial, decision, actor)


def stop(platform: Platform, name: str, actor: str, reason: str) -> Deployment:
    """End a trial because a person says so: a challenger is taken back and held; a champion stays. Raises NotFound."""
    live, trial = _running(platform, name)
    what = "canary stopped" if trial.canary else "control slice ended"
    evidence = _gate_of(live) if trial.canary else live.decision.evidence
    decision = Decision(verdict="inconclusive", because=f"{what} by {actor}: {reason}", evidence=evidence)
    return _concluded(platform, live, trial, decision, actor)


def _concluded(platform: Platform, live: Deployment, trial: Trial, decision: Decision, actor: str) -> Deployment:
    at = platform.clock.now()
    if trial.canary and decision.verdict == "promote":
        new = promoted(live, live.task, trial.challenger, decision, live.cycle, actor, at)
        if platform.settings.tasks[live.task].release.control > 0:
            new = watched(new, trial.id)
    else:
        change: dict[str, object] = {**_OVER}
        if trial.canary:
            change["held"] = (*live.held, str(trial.challenger.ref))
        elif decision.verdict == "refuse":
            change |= {
                "held": (*live.held, str(trial.challenger.ref)), "champion": trial.control,
                "previous": earlier(platform, live.task, trial.control), "cycle": "",
            }  # fmt: skip
        change |= {"version": live.version + 1, "decision": decision, "actor": actor, "at": at}
        new = live.model_copy(update=change)
    platform.deployments.swap(new)
    return new


def over(live: Deployment) -> Deployment:
    """The same deployment without its trial."""
    return live.model_copy(update=_OVER)


def earlier(platform: Platform, name: str, champion: Candidate) -> Candidate | None:
    """What served before a champion was promoted last."""
    for release in platform.deployments.history(name, 1000):
        if release.champion == champion:
            return release.previous
    return None


def _running(platform: Platform, name: str) -> tuple[Deployment, Trial]:
    live = platform.deployments.current(name)
    trial = trial_of(live)
    if live is None or trial is None:
        raise NotFound(f"there is no trial of '{name}'", f"look: noria status; switch them on: [tasks.{name}.release]")
    return live, trial


def _gate_of(live: Deployment) -> dict[str, JsonValue]:
    return {"gate": live.decision.model_dump(mode="json")}


def _base(candidate: Candidate) -> Candidate:
    return candidate.model_copy(update={"adapter": None})
