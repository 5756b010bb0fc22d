from __future__ import annotations

import shlex
import tomllib
from dataclasses import replace

import pytest

from noria.deployment import catalogue, devices, fitting, launch
from noria.deployment.devices import Device
from noria.deployment.fitting import Fitted, Model, Row
from noria.deployment.memory_plan import Asked, Cache, Engine
from noria.deployment.precisions import Weights
from noria.errors import Invalid

KNOWN = catalogue.catalogue()


def fitted(key: str, device: str, context: int = 8192, requests: int = 4, *only: str, engine: Engine | None = None,
           cache: Cache | None = None) -> Fitted:  # fmt: skip
    entry = KNOWN[key]
    model = Model(key, entry.shape, launch.Names(entry.id, entry.also))
    return fitting.fit(model, devices.named(device), Asked(context, requests, cache), only, engine)


def row(of: Fitted, precision: str) -> Row:
    return next(each for each in of.rows if each.plan.precision == precision)


def test_every_precision_has_a_row_and_the_best_that_fits_is_named() -> None:
    found = fitted("qwen3-14b", "L4")
    assert len(found.rows) == 13
    assert [each.plan.precision for each in found.rows if each.fits] == [
        "nf4", "awq", "gptq", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_1", "Q4_0"
    ]  # fmt: skip
    assert found.best is row(found, "Q6_K")
    # Nobody serves in float32 where 16 bits fit, unless it is asked for.
    assert fitted("qwen3-0.6b", "H100").best is not row(fitted("qwen3-0.6b", "H100"), "fp32")
    alone = fitted("qwen3-0.6b", "H100", 8192, 4, "fp32").best
    assert alone is not None
    assert alone.plan.precision == "fp32"


def test_each_thing_that_would_give_makes_it_fit() -> None:
    lacking = row(fitted("qwen3-14b", "L4"), "fp8")
    assert not lacking.fits
    assert "GiB too much" in lacking.because
    cache, requests, context, cards = lacking.gives
    assert (cache, cards) == ("a KV cache in fp8", "2x L4")
    assert requests == f"{int(lacking.requests or 0)} instead of 4 requests"
    assert row(fitted("qwen3-14b", "L4", 8192, 3), "fp8").fits
    assert context == f"{lacking.context:,} instead of 8,192 tokens of context"
    assert row(fitted("qwen3-14b", "L4", lacking.context, 4), "fp8").fits
    assert not row(fitted("qwen3-14b", "L4", lacking.context + 16, 4), "fp8").fits
    assert row(fitted("qwen3-14b", "2xL4"), "fp8").fits
    assert row(fitted("qwen3-14b", "L4", cache="fp8"), "fp8").fits


@pytest.mark.parametrize(
    ("device", "precision", "why"),
    [
        ("T4", "fp8", "no FP8"), ("A100", "fp8", "no FP8"), ("V100", "awq", "compute capability 7.5"),
        ("CPU=64GiB", "nf4", "NVIDIA"), ("m3-max", "awq", "NVIDIA"),
    ],
)  # fmt: skip
def test_what_a_device_cannot_compute_is_said(device: str, precision: str, why: str) -> None:
    found = row(fitted("qwen3-0.6b", device), precision)
    assert not found.fits
    assert why in found.because
    assert not found.gives


def test_vllm_splits_by_heads() -> None:
    # 14 heads.
    assert row(fitted("qwen2-0.5b", "2xT4"), "bf16").fits
    assert row(fitted("qwen2-0.5b", "4xT4"), "bf16").because == "its 14 heads cannot be split over 4"
    assert row(fitted("qwen2-0.5b", "4xT4"), "Q8_0").fits


def test_cards_without_bfloat16_take_float16() -> None:
    words = {device: row(fitted("qwen2-0.5b", device), "bf16").command for device in ("T4", "V100", "L4")}
    assert {device: command.split("--dtype ")[1].split()[0] for device, command in words.items()} == {
        "T4": "float16", "V100": "float16", "L4": "bfloat16"
    }  # fmt: skip
    assert devices.named("L4").fp8
    assert not devices.named("A100").fp8


def test_commands() -> None:
    both = fitted("llama-3.1-70b", "2xH100", 32_768, 8, cache="fp8")
    assert row(both, "fp8").command == (
        "vllm serve meta-llama/Llama-3.1-70B-Instruct --max-model-len 32768 --max-num-seqs 8 --dtype bfloat16 "
        "--quantization fp8 --kv-cache-dtype fp8 --gpu-memory-utilization 0.90 --tensor-parallel-size 2"
    )
    # llama-server divides its context by the slots.
    assert row(both, "Q4_K_M").command == (
        "llama-server -m Llama-3.1-70B-Instruct-Q4_K_M.gguf -c 262144 -np 8 --cache-ram 0 -ngl 999 -fa on "
        "-ctk q8_0 -ctv q8_0"
    )
    assert "bitsandbytes" in row(both, "nf4").command
    assert "Qwen/Qwen2-0.5B-Instruct-AWQ" in row(fitted("qwen2-0.5b", "T4"), "awq").command
    assert "-ngl" not in row(fitted("qwen3-8b", "CPU=64GiB"), "Q8_0").command
    on_cpu = row(fitted("qwen3-8b", "CPU=64GiB", engine="vllm"), "bf16").command
    assert shlex.split(on_cpu)[:2] == ["env", "VLLM_CPU_KVCACHE_SPACE=5"]
    embed = row(fitted("bge-m3", "T4", 512, 32), "bf16")
    assert embed.command.startswith("infinity_emb v2 --model-id BAAI/bge-m3")
    assert embed.requests is None


def test_the_table_of_noria_toml() -> None:
    found = fitted("llama-3.1-70b", "2xH100")
    table = tomllib.loads(launch.table(row(found, "fp8").plan, found.model.names, found.device))["engines"]["local"]
    assert table == {
        "kind": "vllm", "model": "meta-llama/Llama-3.1-70B-Instruct", "slots": 4, "context": 8192, "dtype": "bfloat16",
        "quantization": "fp8", "gpus": 2, "memory_share": 0.9,
    }  # fmt: skip


def test_the_table_keeps_an_8_bit_cache_and_any_path() -> None:
    found = fitted("qwen3-8b", "L4", cache="fp8")
    names = replace(found.model.names, file='a "b"\\c.gguf', stored="Q4_K_M")
    tables = {
        kind: tomllib.loads(launch.table(row(found, kind).plan, names, found.device))["engines"]["local"]
        for kind in ("fp8", "Q4_K_M")
    }
    assert tables["fp8"]["flags"] == ["--kv-cache-dtype", "fp8"]
    assert "program" not in tables["fp8"]
    assert tables["Q4_K_M"]["flags"] == ["-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0"]
    assert (tables["Q4_K_M"]["program"], tables["Q4_K_M"]["model"]) == ("llama-server", 'a "b"\\c.gguf')


def test_a_file_of_ones_own_is_taken_before_all_others() -> None:
    entry = KNOWN["qwen3-8b"]
    names = launch.Names(entry.id, file="mine.gguf", known="mine", stored="Q3_K_M")
    stored = Weights(3.5e9, 3.3e9)
    model = Model("mine", entry.shape, names, ("Q3_K_M", stored))
    found = fitting.fit(model, devices.named("CPU=64GiB"), Asked(8192, 4))
    assert found.best is not None
    assert (found.best.plan.precision, found.best.plan.weights, found.best.exact) == ("Q3_K_M", 3.5e9, True)
    assert "-m mine.gguf" in found.best.command
    assert 'model = "mine"' in launch.table(found.best.plan, names, found.device)
    # Its other precisions are other files.
    assert "-m Qwen3-8B-Q8_0.gguf" in row(found, "Q8_0").command


def test_too_long_a_context_is_refused_with_the_model_s_own() -> None:
    with pytest.raises(Invalid, match="at most 8,192") as refused:
        fitted("gemma-2-9b", "H100", 8193)
    assert refused.value.hint == "--context 8192"
    with pytest.raises(Invalid, match="'bf17' is no precision"):
        fitted("gemma-2-9b", "H100", 100, 1, "bf17")


def test_notes_on_what_people_get_wrong() -> None:
    assert any("all 8 experts" in note for note in fitted("mixtral-8x7b", "2xH100").notes)
    assert any("4,096 tokens" in note for note in fitted("gemma-2-9b", "H100").notes)
    assert any("fp8 made while loading" in note for note in fitted("gemma-2-9b", "H100").notes)
    assert any("fall back" in note for note in fitted("smollm2-135m", "CPU=8GiB").notes)


@pytest.mark.parametrize(
    ("text", "name", "count", "memory"),
    [
        ("H100", "H100 80 GB", 1, 79.2), ("2xh100", "H100 80 GB", 2, 79.2), ("4 x RTX 3090", "RTX 3090", 4, 23.6),
        ("4090", "RTX 4090", 1, 23.6), ("rtx4090", "RTX 4090", 1, 23.6), ("A100 40GB", "A100 40 GB", 1, 39.4),
        ("a100-40", "A100 40 GB", 1, 39.4), ("A100", "A100 80 GB", 1, 79.2), ("RTX 2080 Ti", "RTX 2080 Ti", 1, 10.7),
        ("m4-max=128GiB", "Apple M4 Max", 1, 128), ("M2 Ultra", "Apple M2 Ultra", 1, 64),
        ("CPU=64GiB", "CPU with 64 GiB", 1, 64), ("cpu=7.5g", "CPU with 7.5 GiB", 1, 7.5),
        ("h100-nvl", "H100 NVL 94 GB", 1, 93.1),
    ],
)  # fmt: skip
def test_devices_by_the_names_that_people_use(text: str, name: str, count: int, memory: float) -> None:
    found = devices.named(text)
    assert (found.name, found.count, found.memory_gib) == (name, count, memory)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("H101", "h100"), ("l40x", "l40"), ("CPU", "CPU=64GiB"), ("2xCPU=8GiB", "CPU"), ("0xH100", "2xH100"),
        ("", "H100"), ("CPU=1.2.3GiB", "CPU"), ("H100=", "H100"),
    ],
)  # fmt: skip
def test_devices_that_are_none(text: str, hint: str) -> None:
    with pytest.raises(Invalid) as refused:
        devices.named(text)
    assert hint in refused.value.hint


def test_every_named_device_is_whole() -> None:
    for name, device in devices.catalogue().items():
        assert replace(devices.named(name), count=1) == device
        assert device.memory_gib > 5
        assert device.bandwidth is not None
        assert (device.compute > 0) == (device.sort == "cuda")


@pytest.mark.parametrize(
    ("told", "memory", "bandwidth"),
    [
        ("NVIDIA A100-SXM4-40GB", 39.4, 1555), ("NVIDIA A100-SXM4-80GB", 79.2, 2039),
        ("NVIDIA H100 80GB HBM3", 79.6, 3350),
        ("NVIDIA H100 NVL", 93.6, 3900), ("Tesla T4", 15.0, 320), ("NVIDIA L40S", 45.0, 864), ("NVIDIA L4", 22.5, 300),
        ("NVIDIA GeForce RTX 4060 Ti", 16.0, 288), ("Tesla V100-SXM2-16GB", 16.0, 900), ("Nobody's card", 8.0, None),
    ],
)  # fmt: skip
def test_bandwidth_of_cards_as_their_driver_names_them(told: str, memory: float, bandwidth: float | None) -> None:
    found = devices.of_card(told, memory, 8.0, 1)
    assert found == Device(told, "cuda", memory, bandwidth, 8.0, 1)
