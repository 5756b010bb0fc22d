"""What the ledger says of releases and keys, which goes on to hold while the ledger is away."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import JsonValue

from noria.deployment import lights
from noria.errors import Unavailable
from noria.ports import Platform
from noria.types import Deployment, KeyGrant


class LedgerView:
    """The ledger at the last poll that it answered; `report` is told when it goes away and comes back."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._asked = False
        self._fault = ""
        self.live: dict[str, Deployment | None] = {}
        """Live deployments by task."""
        self.keys: dict[str, KeyGrant] = {}
        """What keys grant, by their SHA-256; revoked ones are left out."""
        self.lights: dict[str, JsonValue] = {}
        """Thresholds of lights, as `lights.thresholds` gives them."""

    def poll(self, platform: Platform) -> None:
        """Ask it again; raises Unavailable as long as it has never answered."""
        try:
            live = {name: platform.deployments.current(name) for name in platform.settings.tasks}
            keys = {
                key.sha256: KeyGrant(id=key.id, name=key.name, role=key.role, models=key.models, limits=key.limits)
                for key in platform.keys.all()
                if key.revoked is None
            }
            thresholds = lights.thresholds(platform)
        except Unavailable as error:
            if not self._asked:
                raise
            if error.fact != self._fault:
                self._fault = error.fact
                self._report(f"{error.fact}; keys and releases stay as they are")
            return
        if self._fault:
            self._fault = ""
            self._report("the ledger is back")
        self.live, self.keys, self._asked = live, keys, True
        self.lights = thresholds
