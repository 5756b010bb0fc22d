"""Does it fit? A model in every precision against a device: context, requests, and what would have to give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from noria.deployment import launch, memory_plan, precisions
from noria.deployment.devices import Device
from noria.deployment.memory_plan import GIB, Asked, Engine, Plan
from noria.deployment.precisions import Precision, Weights
from noria.deployment.shapes import Shape
from noria.errors import Invalid

USUAL_CONTEXT: Final = 8192
_LEAST_CONTEXT: Final = 512


@dataclass(frozen=True, slots=True)
class Model:
    """What is to be fitted. `stored` are the exact bytes of a file or folder in the precision called so."""

    name: str
    shape: Shape
    names: launch.Names
    stored: tuple[str, Weights] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One precision. `because` says why it does not fit or cannot run, `gives` what would make it fit."""

    plan: Plan
    fits: bool
    nominal: float
    requests: float | None
    """How many of the asked context fit at once; None for an encoder, whose batches have no cache."""
    context: int
    speed: tuple[float, float] | None
    command: str
    because: str = ""
    gives: tuple[str, ...] = ()
    exact: bool = False
    """Whether the weights were read from the model's own files."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """All rows of a model on a device, and the row to take: the best precision that fits."""

    model: Model
    device: Device
    asked: Asked
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def best(self) -> Row | None:
        """Of those that fit, the one whose weights are there, else the best one by `precisions.QUALITY`.

        float32 is taken only where nothing else was asked for.
        """
        fitting = [row for row in self.rows if row.fits]
        if own := [row for row in fitting if row.exact]:
            return own[0]
        better = [row for row in fitting if row.plan.precision != "fp32"] or fitting
        return min(better, key=lambda row: _quality(row.plan.precision), default=None)


def fit(model: Model, device: Device, asked: Asked, only: Sequence[str] = (), engine: Engine | None = None) -> Fitted:
    """A row for each precision, or for those named; raises Invalid for a context that the model does not have."""
    shape = model.shape
    if not 1 <= asked.context <= shape.context:
        raise Invalid(
            f"a context of {asked.context:,} tokens: '{model.name}' has at most {shape.context:,}",
            f"--context {shape.context}",
        )
    kinds = [precisions.precision(name) for name in only] or [*precisions.ALL]
    if model.stored is not None and model.stored[0] not in {each.name for each in kinds} and not only:
        kinds.append(_stored_kind(model.stored[0]))
    if shape.encoder and not only:
        kinds = [each for each in kinds if each.name in ("fp32", "bf16")]
    rows = tuple(_row(model, kind, device, asked, engine) for kind in kinds)
    return Fitted(model, device, asked, rows, tuple(_notes(shape, rows)))


def served(model: Model, engine: Engine, device: Device, asked: Asked, only: str | None = None) -> Plan:
    """The plan of an engine that serves a model's own files, as they are stored or in the precision `only`.

    Raises Invalid where no weights lie there, and for an unknown precision.
    """
    if model.stored is None:
        raise Invalid(f"'{model.name}' has no weights here", "fetch the whole model")
    name, stored = model.stored
    if only is None or only == name:
        kind = next((each for each in precisions.ALL if each.name == name), _stored_kind(name))
    else:
        kind = precisions.precision(only)
        stored = precisions.weights(model.shape, kind)
    return memory_plan.plan(model.shape, kind, stored, engine, device, asked)


def usual(shape: Shape) -> int:
    """The context that is taken when none is asked for."""
    return min(shape.context, 512 if shape.encoder else USUAL_CONTEXT)


def _stored_kind(name: str) -> Precision:
    """A precision that a file has and that noria has no name for, such as Q3_K_M."""
    return Precision(name, "gguf" if name[:1].isupper() else "hf", 0.0, what="as the file stores it")


def _row(model: Model, kind: Precision, device: Device, asked: Asked, forced: Engine | None) -> Row:
    exact = model.stored is not None and model.stored[0] == kind.name
    stored = model.stored[1] if model.stored is not None and exact else precisions.weights(model.shape, kind)
    engine = forced or _engine(model.shape, kind, device)
    planned = memory_plan.plan(model.shape, kind, stored, engine, device, asked)
    cannot = _cannot(kind, engine, device) or _uneven(model.shape, engine, device.count)
    fits = planned.fits and not cannot
    context = memory_plan.most_context(model.shape, kind, stored, planned, device)
    requests = memory_plan.most_requests(model.shape, kind, planned, device.count)
    lacking = (planned.total - planned.limit) / GIB
    return Row(
        plan=planned,
        fits=fits,
        nominal=precisions.nominal(model.shape, kind),
        requests=None if model.shape.encoder else requests,
        context=context,
        speed=None if model.shape.encoder else memory_plan.speed(planned, device),
        command=launch.command(planned, model.names, device),
        because=cannot or ("" if fits else f"{lacking:.1f} GiB too much"),
        gives=() if fits or cannot else tuple(_gives(model, kind, stored, planned, device, requests, context)),
        exact=exact,
    )


def _engine(shape: Shape, kind: Precision, device: Device) -> Engine:
    if shape.encoder:
        return "infinity"
    if kind.form == "gguf" or (device.sort != "cuda" and kind.name in ("fp32", "bf16")):
        return "llamacpp"
    return "vllm"


def _cannot(kind: Precision, engine: Engine, device: Device) -> str:
    if engine == "vllm" and kind.form == "gguf":
        return "GGUF is for llama.cpp"
    if engine == "llamacpp" and kind.form == "hf" and kind.name not in ("fp32", "bf16"):
        return "llama.cpp reads GGUF"
    if device.sort == "apple" and engine == "vllm":
        return "vLLM wants an NVIDIA card"
    if device.sort == "cpu" and engine == "vllm" and kind.name in ("fp8", "int8", "nf4"):
        return f"{kind.name} wants an NVIDIA card"
    if device.sort == "cuda" and kind.name == "fp8" and not device.fp8:
        return f"{device.name} has no FP8 (Ada and Hopper have)"
    if device.sort == "cuda" and engine == "vllm" and device.compute < kind.compute:
        return f"wants compute capability {kind.compute:g}, {device.name} has {device.compute:g}"
    return ""


def _uneven(shape: Shape, engine: Engine, devices: int) -> str:
    """Splitting goes by heads."""
    uneven = engine == "vllm" and shape.heads % devices
    return f"its {shape.heads} heads cannot be split over {devices}" if uneven else ""


def _gives(
    model: Model, kind: Precision, stored: Weights, of: Plan, device: Device, requests: float, context: int
) -> list[str]:
    """What would make it fit, from the cheapest to the dearest."""
    asked, gives = of.asked, list[str]()
    half = replace(asked, cache="q8_0" if of.engine == "llamacpp" else "fp8")
    if asked.cache is None and memory_plan.plan(model.shape, kind, stored, of.engine, device, half).fits:
        gives.append(f"a KV cache in {half.cache}")
    if 1 <= requests < asked.concurrency:
        gives.append(f"{math.floor(requests)} instead of {asked.concurrency} requests")
    if context >= _LEAST_CONTEXT:
        gives.append(f"{context:,} instead of {asked.context:,} tokens of context")
    for count in (2, 4, 8, 16):
        if count <= device.count or device.sort != "cuda" or _uneven(model.shape, of.engine, count):
            continue
        more = replace(device, count=count)
        if memory_plan.plan(model.shape, kind, stored, of.engine, more, asked).fits:
            gives.append(f"{count}x {device.name}")
            break
    return gives


def _notes(shape: Shape, rows: Sequence[Row]) -> list[str]:
    notes = []
    if shape.experts:
        notes.append(
            f"all {shape.experts} experts lie in memory; that a token takes {shape.chosen} of them saves time only"
        )
    if shape.windowed:
        notes.append(f"{shape.windowed} of {shape.layers} layers cache at most {shape.window:,} tokens")
    if shape.latent is not None:
        notes.append(f"latent attention: {shape.latent} values a token and layer in place of keys and values")
    fallen = [row for row in rows if row.plan.fallback > 0.1 and not row.exact]
    if fallen:
        names = ", ".join(row.plan.precision for row in fallen)
        notes.append(f"256 does not divide the width {shape.hidden}: {names} fall back to larger types in places")
    if any(row.plan.precision == "fp8" and row.fits for row in rows):
        full = precisions.weights(shape, precisions.precision("bf16")).bytes / GIB
        notes.append(
            f"fp8 made while loading holds {full:.1f} GiB of bf16 weights first; a ready fp8 checkpoint does not"
        )
    return notes


def _quality(name: str) -> int:
    return precisions.QUALITY.index(name) if name in precisions.QUALITY else len(precisions.QUALITY)
