"""What engines of noria.toml are planned to take of this machine's memory, by the files of their models."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Final

from noria.apps import fitting as glue
from noria.backends import machine, served_kinds, served_models
from noria.deployment import fitting, sharing
from noria.deployment.devices import Device
from noria.deployment.memory_plan import GIB, Asked, Plan
from noria.errors import NoriaError
from noria.settings import EngineSettings
from noria.wiring import base_model

_MADE: Final = {"bitsandbytes": "nf4", "fp8": "fp8"}
"""Quantization that vLLM does while it loads, as plans call it."""
_PLAIN: Final = ("fp32", "bf16")


class Plans:
    """Plans are made once for each state of a model's files; may be asked from any thread."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, Path, int, int], Plan | None] = {}
        self._making = threading.Lock()

    def plan(self, settings: EngineSettings) -> Plan | None:
        """What one replica takes of this machine's memory, without adapters.

        None where that cannot be planned: for kinds beside llamacpp and vllm (infinity's memory comes and goes with
        its batches), for engines that are attached, in a container or on cards, and for models of an unknown shape.
        Raises NoriaError for a model that is not there.
        """
        if settings.model is None or settings.kind not in ("llamacpp", "vllm"):
            return None
        path = _model(settings)
        stat = (path if path.is_file() else path / "config.json").stat()
        key = (settings.model_dump_json(), path, stat.st_size, stat.st_mtime_ns)
        with self._making:
            if key not in self._made:
                self._made[key] = _planned(settings, path) if _is_here(settings) else None
            return self._made[key]

    def need(self, settings: EngineSettings) -> int:
        """Bytes that an engine takes with all its replicas; raises NoriaError for a model that is not there."""
        found = self.plan(settings) if settings.memory is None else None
        return sharing.need(settings, _model(settings), None if found is None else found.total)


def _is_here(settings: EngineSettings) -> bool:
    """Whether it computes in this machine's own memory, and in processes of noria's."""
    if settings.kind == "vllm":
        return settings.device == "cpu" and settings.container is None
    # The llama.cpp that noria brings knows no cards; one of the user's takes those that are there.
    cards = settings.program is not None and settings.device != "cpu" and machine.cards()
    return settings.kind == "llamacpp" and not cards


def _planned(settings: EngineSettings, path: Path) -> Plan | None:
    try:
        model, _, _ = glue.model_of(str(path))
        here = Device("this machine", "cpu", (machine.free_memory() or 0) / GIB)
        if settings.kind == "llamacpp":
            asked = Asked(settings.context, settings.slots, "q8_0" if "q8_0" in settings.flags else None)
            return fitting.served(model, "llamacpp", here, asked)
        precision = _MADE.get(settings.quantization or "")
        if precision is None and (path.is_file() or (model.stored is not None and model.stored[0] in _PLAIN)):
            # A GGUF file is unpacked for it; by itself it takes 16 bits.
            precision = "fp32" if settings.dtype == "float32" else "bf16"
        found = fitting.served(model, "vllm", here, Asked(settings.context, settings.slots), precision)
        # It takes the whole space that it is given, however much of it the requests want.
        return replace(found, cache=math.ceil(settings.cache_gib or served_kinds.CPU_CACHE_GIB) * GIB)
    except NoriaError:
        return None


def _model(settings: EngineSettings) -> Path:
    """The files of an engine's model; raises NoriaError where they are not there."""
    if settings.kind in served_kinds.MAKES and not served_models.is_gguf(served_models.named(settings)):
        return served_models.folder(settings)
    return base_model(settings.model or "")
