"""The stage `features`: each kind of task has its own features, of the same data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pydantic import JsonValue

from noria.features import tokenise
from noria.stage import Look, Work


class Features(Protocol):
    """How features are made; the modules of this room that KINDS names are such."""

    def params(self, look: Look) -> JsonValue:
        """What changes the rows."""

    def work(self, work: Work) -> Mapping[str, JsonValue]:
        """Write the rows; returns what was counted."""


KINDS: dict[str, Features] = {"chat": tokenise}
"""By the kind of the task."""


def params(look: Look) -> JsonValue:
    """What changes the features of this task."""
    return KINDS[look.task.kind].params(look)


def work(work: Work) -> Mapping[str, JsonValue]:
    """Make the features of this task."""
    return KINDS[work.task.kind].work(work)
