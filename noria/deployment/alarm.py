"""Alerts about engines: told, and kept in the ledger until the engine is well again."""

from __future__ import annotations

from collections.abc import Callable

from noria.errors import Unavailable
from noria.ports import Alert, Platform
from noria.types import new_id


class Alarm:
    """Fires and ends alerts. A ledger that is away delays nothing: the alert is told and not kept."""

    def __init__(self, platform: Platform, report: Callable[[str], None]) -> None:
        """`report` is told of every alert in one line."""
        self._platform = platform
        self._report = report

    def fire(self, engine: str, fact: str) -> None:
        """Something is wrong with an engine that it takes a person to put right."""
        hint = f"noria engines logs {engine}, then noria engines start {engine}"
        self._report(f"ALERT: {fact}; {hint}")
        now = self._platform.clock.now()
        try:
            self._platform.alerts.fire(Alert(new_id(now), f"engine:{engine}", fact, hint, now))
        except Unavailable as error:
            self._report(f"the alert is not kept: {error.fact}")

    def resolve(self, engine: str) -> None:
        """The engine is well again."""
        try:
            self._platform.alerts.resolve(f"engine:{engine}", self._platform.clock.now())
        except Unavailable as error:
            self._report(f"the alert of engine '{engine}' stays open: {error.fact}")
