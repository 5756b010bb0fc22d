"""What a model needs in memory when it serves: weights, KV cache, what is computed at once, and the engine itself.

All sizes are bytes over all devices together. Constants that no formula gives were measured; `docs/fit.md` says where.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from noria.deployment.devices import Device
from noria.deployment.precisions import Precision, Weights
from noria.deployment.shapes import Shape

Engine = Literal["llamacpp", "vllm", "infinity"]
Cache = Literal["fp16", "fp8", "q8_0"]
GIB: Final = 2.0**30
MIB: Final = 2.0**20
UBATCH: Final = 512
"""Tokens that llama.cpp computes at once."""
CHUNK: Final = 2048
"""Tokens that vLLM computes at once in its server (`max_num_batched_tokens`)."""
_LLAMA_PROCESS: Final = 60 * MIB
_LLAMA_WORD: Final = 300.0
"""Of llama.cpp's own tables, for each word of the vocabulary."""
_LLAMA_CUDA: Final = 0.5 * GIB
_VLLM_CUDA: Final = 0.35 * GIB
_VLLM_LINK: Final = 0.4 * GIB
_VLLM_CPU: Final = 1.6 * GIB
_INFINITY: Final = 0.45 * GIB
_SAMPLED: Final = 4
"""Copies of the float32 logits while vLLM samples: as they come, sorted, as probabilities, and their running sum."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be served: tokens per request, requests at once, and how the cache is stored (None: as usual)."""

    context: int
    concurrency: int
    cache: Cache | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts of the memory and what there is, in bytes; `limit` is what the engine may have of the devices."""

    engine: Engine
    precision: str
    asked: Asked
    weights: float
    cache: float
    activations: float
    overhead: float
    limit: float
    read: float
    """Of the weights, what one token reads."""
    fallback: float = 0.0

    @property
    def fixed(self) -> float:
        """All but the cache."""
        return self.weights + self.activations + self.overhead

    @property
    def total(self) -> float:
        """All of it."""
        return self.fixed + self.cache

    @property
    def fits(self) -> bool:
        """Whether it is within the limit."""
        return self.total <= self.limit


def plan(shape: Shape, kind: Precision, stored: Weights, engine: Engine, device: Device, asked: Asked) -> Plan:
    """The plan of one model in one precision (its weights are `stored`) on an engine and devices."""
    copied = stored.repacked if engine == "llamacpp" and device.sort == "cpu" else 0.0
    return Plan(
        engine=engine,
        precision=kind.name,
        asked=asked,
        weights=stored.bytes,
        cache=cache_bytes(shape, engine, kind, asked, device.count),
        activations=_activations(shape, engine, kind, asked) * device.count,
        overhead=_overhead(shape, engine, device) + copied,
        limit=device.memory_gib * device.share * GIB * device.count,
        read=stored.read,
        fallback=stored.fallback,
    )


def value_bytes(engine: Engine, kind: Precision, cache: Cache | None) -> float:
    """Bytes of one cached value; of the two 8-bit kinds each engine has one: vLLM fp8, llama.cpp q8_0."""
    if cache in ("fp8", "q8_0"):
        return 34 / 32 if engine == "llamacpp" else 1.0
    # vLLM keeps the cache in the weights' own type.
    return 4.0 if cache is None and kind.name == "fp32" and engine == "vllm" else 2.0


def cache_bytes(shape: Shape, engine: Engine, kind: Precision, asked: Asked, devices: int = 1) -> float:
    """KV cache of all requests at their full context.

    Layers with a sliding window hold that many tokens at the most; of Mistral and Phi-3, where all layers have one,
    llama.cpp holds all tokens. Over more devices than there are key-value heads these are repeated.
    """
    if not shape.cached:
        return 0.0
    tokens = _padded(asked.context, engine)
    full = shape.layers
    slots = 0
    if shape.window is not None and shape.windowed and (engine == "vllm" or shape.windowed < shape.layers):
        full = shape.layers - shape.windowed
        beyond = UBATCH if engine == "llamacpp" else 0
        slots = shape.windowed * min(tokens, _padded(shape.window + beyond, engine))
    repeats = 1.0
    if engine == "vllm" and devices > 1:
        repeats = devices if shape.latent is not None else max(1.0, devices / shape.kv_heads)
    per_layer = shape.cached * value_bytes(engine, kind, asked.cache)
    return (full * tokens + slots) * per_layer * asked.concurrency * repeats


def _padded(tokens: int, engine: Engine) -> int:
    block = 256 if engine == "llamacpp" else 16
    return -(-tokens // block) * block


def _activations(shape: Shape, engine: Engine, kind: Precision, asked: Asked) -> float:
    if engine == "infinity":
        tokens = asked.context * asked.concurrency
        return tokens * (2 * shape.inner + 6 * shape.hidden) * (4.0 if kind.name == "fp32" else 2.0)
    if engine == "llamacpp":
        return _llama_graph(shape, asked)
    width = 4.0 if kind.name == "fp32" else 2.0
    tokens = max(CHUNK, asked.concurrency)
    return tokens * (3 * shape.inner + 4 * shape.hidden) * width + _SAMPLED * 4.0 * asked.concurrency * shape.vocabulary


def _llama_graph(shape: Shape, asked: Asked) -> float:
    """llama.cpp's compute buffer: the feed-forward's tensors or the logits of a token per request, and the mask."""
    forward = UBATCH * 4.0 * (3 * shape.inner + 5 * shape.hidden)
    out = 4.0 * asked.concurrency * (shape.vocabulary + 2 * shape.hidden)
    mask = 2.0 * UBATCH * _padded(asked.context, "llamacpp")
    return max(forward, out) + mask + 4.0 * asked.concurrency * shape.vocabulary


def _overhead(shape: Shape, engine: Engine, device: Device) -> float:
    if engine == "infinity":
        return _INFINITY + (_VLLM_CUDA if device.sort == "cuda" else 0.0)
    if engine == "llamacpp":
        process = _LLAMA_PROCESS + _LLAMA_WORD * shape.vocabulary
        return process if device.sort == "cpu" else _LLAMA_CUDA * device.count
    if device.sort != "cuda":
        return _VLLM_CPU
    return (_VLLM_CUDA + (_VLLM_LINK if device.count > 1 else 0.0)) * device.count


def most_requests(shape: Shape, kind: Precision, of: Plan, devices: int) -> float:
    """How many requests of the asked context the cache holds: vLLM's "maximum concurrency"; inf without a cache."""
    one = cache_bytes(shape, of.engine, kind, Asked(of.asked.context, 1, of.asked.cache), devices)
    return max(0.0, of.limit - of.fixed) / one if one else float("inf")


def most_context(shape: Shape, kind: Precision, stored: Weights, of: Plan, device: Device) -> int:
    """The longest context that fits for as many requests as asked, at most the model's own; 0 where none does."""
    low, high = 0, shape.context
    while low < high:
        middle = (low + high + 1) // 2
        tried = plan(shape, kind, stored, of.engine, device, Asked(middle, of.asked.concurrency, of.asked.cache))
        low, high = (middle, high) if tried.fits else (low, middle - 1)
    return low


def speed(of: Plan, device: Device) -> tuple[float, float] | None:
    """Most tokens per second of one request with an empty cache, and of all with full ones; None without a bandwidth.

    A token reads the weights and its own cache once: no engine is faster than the memory (the roofline's slope,
    Williams et al. 2009). Requests at once share what is read of the weights.
    """
    if device.bandwidth is None or not of.read:
        return None
    flow = device.bandwidth * 1e9 * device.count
    return flow / of.read, of.asked.concurrency * flow / (of.read + of.cache)


@dataclass(frozen=True, slots=True)
class Reality:
    """A plan beside what was measured, in bytes. `off` is signed: above 0 the plan said too much."""

    planned: float
    measured: float

    @property
    def off(self) -> float:
        """Error of the plan as a share of what was measured."""
        return self.planned / self.measured - 1.0


def plan_vs_real(of: Plan, measured: float) -> Reality:
    """The plan beside the bytes that the engine's processes took."""
    return Reality(of.total, measured)
