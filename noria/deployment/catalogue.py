"""Models that noria knows by name: their shapes, and what a person wants to know before choosing one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

from pydantic import JsonValue

from noria.deployment.shapes import Shape, of_config

USES: Final = ("chat", "code", "light", "strong", "embed", "rerank", "classify")
"""What models are chosen for; light ones suit small machines, strong ones hard questions."""
_QUANTIZED: Final = {"awq": "awq", "gptq": "gptq", "int4": "gptq", "fp8": "fp8", "bnb": "nf4"}


@dataclass(frozen=True, slots=True)
class Known:
    """A model of the catalogue. `parameters` is the published total, `roles` what its chat template takes."""

    key: str
    id: str
    also: tuple[str, ...]
    config: Mapping[str, JsonValue]
    parameters: int
    licence: str
    languages: tuple[str, ...]
    gated: bool
    roles: tuple[str, ...]
    uses: tuple[str, ...]
    note: str

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return of_config(self.config)


def catalogue() -> dict[str, Known]:
    """All of them, by their short names."""
    told = tomllib.loads(resources.files(__package__).joinpath("catalogue.toml").read_text())
    return {
        key: Known(
            key=key,
            id=row["id"],
            also=tuple(row.get("also", ())),
            config=row["config"],
            parameters=row["parameters"],
            licence=row["licence"],
            languages=tuple(row["languages"]),
            gated=row.get("gated", False),
            roles=tuple(row["roles"]),
            uses=tuple(row["uses"]),
            note=row.get("note", ""),
        )
        for key, row in told.items()
    }


def find(name: str) -> tuple[Known, str | None] | None:
    """The model of this name, id or other name, in any case, and the precision that the name itself states."""
    plain = name.lower().rstrip("/")
    models = catalogue()
    stated = next((kind for word, kind in _QUANTIZED.items() if plain.endswith(f"-{word}")), None)
    ways = [plain]
    for end in ("-gguf", *(f"-{word}" for word in _QUANTIZED), "-instruct", "-it", "-chat"):
        ways += [way.removesuffix(end) for way in ways if way.endswith(end)]
    for way in ways:
        for each in models.values():
            names = {each.key, *(also.lower() for also in (each.id, *each.also))}
            if way in names | {also.rpartition("/")[2] for also in names}:
                return each, stated
    return None


def names() -> list[str]:
    """Every name that `find` takes as it is, for hints."""
    return [name for each in catalogue().values() for name in (each.key, each.id, *each.also)]
