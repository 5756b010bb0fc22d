"""Looks after the trials: reads their evidence, asks for a verdict and carries it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import JsonValue

from noria.deployment import canary, risk, trial
from noria.deployment.evidence import Evidence
from noria.deployment.slices import CHALLENGER, CONTROL, Trial, trial_of
from noria.errors import Conflict, Unavailable
from noria.ports import Platform
from noria.settings import TaskSettings
from noria.types import Decision, Deployment, Verdict


@dataclass(slots=True)
class _Followed:
    trial: Trial
    task: TaskSettings
    evidence: Evidence
    levels: tuple[float, float]
    """At which it may promote, and take back."""
    told: Verdict | None = None
    """A verdict that a hold keeps from being carried out, once a person was told of it."""


class Watcher:
    """Follows the trials of all tasks. It has no thread: the owner calls `poll` every few seconds.

    It keeps nothing that it cannot read again: after a kill the next one comes to the same evidence.
    """

    def __init__(self, platform: Platform, report: Callable[[str], None]) -> None:
        """`report` is told of every verdict, and of a ledger that is away, in one line."""
        self._platform = platform
        self._report = report
        self._followed: dict[str, _Followed] = {}
        self._fault = ""

    def take(self, platform: Platform) -> None:
        """Go on with other settings."""
        self._platform = platform

    def poll(self) -> list[Deployment]:
        """Look at every trial once; returns the releases that came of it. A ledger that is away is no error."""
        made = []
        try:
            for name in self._platform.settings.tasks:
                live = self._platform.deployments.current(name)
                new = self._look(name, live) if live is not None else None
                made += [new] if new is not None else []
        except Unavailable as error:
            if error.fact != self._fault:
                self._fault = error.fact
                self._report(f"{error.fact}; trials wait")
        else:
            self._fault = ""
        return made

    def _look(self, name: str, live: Deployment) -> Deployment | None:
        running = trial_of(live)
        if running is None:
            self._followed.pop(name, None)
            return None
        now, task = self._platform.clock.now(), self._platform.settings.tasks[name]
        here = self._followed.get(name)
        if here is None or here.trial != running or here.task != task:
            evidence, levels = follow(self._platform, name, running), risk.of_trial(self._platform, name, running)
            here = self._followed[name] = _Followed(running, task, evidence, levels)
        fresh = here.evidence.read(now)
        decision = self._decided(name, here, now) if fresh or _late(here, now) or here.told else None
        if decision is None or self._held(name, live, here, decision):
            return None
        told = decision.model_copy(update={"evidence": self._evidence(live, here, decision)})
        try:
            new = canary.conclude(self._platform, live, told)
        except Conflict:
            # Somebody else has changed what serves: begin anew with the next look.
            del self._followed[name]
            return None
        self._report(f"{decision.verdict} '{running.challenger.ref}': {decision.because}")
        return new

    def _decided(self, name: str, here: _Followed, now: datetime) -> Decision | None:
        level, stop = here.levels
        if here.trial.canary:
            found = trial.look(here.evidence.seen, here.task.release, level, stop)
        else:
            found = trial.watch(here.evidence.seen, here.task.release, stop)
        if found is None and _late(here, now):
            because = f"undecided after {here.task.release.days:g} days"
            found = Decision(verdict="inconclusive", because=because, evidence={})
        return found

    def _held(self, name: str, live: Deployment, here: _Followed, decision: Decision) -> bool:
        """Whether a hold keeps the challenger from being promoted; it goes on being tried."""
        if not (live.paused and here.trial.canary and decision.verdict == "promote"):
            return False
        if here.told != decision.verdict:
            here.told = decision.verdict
            self._report(f"'{name}' is on hold; else: {decision.verdict}, {decision.because}")
        return True

    def _evidence(self, live: Deployment, here: _Followed, decision: Decision) -> dict[str, JsonValue]:
        phase = "canary" if here.trial.canary else "watch"
        told: dict[str, JsonValue] = {"trial": here.trial.id, "phase": phase, **here.evidence.told()}
        if here.trial.canary:
            told["gate"] = live.decision.model_dump(mode="json")
        return {**told, **decision.evidence}


def follow(platform: Platform, name: str, running: Trial) -> Evidence:
    """The evidence of a trial, of which nothing was read yet."""
    return Evidence(
        platform.traffic.follow(name, (CHALLENGER, CONTROL), running.began), running, platform.settings.tasks[name]
    )


def _late(here: _Followed, now: datetime) -> bool:
    return here.trial.canary and now - here.trial.began > timedelta(days=here.task.release.days)
