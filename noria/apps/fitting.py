"""`noria fit`: names and files become shapes, this machine becomes a device, and what was planned is told."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from noria.backends import machine, model_files
from noria.backends.processes import tree
from noria.backends.scratch import temporary
from noria.deployment import catalogue, devices, fitting, launch, memory_plan, precisions, shapes
from noria.deployment.catalogue import Known
from noria.deployment.devices import Device
from noria.deployment.fitting import Fitted, Model, Row
from noria.deployment.memory_plan import GIB, Asked, Reality
from noria.deployment.precisions import Weights
from noria.errors import Invalid, NotFound, Unavailable
from noria.settings import EngineSettings, known
from noria.types import Message

_PROMPT: Final = 600
"""Words of the prompt that a measured engine answers: more than llama.cpp computes at once."""
_BUSY: Final = 0.92
WIDTH: Final = 28
MARKS: Final = (("weights", "█"), ("cache", "▓"), ("activations", "▒"), ("overhead", "░"))


def model_of(name: str) -> tuple[Model, Known | None, str | None]:
    """The model of this name, folder or file, what the catalogue says of it, and the precision its name states.

    Raises NotFound with the nearest name, Invalid for a folder or a file that is no model.
    """
    path = Path(name).expanduser()
    if path.exists():
        return _of_files(path, path.name, None), None, None
    found = catalogue.find(name)
    if found is None:
        hint = known(name, [*catalogue.names()])
        if name.count("/") == 1 and not hint.startswith("did"):
            hint = f"hf download {name} config.json --local-dir DIR && noria fit DIR"
        elif not hint.startswith("did"):
            hint = "a folder with a config.json, a .gguf file, or one that `noria fit` lists"
        raise NotFound(f"'{name}' is no model that noria knows, and no folder or GGUF file", hint)
    entry, stated = found
    packaged = _packaged(name)
    if packaged is not None:
        return _of_files(packaged, name, entry), entry, stated
    return Model(entry.key, entry.shape, launch.Names(entry.id, entry.also)), entry, stated


def _packaged(name: str) -> Path | None:
    """The GGUF file that an installed package carries under this name."""
    from noria.backends import llamacpp
    from noria.wiring import base_model

    if name not in llamacpp.PACKAGED:
        return None
    try:
        return base_model(name)
    except Unavailable:
        return None


def _of_files(path: Path, name: str, entry: Known | None) -> Model:
    files = model_files.read(path)
    if files.fields is not None:
        shape = shapes.of_config(shapes.config_of_gguf(files.fields, files.vocabulary, files.tied))
        names = launch.Names(
            entry.id if entry else path.stem, file=str(path), known=name if entry else None, stored=files.kind
        )
    else:
        shape = shapes.of_config(files.config)
        names = launch.Names(str(path))
        if files.kind in ("fp32", "bf16") and files.parameters > shape.parameters:
            shape = replace(shape, beside=files.parameters - shape.parameters)
    if not files.bytes:
        return Model(name, shape, names)
    # Of a mixture one token reads as large a share of the file as of the parameters.
    table = 0 if shape.tied else files.table
    read = files.bytes * shape.active / shape.parameters if shape.experts else files.bytes - table
    repacked = sum(size for kind, size in files.types.items() if kind in precisions.REPACKED)
    return Model(name, shape, names, (files.kind, Weights(files.bytes, read, repacked=repacked)))


def device_of(text: str | None) -> tuple[Device, str]:
    """The device that was named, or this machine's: its cards, else its processor; and a note on what was found."""
    if text is not None and text.lower() not in ("auto", "here"):
        return devices.named(text), ""
    if cards := machine.cards():
        first = cards[0]
        equal = [card for card in cards if card.name == first.name]
        free = min(card.free_gib for card in equal)
        busy = free < _BUSY * first.memory_gib
        device = devices.of_card(first.name, free if busy else first.memory_gib, first.compute, len(equal))
        return device, f"{free:.1f} of {first.memory_gib:.1f} GiB are free" if busy else ""
    memory = (machine.free_memory() or 0) / GIB
    name = machine.chip()
    if name.lower().startswith("apple"):
        return devices.named(f"{name.lower().removeprefix('apple').strip()}={memory:.0f}GiB"), ""
    cores = os.cpu_count() or 1
    flow = machine.bandwidth(cores)
    device = Device(name or "CPU", "cpu", round(memory, 2), round(flow, 1))
    return device, f"{memory:.1f} GiB are free; {cores} cores read {flow:.0f} GB/s just now"


def gib(size: float) -> float:
    """Bytes in GiB, to four figures after the point."""
    return round(size / GIB, 4)


def told(of: Fitted, entry: Known | None, notes: Sequence[str]) -> dict[str, Any]:
    """The result for machines."""
    return {
        "model": of.model.name,
        "id": of.model.names.id,
        "parameters": of.model.shape.parameters,
        "active_parameters": of.model.shape.active,
        "context": of.asked.context,
        "concurrency": of.asked.concurrency,
        "model_context": of.model.shape.context,
        "device": {
            "name": of.device.called,
            "memory_gib": round(of.device.memory_gib * of.device.count, 2),
            "usable_gib": round(of.device.memory_gib * of.device.share * of.device.count, 2),
            "bandwidth_gb_s": of.device.bandwidth,
        },
        "rows": [row_told(row) for row in of.rows],
        "best": of.best.plan.precision if of.best else None,
        "toml": launch.table(of.best.plan, of.model.names, of.device) if of.best else None,
        "notes": [*notes, *of.notes],
        "licence": entry.licence if entry else None,
        "gated": entry.gated if entry else None,
        "languages": list(entry.languages) if entry else None,
        "roles": list(entry.roles) if entry else None,
        "uses": list(entry.uses) if entry else None,
    }


def row_told(row: Row) -> dict[str, Any]:
    """One precision for machines; sizes in GiB, speeds in tokens per second, as upper bounds."""
    plan = row.plan
    return {
        "precision": plan.precision,
        "engine": plan.engine,
        "weights_gib": gib(plan.weights),
        "nominal_gb": round(row.nominal / 1e9, 3),
        "kv_gib": gib(plan.cache),
        "activations_gib": gib(plan.activations),
        "overhead_gib": gib(plan.overhead),
        "total_gib": gib(plan.total),
        "fits": row.fits,
        "max_concurrency": None if row.requests is None else round(row.requests, 2),
        "max_context": row.context,
        "kv_cache": plan.asked.cache,
        "tokens_per_s_one": None if row.speed is None else round(row.speed[0], 1),
        "tokens_per_s_all": None if row.speed is None else round(row.speed[1], 1),
        "because": row.because,
        "gives": list(row.gives),
        "exact": row.exact,
        "command": row.command,
    }


def bar(of: memory_plan.Plan, width: int = WIDTH) -> str:
    """The parts of the memory side by side; `|` is where the device ends."""
    unit = of.limit / width
    drawn = ""
    done = 0.0
    for name, mark in MARKS:
        done += getattr(of, name)
        drawn += mark * (min(round(done / unit), 2 * width) - len(drawn))
    if len(drawn) <= width:
        return drawn.ljust(width) + "|"
    over = drawn[width : width + width // 4]
    return drawn[:width] + "|" + over + ("…" if len(drawn) > width + width // 4 else "")


def larger(entry: Known, of: Fitted) -> str:
    """What the next larger model of the same family would want; empty where it is the largest."""
    family = entry.key.rpartition("-")[0]
    models = [each for each in catalogue.catalogue().values() if each.key.rpartition("-")[0] == family]
    above = sorted((each for each in models if each.parameters > entry.parameters), key=lambda each: each.parameters)
    if not above:
        return ""
    following = above[0]
    asked = replace(of.asked, context=min(of.asked.context, following.shape.context))
    tried = fitting.fit(Model(following.key, following.shape, launch.Names(following.id)), of.device, asked)
    if tried.best is not None:
        return f"the next larger, {following.key}, fits too, in {tried.best.plan.precision}"
    possible = [row for row in tried.rows if row.gives]
    if not possible:
        return f"the next larger, {following.key}, fits in no precision"
    nearest = min(possible, key=lambda row: row.plan.total)
    return f"the next larger, {following.key}, in {nearest.plan.precision} wants {nearest.gives[0]} ({nearest.because})"


def choose(device: Device, asked: Asked, use: str | None, language: str | None) -> list[tuple[Known, Fitted]]:
    """The catalogue's models for a use and a language, the largest first, each as it would fit.

    Raises Invalid for a use that no model is listed for.
    """
    if use is not None and use not in catalogue.USES:
        raise Invalid(f"'{use}' is no use", known(use, list(catalogue.USES)))
    chosen = []
    for entry in catalogue.catalogue().values():
        spoken = language is None or language in entry.languages or any(each[:1].isdigit() for each in entry.languages)
        if (use is not None and use not in entry.uses) or not spoken:
            continue
        shape = entry.shape
        context = min(asked.context or fitting.usual(shape), shape.context)
        model = Model(entry.key, shape, launch.Names(entry.id, entry.also))
        chosen.append((entry, fitting.fit(model, device, replace(asked, context=context))))
    return sorted(chosen, key=lambda each: (each[1].best is None, -each[0].parameters))


def measure(of: Fitted, row: Row) -> Reality:
    """Start the engine of this row here, let it answer a long prompt, and hold what it takes against the plan.

    The cache of every slot is there from the start; a prompt makes it use its buffers.

    Raises Invalid for a row that cannot be started here, Unavailable when the engine does not come up.
    """
    from noria.wiring import engine_kind

    if of.device.sort != "cpu" or not row.exact:
        raise Invalid(
            "--measure wants a model's own file or folder, on this machine's processor", "noria fit FILE.gguf --measure"
        )
    if of.asked.cache in ("fp8", "q8_0"):
        raise Invalid(f"--measure takes the cache as it usually is, not in '{of.asked.cache}'", "leave out --kv")
    table = tomllib.loads(launch.table(row.plan, of.model.names, of.device))["engines"]["local"]
    try:
        settings = EngineSettings.model_validate(table)
    except ValidationError as error:
        raise Invalid(
            f"an engine of kind '{row.plan.engine}' cannot be started by noria", "attach it and measure there"
        ) from error
    before = {*tree([os.getpid()])}
    with temporary("noria-fit.") as folder:
        engine = engine_kind(settings.kind).start(settings, {}, Path(folder) / "engine.log")
        try:
            words = min(_PROMPT, of.asked.context // 2)
            messages = [Message(role="user", content=" ".join(["word"] * words))]
            engine.answer(messages, None, 4, ())
            taken = machine.taken({*tree([os.getpid()])} - before)
        finally:
            engine.close()
    return memory_plan.plan_vs_real(row.plan, taken)
