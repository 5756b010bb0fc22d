"""A light on an answer: how far it can be trusted, and what in its sources speaks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from noria.gateway.answers import Filter, whole
from noria.gateway.guard import Refused
from noria.guards import grounding
from noria.settings import LightSettings
from noria.stats import trust
from noria.stats.lots import drawn

if TYPE_CHECKING:
    from noria.gateway.record import Turn

GREEN: Final = "green"
YELLOW: Final = "yellow"
RED: Final = "red"
UNCALIBRATED: Final = "uncalibrated"
REMEMBERED: Final = 256
"""Contexts that are kept taken apart: the same documents are found for many questions."""
_LONGEST: Final = 4096
"""Characters of a context that is kept; longer ones come from tools and do not come again."""


class Lights:
    """The lights of one task."""

    def __init__(self, rules: LightSettings) -> None:
        self._rules = rules
        self._known: dict[str, grounding.Source] = {}
        self._advice = {
            GREEN: f"You can rely on this: at most {100 * rules.wrong:g} % of answers with a green light are wrong.",
            YELLOW: "Check this before you rely on it.",
            RED: f"Do not use this: at least {100 * rules.red:g} % of answers with a red light are wrong.",
            UNCALIBRATED: "It is not known yet how far this can be trusted. Check it, and say whether it is right.",
        }

    def judge(self, turn: Turn, hidden: Filter | None) -> Mapping[str, Any]:
        """Give a finished answer its light, noted in the record; returns what the client is told of it.

        `hidden` is what guards make of the context, parts of which are shown: what they would take out of an answer
        must not come out beside it.
        """
        answer = turn.heard.answer
        context = _passing(_context(turn), hidden)
        found = None
        if context and answer:
            found = grounding.ground(self._source(context), answer, _asked(turn))
            turn.support = found.support
        score = trust.score(turn.heard.logprob, turn.support, turn.findings) if answer else None
        turn.light = light = self.colour(score, turn.served_by)
        return {
            "light": light,
            "advice": self._advised(light, found),
            "confirm": self.confirms(light, turn.id),
            "supported": found.supported if found else (),
            "unsupported": found.unsupported if found else (),
            "unused": found.unused if found else (),
        }

    def colour(self, score: float | None, served_by: str) -> str:
        """The light for a score. What serves now may not be what was calibrated: then no light is known."""
        known = self._rules.thresholds.get(served_by)
        if score is None or known is None:
            return UNCALIBRATED
        if known.red is not None and score < known.red:
            return RED
        return GREEN if known.green is not None and score >= known.green else YELLOW

    def confirms(self, light: str, identity: str) -> bool:
        """Whether the user is asked to confirm: for a share of green answers, and for all before calibration.

        The same answer for the same interaction, whoever asks.
        """
        share = self._rules.confirm
        if light == UNCALIBRATED:
            return share > 0.0
        # Not `routing.position`: CRCs under two salts depend on each other, and a sample must not miss another's rows.
        return light == GREEN and drawn("confirm", identity) < share

    def _advised(self, light: str, found: grounding.Grounding | None) -> str:
        advice = self._advice[light]
        if found is None or not found.unsupported or light == GREEN:
            return advice
        count = len(found.unsupported)
        return f"{advice} {count} of its sentences {'is' if count == 1 else 'are'} not in the sources."

    def _source(self, context: str) -> grounding.Source:
        found = self._known.get(context)
        if found is None:
            found = grounding.source(context)
            if len(context) <= _LONGEST:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[context] = found
        return found


def _context(turn: Turn) -> str:
    """What the answer was given to rest on: what retrieval found, and what tools returned."""
    results = [
        content
        for each in turn.messages
        if each.get("role") == "tool" and isinstance(content := each.get("content"), str)
    ]
    return "\n".join((turn.context, *results)) if turn.context and results else turn.context or "\n".join(results)


def _asked(turn: Turn) -> str:
    content = turn.messages[-1].get("content") if turn.messages else None
    return content if isinstance(content, str) else ""


def _passing(context: str, hidden: Filter | None) -> str:
    """What of a context may be shown; nothing where a guard would have refused it."""
    if hidden is None or not context:
        return context
    try:
        return whole(hidden, "context", context)
    except Refused:
        return ""
