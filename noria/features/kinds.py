"""The stage `features`: a recipe learns from features of its own kind, made of the same data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pydantic import JsonValue

from noria.features import encode, tokenise
from noria.settings import TaskSettings
from noria.stage import Look, Work


class Features(Protocol):
    """How features are made; `tokenise` and `encode` are such."""

    def params(self, look: Look) -> JsonValue:
        """What changes the rows."""

    def work(self, work: Work) -> Mapping[str, JsonValue]:
        """Write the rows; returns what was counted."""


def of(task: TaskSettings) -> Features:
    """Those of the task's recipe."""
    return encode if task.recipe.kind == "encoder" else tokenise


def params(look: Look) -> JsonValue:
    """What changes the features of this task."""
    return of(look.task).params(look)


def work(work: Work) -> Mapping[str, JsonValue]:
    """Make the features of this task."""
    return of(work.task).work(work)
