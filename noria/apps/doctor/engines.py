"""Checks of the project's engines: can they be reached, do they fit, have they all they need?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from noria.apps.doctor import machine
from noria.apps.doctor.check import Check, gib, warning
from noria.backends.machine import GIB, Card, cards, free_memory
from noria.errors import NoriaError
from noria.settings import EngineSettings, Settings, engine_key, environment

OVERHEAD: Final = 128 * 2**20
"""Bytes of llama.cpp's own, beside weights and cache."""
PATIENCE: Final = 3.0
"""Seconds for an attached engine's first word."""
QUANTIZERS: Final[Mapping[str, tuple[str, str]]] = {
    "awq": ("awq", "autoawq"),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    "bitsandbytes_4bit": ("bitsandbytes", "bitsandbytes"),
    "bitsandbytes_8bit": ("bitsandbytes", "bitsandbytes"),
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "gptq": ("gptqmodel", "gptqmodel"),
    "hqq": ("hqq", "hqq"),
}
"""Quantization, as a model's config.json calls it, to the module that Transformers needs for it and its package."""
VECTORS: Final = ("encoder", "infinity")
"""Kinds that hold no conversations."""
TEMPLATE: Final = "tokenizer.chat_template"
"""Where a GGUF file has it (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""
BFLOAT16: Final = 8.0
FP8: Final = 8.9
"""Compute capability from which on NVIDIA's cards have these types (Ampere; Ada)."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a launched engine will take: weights, and KV cache of all its slots together."""

    weights: float
    cache_per_token: float
    tokens: int

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.cache_per_token * self.tokens + OVERHEAD


Planned = Callable[[EngineSettings], Need | None]


def checks(settings: Settings, planned: Planned | None = None) -> Iterator[Check]:
    """All of the engines; `planned` says what one needs, None where it cannot tell (llama.cpp's files without it)."""
    found = cards()
    cpuinfo = Path("/proc/cpuinfo")
    slow = machine.bfloat16_is_slow(cpuinfo.read_text() if cpuinfo.is_file() else "")
    for name, engine in settings.engines.items():
        title = f"engine {name}"
        if engine.url is not None:
            for url in dict.fromkeys([engine.url, *engine.urls]):
                yield reached(title, engine, url, name)
            continue
        yield from threads(title, engine, machine.cores())
        folder = Path(str(engine.model))
        yield from gguf_template(title, engine)
        if folder.is_dir():
            config = _json(folder / "config.json")
            yield from template(title, engine, folder)
            yield from quantized(title, engine, config)
            yield from types(title, engine, config, folder, found, slow)
    if not (settings.state / "up.json").is_file():
        yield from memory(settings, planned or llama_need, free_memory())
    hub = [str(each.model) for each in settings.engines.values() if each.model and _is_hub_id(each.model)]
    yield from machine.hub(hub, environment)


def reached(title: str, engine: EngineSettings, url: str, name: str) -> Check:
    """Whether an attached engine answers, lets us in and has the model."""
    try:
        parts = urlsplit(url)
        host = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    except ValueError as error:
        return Check(title, False, f"'{url}' is no address: {error}", "correct url")
    root = f"{parts.scheme}://{parts.netloc}"
    try:
        key = engine_key(engine, name)
        answer = httpx.get(
            f"{url.rstrip('/')}/models", headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE,
            trust_env=False,
        )  # fmt: skip
    except NoriaError as error:
        return Check(title, False, error.fact, error.hint)
    except httpx.ConnectError as error:
        refused = "refused" in str(error)
        fact = f"connection refused: nobody listens at {host}" if refused else f"{host} cannot be reached: {error}"
        return Check(title, False, fact, f"start it; then: curl {root}/health")
    except httpx.InvalidURL as error:
        return Check(title, False, f"'{url}' is no address: {error}", "correct url")
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        return Check(title, False, f"{host} did not answer: {why}", f"look: curl -v {root}/health")
    if answer.status_code in (401, 403):
        want = "correct its value" if engine.key else 'name the variable that holds it: key = "…"'
        return Check(title, False, f"{host} wants another key ({answer.status_code})", want)
    if answer.status_code != 200:
        hint = "url ends in /v1 for most engines" if answer.status_code == 404 else f"look: curl -v {url}/models"
        return Check(title, False, f"{url}/models answered {answer.status_code}", hint)
    return _serves(title, engine, url, answer)


def _serves(title: str, engine: EngineSettings, url: str, answer: httpx.Response) -> Check:
    try:
        models = [str(each["id"]) for each in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return Check(title, False, f"{url}/models is not OpenAI's list of models", "is url that of an engine?")
    if engine.serves is not None and engine.serves not in models:
        shown = ", ".join(models[:5]) or "none"
        return Check(title, False, f"it does not serve '{engine.serves}'", f"serves = one of: {shown}")
    return Check(title, True, f"{url} serves {', '.join(models[:3]) or 'no model'}")


def threads(title: str, engine: EngineSettings, cores: int) -> Iterator[Check]:
    """More threads than cores wait for one another."""
    if engine.threads is not None and engine.threads > cores:
        yield warning(title, f"{engine.threads} threads on {cores} cores are slower than fewer", f"threads = {cores}")


def memory(settings: Settings, planned: Planned, available: float | None) -> Iterator[Check]:
    """Whether what noria launches fits into the memory that is free now, all engines together."""
    needs = {
        name: need for name, engine in settings.engines.items() if engine.url is None and (need := planned(engine))
    }
    if available is None or not needs:
        return
    total = sum(need.total * settings.engines[name].replicas for name, need in needs.items())
    found = f"{gib(total)} of {gib(available)} that are free"
    if total <= available:
        yield Check("memory of engines", True, found)
        return
    name, need = max(needs.items(), key=lambda each: each[1].total)
    engine = settings.engines[name]
    left = available - (total - need.total * engine.replicas)
    room = (left / engine.replicas - need.weights - OVERHEAD) / max(need.cache_per_token, 1.0) / engine.slots
    context = int(room) // 128 * 128
    hint = (
        f"context = {context} for engine {name}, or fewer slots" if context >= 128
        else f"engine {name}: a smaller or more quantized model (its weights alone are {gib(need.weights)})"
    )  # fmt: skip
    yield Check("memory of engines", False, f"out of memory: {found}", hint)


def llama_need(engine: EngineSettings) -> Need | None:
    """What llama.cpp will take for a GGUF file: its size, and a 16-bit KV cache by its header."""
    if engine.kind != "llamacpp":
        return None
    header = _header(engine)
    if header is None:
        return None
    path, fields = header
    return Need(float(path.stat().st_size), cache_per_token(fields), engine.context * engine.slots)


def cache_per_token(fields: Mapping[str, str | float | bool]) -> float:
    """Bytes of a 16-bit KV cache for one token by a GGUF header: two values per layer, KV head and head dimension."""

    def number(key: str, default: float) -> float:
        value = fields.get(f"{fields.get('general.architecture')}.{key}")
        return float(value) if isinstance(value, int | float) else default

    layers, heads = number("block_count", 0), number("attention.head_count", 1)
    head = number("embedding_length", 0) / max(heads, 1)
    shared = number("attention.head_count_kv", heads)
    return 2.0 * layers * shared * (number("attention.key_length", head) + number("attention.value_length", head))


def template(title: str, engine: EngineSettings, folder: Path) -> Iterator[Check]:
    """A chat model's folder without a chat template."""
    if engine.kind in VECTORS:
        return
    beside = any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json"))
    if not beside and "chat_template" not in _json(folder / "tokenizer_config.json"):
        yield warning(
            title,
            f"no chat template in '{folder.name}'",
            "take the -Instruct variant, or add chat_template.jinja to it",
        )


def gguf_template(title: str, engine: EngineSettings) -> Iterator[Check]:
    """A chat model's GGUF file without a chat template, unless its engine is given one by a flag."""
    header = _header(engine)
    if header is None or any(flag.startswith("--chat-template") for flag in engine.flags):
        return
    path, fields = header
    if not str(fields.get(TEMPLATE) or "").strip():
        # llama.cpp then takes ChatML, which the model may never have seen; training refuses.
        yield warning(
            title,
            f"no chat template in '{path.name}': its model would be asked in a form that it may not know",
            f"take the -Instruct variant, or: gguf-new-metadata --chat-template-file FILE.jinja {path.name} NEW.gguf",
        )


def _header(engine: EngineSettings) -> tuple[Path, Mapping[str, str | float | bool]] | None:
    """The GGUF file of a chat engine, packaged or by its path, and its metadata; None where that cannot be read."""
    from noria.backends import gguf_header, llamacpp, served_models

    if engine.kind in VECTORS or not engine.model:
        return None
    if engine.kind != "llamacpp" and not served_models.is_gguf(engine.model):
        return None
    try:
        path = llamacpp.model_path(engine)
        with path.open("rb") as file:
            return path, gguf_header.read_header(file).fields
    except (NoriaError, OSError, ValueError, ImportError):
        # `back-ends` tells it.
        return None


def quantized(title: str, engine: EngineSettings, config: Mapping[str, object]) -> Iterator[Check]:
    """A package that Transformers needs for the model's quantization and that is not installed."""
    method = _method(config)
    if engine.kind != "transformers" or method not in QUANTIZERS:
        return
    module, package = QUANTIZERS[method]
    if find_spec(module) is None:
        yield Check(
            title, False, f"the model is quantized by {method}, and '{module}' is missing", f"pip install {package}"
        )


def types(
    title: str, engine: EngineSettings, config: Mapping[str, object], folder: Path, gpus: list[Card], slow: bool
) -> Iterator[Check]:
    """Number types that the hardware does not have, and FP8 made on the fly of weights that do not fit."""
    if engine.kind in ("llamacpp", "encoder"):
        return
    # Fields that only some kinds of engine have.
    asked = engine.model_dump()
    dtype, quantization = str(asked.get("dtype") or "auto"), str(asked.get("quantization") or _method(config))
    stored = str(config.get("dtype") or config.get("torch_dtype") or "")
    bfloat16 = dtype == "bfloat16" or (dtype == "auto" and stored == "bfloat16")
    if not gpus:
        if bfloat16 and slow:
            yield warning(title, "bfloat16 is slow on this processor (no AVX512_BF16, no AMX)", 'dtype = "float32"')
        return
    oldest = min(gpus, key=lambda card: card.compute)
    if bfloat16 and oldest.compute < BFLOAT16:
        yield Check(title, False, f"{oldest.name} has no bfloat16", 'dtype = "float16"')
    if quantization == "fp8":
        if oldest.compute < FP8:
            yield Check(title, False, f"{oldest.name} has no FP8", "take AWQ, GPTQ or GGUF weights")
        weights, free = weights_of(folder), sum(card.free_gib for card in gpus) * GIB
        if _method(config) != "fp8" and weights > free:
            yield Check(
                title, False,
                f"FP8 on the fly loads the full weights first: {gib(weights)}, and {gib(free)} of the GPU are free",
                "take weights that are stored in FP8 or AWQ, or more GPUs",
            )  # fmt: skip


def weights_of(folder: Path) -> float:
    """Bytes of a model folder's weights."""
    return float(sum(file.stat().st_size for file in folder.glob("*.safetensors")))


def _is_hub_id(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith((".", "/", "~")) and not Path(model).exists()


def _method(config: Mapping[str, object]) -> str:
    table = config.get("quantization_config")
    return str(table.get("quant_method", "")) if isinstance(table, dict) else ""


def _json(file: Path) -> Mapping[str, object]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
