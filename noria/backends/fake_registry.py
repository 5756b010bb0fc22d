"""A stand-in for a model registry that ships with noria: versions, tags and aliases in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from noria.errors import NoriaError, NotFound
from noria.types import ModelVersion


class FakeRegistry:
    """Port `Registry` in memory. `away` is what every call raises, as where MLflow does not answer."""

    def __init__(self) -> None:
        self.away: NoriaError | None = None
        self.folders: dict[str, list[str]] = {}
        self._models: dict[str, dict[str, ModelVersion]] = {}

    def versions(self, model: str) -> list[ModelVersion]:
        """Every version, newest first."""
        return sorted(self._of(model).values(), key=lambda each: int(each.version), reverse=True)

    def put(
        self,
        model: str,
        candidate: str,
        tags: Mapping[str, str],
        folders: Mapping[str, Path],
        besides: Collection[str] = (),
    ) -> str:
        """Remember a candidate and the names of its files."""
        found = self._models.setdefault(model, {}) if self.away is None else self._of(model)
        there = next((each for each in found.values() if each.candidate == candidate), None)
        version = there.version if there else str(max(map(int, found), default=0) + 1)
        before = there.tags if there else {}
        aliases = there.aliases if there else ()
        found[version] = ModelVersion(model, version, candidate, {**before, **tags}, aliases)
        files = [f"{name}/{file.name}" for name, folder in folders.items() for file in sorted(folder.iterdir())]
        files = [file for file in files if file.rpartition("/")[2] not in besides]
        self.folders[candidate] = sorted({*self.folders.get(candidate, ()), *files})
        return version

    def tag(self, model: str, version: str, tags: Mapping[str, str | None]) -> None:
        """Set tags; None takes one away."""
        found = self._of(model)
        kept = {key: value for key, value in {**found[version].tags, **tags}.items() if value is not None}
        found[version] = replace(found[version], tags=kept)

    def alias(self, model: str, aliases: Mapping[str, str | None]) -> None:
        """Let aliases name versions; None takes one away."""
        found = self._of(model)
        for name, version in aliases.items():
            for each in found.values():
                others = {*each.aliases} - {name}
                mine = {name} if each.version == version else set()
                found[each.version] = replace(each, aliases=tuple(sorted(others | mine)))

    def remove(self, model: str, version: str) -> None:
        """Forget a version; raises NotFound."""
        if self._of(model).pop(version, None) is None:
            raise NotFound(f"'{model}' has no version '{version}'", f"list them: noria registry list {model}")

    def _of(self, model: str) -> dict[str, ModelVersion]:
        if self.away is not None:
            raise self.away
        return self._models.get(model, {})
