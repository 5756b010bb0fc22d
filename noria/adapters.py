"""What the folder of an adapter holds, whatever recipe made it, and so how it is served."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from noria.errors import Invalid
from noria.ports import Engine, Several
from noria.stores import Lake
from noria.types import Endpoint, Ref, Wording

Kind = Literal["lora", "model", "head", "wording"]
"""A LoRA beside the base; a whole model in the base's place; a head on an encoder; words in the prompt alone."""
_KINDS: dict[str, Kind] = {"lora": "lora", "model": "model", "head": "head", "wording": "wording"}
_FILE = "adapter.json"
WORDING = "wording.json"
FORGOTTEN = "forgotten.json"
"""Put beside what was learned from rows of a person who was to be forgotten; no part of the content that names it."""
PROBES = "probes.json"
TEXTS = (PROBES, WORDING)
"""Files of an adapter that hold training rows, as texts or token ids: forgetting changes them."""


def mark(folder: Path, kind: Kind, quantization: str = "") -> None:
    """Say in the folder what it holds, and the quantization of a whole model where it is not the base's."""
    told = {"kind": kind, **({"quantization": quantization} if quantization else {})}
    (folder / _FILE).write_text(json.dumps(told) + "\n")


def endpoint(engine: Engine, adapter: Ref | None) -> Endpoint:
    """Where an adapter answers: the engine's own server, unless it has one for this adapter alone."""
    return engine.at(adapter) if isinstance(engine, Several) else engine.endpoint


def kind_of(folder: Path) -> Kind:
    """What the folder holds; a LoRA where it does not say. Raises Invalid for what this version does not know."""
    if not (folder / _FILE).is_file():
        return "lora"
    found = _told(folder).get("kind")
    if found not in _KINDS:
        raise Invalid(f"the adapter is of unknown kind '{found}'", "serve it with the version of noria that made it")
    return _KINDS[str(found)]


def quantization(lake: Lake, adapter: Ref | None, base: str) -> str:
    """What is served with this adapter: a whole model's own quantization where it says one, else the `base`'s."""
    folder = lake.path(adapter) if adapter is not None else None
    if folder is None or not (folder / _FILE).is_file():
        return base
    return str(_told(folder).get("quantization") or base)


def _told(folder: Path) -> dict[str, object]:
    try:
        told = json.loads((folder / _FILE).read_text())
    except (OSError, ValueError) as error:
        raise Invalid(f"the adapter's {_FILE} cannot be read", f"put it back from a copy: {folder / _FILE}") from error
    return told if isinstance(told, dict) else {}


def write_wording(folder: Path, wording: Wording) -> None:
    """Make the folder an adapter of words."""
    (folder / WORDING).write_text(wording.model_dump_json(indent=1) + "\n", encoding="utf-8")
    mark(folder, "wording")


def wording_of(lake: Lake, adapter: Ref | None) -> Wording | None:
    """The words that are an adapter; None for any other kind, and without one. Raises NotFound, Invalid."""
    if adapter is None:
        return None
    folder = lake.path(adapter)
    if kind_of(folder) != "wording":
        return None
    try:
        return Wording.model_validate_json((folder / WORDING).read_bytes())
    except (OSError, ValidationError) as error:
        raise Invalid(f"'{adapter}' has no readable {WORDING}", "make it again: noria run") from error


def weights(lake: Lake, adapters: Iterable[Ref]) -> frozenset[Ref]:
    """Those that an engine must load: all but words, which stand in the prompt. Raises NotFound, Invalid."""
    return frozenset(ref for ref in adapters if kind_of(lake.path(ref)) != "wording")


def loaded(lake: Lake, adapters: Iterable[Ref]) -> dict[Ref, Path]:
    """Folders of those that an engine must load, verified.

    Raises NotFound, and Invalid for one that is not as it was made.
    """
    return {ref: lake.verified(ref) for ref in sorted(weights(lake, adapters), key=str)}
