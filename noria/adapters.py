"""What the folder of an adapter holds, whatever recipe made it, and so how it is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from noria.errors import Invalid
from noria.ports import Engine, Several
from noria.types import Endpoint, Ref

Kind = Literal["lora", "model", "head", "wording"]
"""A LoRA beside the base; a whole model in the base's place; a head on an encoder; words in the prompt alone."""
_KINDS: dict[str, Kind] = {"lora": "lora", "model": "model", "head": "head", "wording": "wording"}
_FILE = "adapter.json"


def mark(folder: Path, kind: Kind) -> None:
    """Say in the folder what it holds."""
    (folder / _FILE).write_text(json.dumps({"kind": kind}) + "\n")


def endpoint(engine: Engine, adapter: Ref | None) -> Endpoint:
    """Where an adapter answers: the engine's own server, unless it has one for this adapter alone."""
    return engine.at(adapter) if isinstance(engine, Several) else engine.endpoint


def kind_of(folder: Path) -> Kind:
    """What the folder holds; a LoRA where it does not say. Raises Invalid for what this version does not know."""
    file = folder / _FILE
    if not file.is_file():
        return "lora"
    found = json.loads(file.read_text()).get("kind")
    if found not in _KINDS:
        raise Invalid(f"the adapter is of unknown kind '{found}'", "serve it with the version of noria that made it")
    return _KINDS[found]
