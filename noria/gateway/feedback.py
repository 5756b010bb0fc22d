"""POST /v1/feedback: what was said of an answer later."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from noria.errors import Invalid
from noria.gateway.record import Journal, pseudonym
from noria.ports import Clock
from noria.types import new_id

CORRECTION = "correction"
"""Metric of feedback that is nothing but a correction."""

_FIELDS = ("interaction", "metric", "value", "correction", "user")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_METRIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class Opinion:
    """Checked feedback; `user` is the client's own name for who said it."""

    interaction: str
    metric: str
    value: float | None
    correction: str | None
    user: str | None


def parse(body: Mapping[str, Any]) -> Opinion:
    """Check the body of a feedback request; raises Invalid with the field that is wrong.

    `metric` and `value` may be missing where there is a correction. Whether the interaction exists is not asked:
    it may lie in the log of another gateway.
    """
    for field in body:
        if field not in _FIELDS:
            raise Invalid(f"unknown field '{field}'", f"known are: {', '.join(_FIELDS)}")
    interaction = body.get("interaction")
    if not isinstance(interaction, str) or not _UUID.fullmatch(interaction):
        raise Invalid(
            f"'interaction' is '{interaction}', which is not the id of an interaction",
            "send the value of the answer's header x-noria-interaction",
        )
    correction = _text(body, "correction")
    metric, value = body.get("metric"), body.get("value")
    if metric is None:
        if correction is None or value is not None:
            raise Invalid("'metric' is missing", 'send "metric" and "value", or a "correction" alone')
        metric = CORRECTION
    if not isinstance(metric, str) or not _METRIC.fullmatch(metric):
        raise Invalid(f"'metric' is '{metric}'", "at most 63 letters, digits, dots, dashes and underscores")
    if value is None and correction is None:
        raise Invalid("'value' is missing", "send a number, such as 1 for thumbs up, or a correction")
    if value is not None and (not isinstance(value, (int, float)) or not math.isfinite(value)):
        raise Invalid(f"'value' is '{value}'", "send a number")
    return Opinion(
        interaction.lower(), metric, None if value is None else float(value), correction, _text(body, "user")
    )


class FeedbackDesk:
    """Takes feedback into the log. `secret` keys the pseudonyms of users."""

    def __init__(self, journal: Journal, clock: Clock, secret: bytes) -> None:
        self._journal = journal
        self._clock = clock
        self._secret = secret

    def take(self, body: Mapping[str, Any], key_name: str) -> str:
        """Check and log feedback; returns its id. Raises Invalid, or Unavailable when the disk refuses it."""
        said = parse(body)
        at = self._clock.now()
        identity = new_id(at)
        line = {
            "kind": "feedback", "id": identity, "at": at, "interaction": said.interaction, "metric": said.metric,
            "value": said.value, "correction": said.correction,
            "user": pseudonym(self._secret, said.user or key_name),
        }  # fmt: skip
        self._journal.append(orjson.dumps(line))
        return identity


def _text(body: Mapping[str, Any], field: str) -> str | None:
    value = body.get(field)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise Invalid(f"'{field}' is '{value}'", f"send {field} as text, or leave it out")
    return value
