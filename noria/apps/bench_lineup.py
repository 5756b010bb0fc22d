"""Who takes part in a benchmark: engines by name, kind or address, each in the precisions that it can be started in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from noria.apps import fitting
from noria.backends import gguf_quantize, machine, served_models
from noria.backends.llamacpp import check_model, model_path
from noria.deployment import memory_plan, precisions
from noria.deployment.memory_plan import GIB, Asked
from noria.errors import Invalid, NoriaError, NotFound
from noria.ports import EngineKind, Platform, Progress
from noria.settings import EngineSettings, known
from noria.wiring import engine_kind

DTYPES: Final = ("float32", "bfloat16", "float16")
"""Precisions of engines that read folders."""
_CHARACTERS: Final = 2.5
"""Of a prompt for each token, at the least: room for most texts and tokenizers."""
_BLOCK: Final = 256
_LEAST: Final = 512
_FIT: Final = {"float32": "fp32", "bfloat16": "bf16", "float16": "bf16"}


@dataclass(frozen=True, slots=True)
class Contender:
    """An engine in one precision; `weights` are the file or folder that it serves, None where it is attached."""

    engine: str
    precision: str
    settings: EngineSettings
    kind: EngineKind
    weights: Path | None
    weights_gib: float | None = None
    kv_gib: float | None = None
    planned: float = 0.0
    """Bytes that it is thought to take in all."""

    @property
    def label(self) -> str:
        """Engine and precision."""
        return f"{self.engine} {self.precision}"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of all: a model in place of their own, precisions, requests at once, the longest prompt."""

    model: str | None
    precisions: tuple[str, ...]
    slots: int
    characters: int
    max_tokens: int


def lineup(
    names: Sequence[str], wish: Wish, platform: Platform | None, work: Path, progress: Progress
) -> tuple[list[Contender], list[str]]:
    """The contenders in their order, and remarks on how they were made; files that are made lie in `work`.

    Raises NotFound for an unknown engine, Invalid for one that cannot serve the model or a precision nobody can have.
    """
    chosen = [*names] or sorted(platform.settings.engines if platform else [])
    if not chosen:
        raise Invalid("there is no engine to measure", "noria bench llamacpp --model smollm2-135m-instruct")
    _check(wish.precisions)
    found: list[Contender] = []
    notes: list[str] = []
    made: dict[tuple[str, str], Path] = {}
    for number, name in enumerate(chosen):
        progress.update("engines", number, len(chosen), name)
        settings = _roomy(_settings(name, wish, platform), wish)
        found += _variants(name, settings, wish, work, made, notes)
    progress.update("engines", len(chosen), len(chosen))
    taken = {each.precision for each in found}
    if missed := [each for each in wish.precisions if each not in taken]:
        raise Invalid(
            f"no engine here can have precision '{missed[0]}'",
            f"GGUF kinds ({', '.join(gguf_quantize.PLAIN)}) are llama.cpp's, {', '.join(DTYPES)} those of engines that "
            "read folders",
        )
    return found, list(dict.fromkeys(notes))


def _check(kinds: Sequence[str]) -> None:
    every = (*gguf_quantize.PLAIN, *gguf_quantize.K_QUANTS, *DTYPES)
    for kind in kinds:
        if kind not in every:
            raise Invalid(f"there is no precision '{kind}'", known(kind, every))


def _settings(name: str, wish: Wish, platform: Platform | None) -> EngineSettings:
    """Of a table in noria.toml, of an address, or of a kind by its name."""
    if re.match(r"https?://", name):
        return EngineSettings(kind="openai", url=name)
    tables = dict(platform.settings.engines) if platform else {}
    if name in tables:
        own = tables[name]
        if own.url is not None or wish.model is None:
            return own
        return own.model_copy(update={"model": wish.model})
    try:
        engine_kind(name)
    except Invalid as error:
        raise NotFound(f"there is no engine '{name}'", known(name, tables) if tables else error.hint) from error
    if wish.model is None:
        raise Invalid(f"'{name}' is a kind of engine, and needs a model", f"noria bench {name} --model MODEL")
    own_python = served_models.cache() / "envs" / name / "bin" / "python"
    return EngineSettings(
        kind=name, model=wish.model, program=str(own_python) if own_python.is_file() else None,
        slots=1, context=_LEAST, device="cpu" if not machine.cards() else "auto",
    )  # fmt: skip


def _roomy(settings: EngineSettings, wish: Wish) -> EngineSettings:
    """With a slot for each request and room for the longest prompt; attached ones are as they are."""
    if settings.url is not None:
        return settings
    needed = -(-int(wish.characters / _CHARACTERS + wish.max_tokens) // _BLOCK) * _BLOCK
    room = {"slots": max(settings.slots, wish.slots), "context": max(settings.context, needed), "replicas": 1}
    return settings.model_copy(update=room)


def _variants(
    name: str, settings: EngineSettings, wish: Wish, work: Path, made: dict[tuple[str, str], Path], notes: list[str]
) -> list[Contender]:
    kind = engine_kind(settings.kind)
    if settings.url is not None:
        return [Contender(name, kind.base(settings)[1] or "unknown", settings, kind, None)]
    if not kind.caps.models:
        return _folders(name, settings, kind, wish, notes)
    file = model_path(settings)
    own = check_model(file).lower()
    wanted = [each for each in wish.precisions if each not in DTYPES] or [own]
    found = []
    for each in wanted:
        served = file if each == own else _made(file, own, each, work, made, notes)
        found.append(sized(Contender(name, each, settings.model_copy(update={"model": str(served)}), kind, served)))
    return found


def _folders(name: str, settings: EngineSettings, kind: EngineKind, wish: Wish, notes: list[str]) -> list[Contender]:
    folder = served_models.folder(settings)
    if served_models.is_gguf(served_models.named(settings)):
        notes.append(
            f"{name} serves the dequantized weights of '{settings.model}': they take more room, and know no more"
        )
    wanted = [each for each in wish.precisions if each in DTYPES]
    if not wanted:
        return [sized(Contender(name, kind.base(settings)[1], settings, kind, folder))]
    return [sized(Contender(name, each, settings.model_copy(update={"dtype": each}), kind, folder)) for each in wanted]


def _made(file: Path, own: str, kind: str, work: Path, made: dict[tuple[str, str], Path], notes: list[str]) -> Path:
    """A GGUF file at another precision; it stays in `work`, and two engines share it."""
    key = str(file), kind
    if key not in made:
        if gguf_quantize.lossy(file) is not None:
            notes.append(
                f"'{file.stem}' is {own} already: what was made of it shows speed and size, and nothing about what "
                "quantizing the original weights would lose"
            )
        out = work / f"{file.stem}.{kind}.gguf"
        gguf_quantize.quantize(file, out, kind)
        made[key] = out
    return made[key]


def sized(of: Contender) -> Contender:
    """With the sizes of its weights and of its KV cache at all slots, as `noria fit` plans them; else as it was."""
    assert of.weights is not None
    try:
        model, _, _ = fitting.model_of(str(of.weights))
    except (NoriaError, KeyError, ValueError):
        # Shapes that the planner does not know are served all the same.
        return of
    gguf = of.weights.is_file()
    engine: Literal["llamacpp", "vllm"] = "llamacpp" if gguf else "vllm"
    stored = model.stored[1].bytes if model.stored else 0.0
    kind = precisions.precision("Q8_0" if gguf else _FIT.get(of.precision, "bf16"))
    if not gguf and of.precision in DTYPES:
        stored = model.shape.parameters * (4.0 if of.precision == "float32" else 2.0)
    settings = of.settings
    cache = memory_plan.cache_bytes(model.shape, engine, kind, Asked(settings.context, settings.slots))
    if settings.cache_gib is not None:
        cache = settings.cache_gib * GIB
    fields: dict[str, Any] = {
        name: getattr(of, name) for name in ("engine", "precision", "settings", "kind", "weights")
    }
    rest = 0.3 * GIB if gguf else 2.5 * GIB
    return Contender(
        **fields, weights_gib=fitting.gib(stored), kv_gib=fitting.gib(cache), planned=stored + cache + rest
    )


def reference(contenders: Sequence[Contender], model: str | None) -> Path | None:
    """The weights that others are compared with: the model that was named, else the first that is here."""
    if model is not None:
        settings = EngineSettings(kind="any", model=model)
        return model_path(settings) if served_models.is_gguf(model) else served_models.folder(settings)
    return next((each.weights for each in contenders if each.weights is not None), None)
