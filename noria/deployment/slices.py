"""The two slices of a task's users on which a trial compares challenger and control."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from noria.settings import ReleaseSettings
from noria.stats.lots import drawn
from noria.types import Arm, Candidate, Deployment

CHALLENGER, CONTROL = "challenger", "control"
"""Names of the two arms, in records too; a challenger's slice keeps its name when it has become the champion."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What is compared with what, and since when."""

    id: str
    began: datetime
    canary: bool
    """Whether the challenger is not promoted yet."""
    challenger: Candidate
    control: Candidate

    def share(self, release: ReleaseSettings) -> float:
        """Share of the requests that each of the two slices has."""
        return release.canary if self.canary else release.control


def trial_of(live: Deployment | None) -> Trial | None:
    """The trial that a deployment is in."""
    if live is None or live.control is None or live.began is None:
        return None
    challenger = live.challenger or live.champion
    if challenger is None:
        return None
    return Trial(live.trial, live.began, live.challenger is not None, challenger, live.control)


def arms(champion: Arm, challenger: Arm, control: Arm, trial: Trial, release: ReleaseSettings) -> tuple[Arm, ...]:
    """The champion's arm, taken apart by the two slices, which lie side by side within its users.

    Both slices are of the same size and meet at a point that the trial's id draws, so that it is not always the same
    users who try what is new. The point stays for the whole trial: who had the challenger has it after the promotion
    too, and who keeps the previous champion then has had nothing else before. Users of other arms never move.
    """
    rest = champion.share
    most = min(release.slice, rest / 2)
    width = min(trial.share(release), most)
    point = most + drawn("slices", trial.id) * (rest - 2 * most)
    parts = (
        (champion, point - width),
        (challenger.model_copy(update={"name": CHALLENGER}), width),
        (control.model_copy(update={"name": CONTROL}), width),
        (champion, rest - point - width),
    )
    return tuple(arm.model_copy(update={"share": share}) for arm, share in parts if share > 0)
