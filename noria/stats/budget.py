"""The error budget of a task's whole life: how much risk each of its decisions may take.

Every decision tests a hypothesis such as "this candidate is not better". With a budget `risk` and one level for each
test, the chance that a task ever acts on a false refutation is at most `risk`, however many tests there will be, and
whatever depends on what: the levels are those of the online fallback procedure (Tian and Ramdas, "Online control of the
familywise error rate", Statistical Methods in Medical Research, 2021). A test that refuted its hypothesis hands its
level on to the next one, so that a life of successes never runs dry; one that did not has spent it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FALL = 1.6
"""The k-th test has a share of the budget that falls with k to this power."""
_WHOLE = 2.2857656
"""Riemann's zeta function at FALL: the sum of all shares before they are made to sum to 1."""


@dataclass(frozen=True, slots=True)
class Spent:
    """One decision: the level that it had, and whether it refuted its hypothesis (promoted, or rolled back)."""

    level: float
    acted: bool


def share(number: int) -> float:
    """Share of the whole budget that is new at the `number`-th test, from 1; all of them sum to 1."""
    return float(number**-FALL / _WHOLE)


def level(risk: float, spent: Sequence[Spent]) -> float:
    """Level of the next test after those in `spent`, in order."""
    handed_on = spent[-1].level if spent and spent[-1].acted else 0.0
    return risk * share(len(spent) + 1) + handed_on


def left(risk: float, spent: Sequence[Spent]) -> float:
    """What is not spent yet: of the shares to come, and what the last test would hand on."""
    handed_on = spent[-1].level if spent and spent[-1].acted else 0.0
    return risk * (1 - sum(share(number) for number in range(1, len(spent) + 1))) + handed_on
