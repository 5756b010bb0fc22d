"""The memory that launched engines share, by what they are measured or estimated to take."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from noria.deployment.replicas import Replicas
from noria.deployment.sharing import Loaded, room
from noria.errors import NoriaError
from noria.settings import EngineSettings


class Memory:
    """Of `budget` bytes; None is without a bound. `need` estimates what an engine takes."""

    def __init__(self, budget: int | None, need: Callable[[EngineSettings], int]) -> None:
        self._budget = budget
        self._need = need

    def bytes(self, replicas: Replicas) -> int:
        """What an engine takes, by measure or estimate, whichever is more: a cache fills only with use."""
        return max(replicas.memory, self._estimate(replicas.settings))

    def room(
        self,
        name: str,
        settings: EngineSettings,
        loaded: Mapping[str, Replicas],
        used: Mapping[str, float],
        free: Callable[[str], bool],
    ) -> tuple[list[str], str]:
        """Engines to unload for this one, and why it cannot be started.

        Only an engine with `idle` that has nothing in flight (`free`) makes room.
        """
        if self._budget is None or settings.model is None:
            return [], ""
        there = {
            each: Loaded(
                self.bytes(replicas), used.get(each, 0.0),
                each != name and replicas.settings.idle is not None and free(each),
            )
            for each, replicas in loaded.items()
            if replicas.settings.model is not None
        }  # fmt: skip
        wanted = self._estimate(settings)
        going = room(wanted, self._budget, there)
        if going is None:
            held = sum(each.bytes for each in there.values())
            return [], (
                f"it needs {_mib(wanted)}, of {_mib(self._budget)} ([runtime] memory) {_mib(held)} are in use by "
                f"{', '.join(sorted(there)) or 'nobody'}"
            )
        return going, ""

    def waits(self, settings: EngineSettings, loaded: Mapping[str, Replicas], leaving: int) -> bool:
        """Whether there is room only when what is leaving has gone."""
        if self._budget is None or settings.model is None:
            return False
        held = sum(self.bytes(each) for each in loaded.values() if each.settings.model is not None)
        return held + leaving + self._estimate(settings) > self._budget

    def _estimate(self, settings: EngineSettings) -> int:
        try:
            return 0 if settings.model is None else self._need(settings)
        except NoriaError:
            # What is wrong with the model shows when it is started.
            return settings.memory_bytes or 0


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
