"""How far an answer can be trusted, as one number from cheap signals; what a light is calibrated on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from noria.settings import LightSettings
from noria.types import digest_of

SCORING = 1
"""Version of `score`: thresholds of another one mean nothing."""


def score(logprob: float | None, support: float | None, findings: Sequence[str]) -> float | None:
    """A number in [0, 1], higher for answers that are more likely right; None where there is nothing to go by.

    The mean of the geometric mean of the tokens' probabilities and of the share of the answer that its sources hold,
    whichever of them there is; halved for each thing that a guard found in the answer, and for each attempt to inject
    instructions into the request. It is no probability: what it is worth is found out by calibration.

    Args:
        logprob: mean log-probability of the answer's tokens, in nats.
        support: share of the answer that is in its sources, in [0, 1].
        findings: what guards found, as the record has it (`output:personal:email`).
    """
    known = []
    if logprob is not None:
        known.append(math.exp(min(0.0, logprob)))
    if support is not None:
        known.append(support)
    if not known:
        return None
    doubts = sum(each.startswith(("output:", "input:injection:")) for each in findings)
    return sum(known) / len(known) * 0.5**doubts


def key(task: str, lights: LightSettings) -> str:
    """Run key of a task's calibration: what was calibrated for other shares, or for another score, is not found."""
    rule = lights.model_dump(mode="json", include={"wrong", "red", "risk"})
    return digest_of({"stage": "lights", "task": task, "scoring": SCORING, "rule": rule})
