"""Plans against what was published: tables of the makers, sizes of files on the hub, logs of engines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_shapes import DEEPSEEK

from noria.deployment import catalogue, devices, memory_plan, precisions
from noria.deployment.memory_plan import GIB, Asked, Plan
from noria.deployment.shapes import of_config

KNOWN = catalogue.catalogue()
SHAPES = {key: each.shape for key, each in KNOWN.items()}


def planned(key: str, kind: str, device: str, asked: Asked, engine: memory_plan.Engine = "vllm") -> Plan:
    shape, precision = SHAPES[key], precisions.precision(kind)
    stored = precisions.weights(shape, precision)
    return memory_plan.plan(shape, precision, stored, engine, devices.named(device), asked)


# https://huggingface.co/blog/llama31#inference-memory-requirements, in decimal GB, each parameter at its name's bits.
WEIGHTS = [
    ("llama-3.1-8b", 16, 8, 4),
    ("llama-3.1-70b", 140, 70, 35),
    ("llama-3.1-405b", 810, 405, 203),
]


@pytest.mark.parametrize(("key", "fp16", "fp8", "int4"), WEIGHTS)
def test_published_weights_of_llama_31(key: str, fp16: float, fp8: float, int4: float) -> None:
    found = [precisions.nominal(SHAPES[key], precisions.precision(name)) / 1e9 for name in ("bf16", "fp8", "awq")]
    assert found == pytest.approx([fp16, fp8, int4], rel=0.05)
    # In 16 bits what is really stored is the same.
    assert precisions.weights(SHAPES[key], precisions.precision("bf16")).bytes / 1e9 == pytest.approx(fp16, rel=0.05)


# The same page, in GiB; 405B as first published, with 16 key-value heads. Today's config has 8, so half of it.
CACHES = [
    ("llama-3.1-8b", 0.125, 1.95, 15.62),
    ("llama-3.1-70b", 0.313, 4.88, 39.06),
    ("llama-3.1-405b-mp16", 0.984, 15.38, 123.05),
]


@pytest.mark.parametrize(("key", "short", "middle", "long"), CACHES)
def test_published_caches_of_llama_31(key: str, short: float, middle: float, long: float) -> None:
    found = [planned(key, "bf16", "8xH200", Asked(tokens, 1)).cache / GIB for tokens in (1024, 16_000, 128_000)]
    assert found == pytest.approx([short, middle, long], rel=0.05)


def test_the_405b_of_today_caches_half_of_what_was_published() -> None:
    now, then = (
        planned(key, "bf16", "8xH200", Asked(128_000, 1)).cache for key in ("llama-3.1-405b", "llama-3.1-405b-mp16")
    )
    assert now == then / 2


# Weights in GiB and the cache that vLLM then had on an A100 40 GB, with its default of 256 sequences. The lab printed
# 3.22 for float32 too; 1.72 billion parameters of four bytes are 6.41, and only then do both add up to one budget.
LAB = [
    ("qwen3-1.7b", "fp32", 6.41, 27.92),
    ("qwen3-1.7b", "bf16", 3.22, 31.06),
    ("qwen3-1.7b", "nf4", 1.33, 32.95),
    ("qwen3-14b", "bf16", 27.52, 6.66),
    ("qwen3-14b", "nf4", 9.9, 24.28),
]


@pytest.mark.parametrize(("key", "kind", "weights", "cache"), LAB)
def test_weights_and_caches_of_the_lab(key: str, kind: str, weights: float, cache: float) -> None:
    plan = planned(key, kind, "a100-40", Asked(8192, 256))
    assert plan.weights / GIB == pytest.approx(weights, rel=0.05)
    assert (plan.limit - plan.fixed) / GIB == pytest.approx(cache, rel=0.05)


# Sizes of published checkpoints in decimal GB.
FILES = [
    ("llama-3.1-8b", "Q8_0", 8.54), ("llama-3.1-8b", "Q6_K", 6.60), ("llama-3.1-8b", "Q5_K_M", 5.73),
    ("llama-3.1-8b", "Q4_K_M", 4.92), ("llama-3.1-8b", "Q4_0", 4.66), ("llama-3.1-8b", "awq", 5.74),
    ("llama-3.1-8b", "fp8", 9.08), ("llama-3.1-70b", "awq", 39.77), ("llama-3.1-70b", "Q4_K_M", 42.52),
    ("mistral-7b", "Q4_K_M", 4.37), ("mistral-7b", "Q8_0", 7.70), ("mixtral-8x7b", "Q4_K_M", 28.45),
    ("smollm2-135m", "Q4_1", 0.0984), ("smollm2-135m", "Q4_0", 0.0917), ("smollm2-135m", "Q4_K_M", 0.1055),
    ("smollm2-135m", "Q8_0", 0.1448), ("smollm2-135m", "bf16", 0.269), ("qwen2.5-0.5b", "Q4_K_M", 0.398),
]  # fmt: skip


@pytest.mark.parametrize(("key", "kind", "gb"), FILES)
def test_sizes_of_published_files(key: str, kind: str, gb: float) -> None:
    assert precisions.weights(SHAPES[key], precisions.precision(kind)).bytes / 1e9 == pytest.approx(gb, rel=0.02)


def test_narrow_rows_fall_back_to_larger_types() -> None:
    small, large = (
        precisions.weights(SHAPES[key], precisions.precision("Q4_K_M")) for key in ("smollm2-135m", "qwen3-14b")
    )
    assert small.fallback > 0.5
    assert large.fallback == 0
    # So that Q4_K_M is the larger file of the two.
    assert small.bytes > precisions.weights(SHAPES["smollm2-135m"], precisions.precision("Q4_0")).bytes


def test_llama_cpp_holds_what_it_repacks_twice_on_a_processor_only() -> None:
    """SmolLM2-135M in Q4_0 took 0.271 GiB for one slot of 2,048 tokens; the same with Q4_1, which it leaves, 0.222."""
    asked = Asked(2048, 1)
    copied, left = (planned("smollm2-135m", kind, "CPU=16GiB", asked, "llamacpp") for kind in ("Q4_0", "Q4_1"))
    assert copied.total / GIB == pytest.approx(0.271, rel=0.02)
    assert left.total / GIB == pytest.approx(0.222, rel=0.02)
    card, apple = (planned("smollm2-135m", "Q4_0", device, asked, "llamacpp") for device in ("T4", "m1"))
    assert card.overhead == apple.overhead == 0.5 * GIB


def test_the_concurrency_that_vllm_logged_for_a_cache() -> None:
    """S: `Maximum concurrency for 32,768 tokens per request: 6.59x`, with about 2.5 GiB of cache."""
    plan = planned("qwen2-0.5b", "awq", "rtx-2060", Asked(32_768, 256))
    plan = replace(plan, limit=plan.fixed + 2.47 * GIB)
    found = memory_plan.most_requests(SHAPES["qwen2-0.5b"], precisions.precision("awq"), plan, 1)
    assert found == pytest.approx(6.59, rel=0.005)


def test_vllm_memory_profile_of_llama_3_8b() -> None:
    """vllm-project/vllm pull request 10511: 79.22 GiB x 0.9, weights 14.96 GiB, activations 1.26 at 8,192 tokens."""
    plan = planned("llama-3-8b", "bf16", "a100-80", Asked(8192, 256))
    assert plan.weights / GIB == pytest.approx(14.96, rel=0.005)
    assert plan.limit / GIB == pytest.approx(71.29, rel=0.005)


def test_33_the_32b_in_full_precision_needs_the_large_card() -> None:
    small, large = (planned("qwen2.5-32b", "bf16", device, Asked(8192, 1)) for device in ("a100-40", "a100-80"))
    assert small.weights / GIB == pytest.approx(61, rel=0.01)
    assert not small.fits
    assert large.fits


def test_all_experts_lie_in_memory() -> None:
    plan = planned("mixtral-8x7b", "bf16", "2xh100-nvl", Asked(32_768, 1))
    assert plan.weights / GIB == pytest.approx(87.0, rel=0.01)
    assert plan.read < plan.weights / 3
    assert plan.fits


def test_windows_bound_the_cache() -> None:
    one = Asked(131_072, 1)
    gemma = planned("gemma-3-27b", "bf16", "2xh100", one)
    full = 2 * 62 * SHAPES["gemma-3-27b"].cached * 131_072
    # 10 layers of 62 see all, 52 the last 1,024 tokens.
    assert gemma.cache == pytest.approx(full * (10 + 52 / 128) / 62, rel=1e-9)
    mistral = planned("mistral-7b-v0.1", "bf16", "H100", Asked(32_768, 1))
    assert mistral.cache == 2 * 32 * 2048 * 4096
    # llama.cpp keeps all of them where no layer sees everything.
    kept = planned("mistral-7b-v0.1", "Q8_0", "H100", Asked(32_768, 1), "llamacpp")
    assert kept.cache == 2 * 32 * 2048 * 32_768
    swept = planned("gemma-3-27b", "Q8_0", "H100", one, "llamacpp")
    assert gemma.cache < swept.cache < 1.1 * gemma.cache


def test_latent_attention_is_repeated_on_every_card_and_grouped_heads_once_they_run_out() -> None:
    deepseek, kind = of_config(DEEPSEEK), precisions.precision("bf16")
    one, four = (memory_plan.cache_bytes(deepseek, "vllm", kind, Asked(16_384, 2), count) for count in (1, 4))
    assert one == 2 * 27 * 576 * 16_384 * 2
    assert four == 4 * one
    qwen = SHAPES["qwen2.5-7b"]
    two, eight = (memory_plan.cache_bytes(qwen, "vllm", kind, Asked(16_384, 2), count) for count in (2, 8))
    assert eight == 2 * two


@pytest.mark.parametrize(
    ("cache", "llama", "vllm"), [(None, 2, 4), ("fp16", 2, 2), ("fp8", 1.0625, 1), ("q8_0", 1.0625, 1)]
)
def test_bytes_of_cached_values(cache: memory_plan.Cache | None, llama: float, vllm: float) -> None:
    kind = precisions.precision("fp32")
    assert memory_plan.value_bytes("llamacpp", kind, cache) == llama
    assert memory_plan.value_bytes("vllm", kind, cache) == vllm


KEYS = st.sampled_from(sorted(SHAPES))
KINDS = st.sampled_from([each.name for each in precisions.ALL])
PLACES = st.sampled_from(["T4", "L4", "2xA100-80", "8xH100", "rtx-4090", "m3-max", "CPU=64GiB"])
ENGINES: st.SearchStrategy[memory_plan.Engine] = st.sampled_from(["llamacpp", "vllm"])


@given(KEYS, KINDS, PLACES, ENGINES, st.integers(1, 40_000), st.integers(1, 64))
def test_more_never_takes_less(
    key: str, kind: str, place: str, engine: memory_plan.Engine, context: int, requests: int
) -> None:
    shape, precision, device = SHAPES[key], precisions.precision(kind), devices.named(place)
    stored = precisions.weights(shape, precision)
    asked = Asked(context, requests)
    plan, longer, more = (
        memory_plan.plan(shape, precision, stored, engine, device, each)
        for each in (asked, replace(asked, context=context + 300), replace(asked, concurrency=requests + 1))
    )
    assert plan.total <= longer.total
    assert plan.total <= more.total
    assert plan.total == pytest.approx(plan.weights + plan.cache + plan.activations + plan.overhead)
    assert 0 < plan.read <= plan.weights * (1 + 1e-9)


@given(KEYS, KINDS, PLACES, ENGINES, st.integers(1, 64))
def test_the_longest_context_fits_and_a_longer_one_does_not(
    key: str, kind: str, place: str, engine: memory_plan.Engine, requests: int
) -> None:
    shape, precision, device = SHAPES[key], precisions.precision(kind), devices.named(place)
    stored = precisions.weights(shape, precision)
    plan = memory_plan.plan(shape, precision, stored, engine, device, Asked(64, requests))
    most = memory_plan.most_context(shape, precision, stored, plan, device)
    tried = [
        memory_plan.plan(shape, precision, stored, engine, device, Asked(tokens, requests)).fits
        for tokens in (max(1, most), most + 1)
    ]
    assert tried[0] or most == 0
    assert not tried[1] or most == shape.context


@given(KEYS, KINDS)
def test_fewer_bits_never_take_more_than_16(key: str, kind: str) -> None:
    shape, precision = SHAPES[key], precisions.precision(kind)
    if precision.bits <= 8 and not shape.encoder:
        # A GGUF file is of the language model alone.
        left_out = shape.beside * precision.bits / 8 if precision.form == "gguf" else 0
        assert (
            precisions.nominal(shape, precision) - left_out
            < precisions.weights(shape, precision).bytes
            < precisions.weights(shape, precisions.precision("bf16")).bytes
        )


def test_speed_is_bounded_by_what_a_token_reads() -> None:
    plan = planned("llama-3.1-8b", "bf16", "H100", Asked(8192, 8))
    found = memory_plan.speed(plan, devices.named("H100"))
    assert found is not None
    assert found[0] == pytest.approx(3350e9 / plan.read)
    # Requests at once share the weights but not their caches.
    assert found[0] < found[1] < 8 * found[0]
    assert memory_plan.speed(plan, devices.named("CPU=64GiB")) is None


def test_plan_beside_reality() -> None:
    plan = planned("smollm2-135m", "Q4_1", "CPU=8GiB", Asked(2048, 4), "llamacpp")
    found = memory_plan.plan_vs_real(plan, plan.total / 1.1)
    assert found.off == pytest.approx(0.1)
    assert memory_plan.plan_vs_real(plan, plan.total * 2).off == -0.5
