"""The command that starts a planned model, and the table of noria.toml that does the same."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from noria.deployment.devices import Device
from noria.deployment.memory_plan import Plan


@dataclass(frozen=True, slots=True)
class Names:
    """How the model is named: its hub id or folder, its other published forms, and a GGUF file of one precision."""

    id: str
    also: Sequence[str] = ()
    file: str | None = None
    """What `llama-server -m` takes."""
    known: str | None = None
    """What noria.toml may call this file."""
    stored: str | None = None
    """The file's precision."""


def command(of: Plan, names: Names, device: Device) -> str:
    """What a person types in a shell. Files and ids that have to be found or made first are in capitals."""
    words = {"llamacpp": _llama, "vllm": _vllm, "infinity": _infinity}[of.engine](of, names, device)
    return shlex.join(words)


def table(of: Plan, names: Names, device: Device) -> str:
    """An `[engines.NAME]` table of noria.toml."""
    own = names.known if of.precision == names.stored else None
    rows = [("kind", f'"{of.engine}"'), ("model", json.dumps(own or model(of, names), ensure_ascii=False))]
    if of.engine != "infinity":
        rows += [("slots", str(of.asked.concurrency)), ("context", str(of.asked.context))]
    if of.engine == "vllm":
        rows.append(("dtype", f'"{_dtype(of, device)}"'))
        if method := _method(of):
            rows.append(("quantization", f'"{method}"'))
        if device.sort == "cuda":
            rows += [("gpus", str(device.count)), ("memory_share", f"{device.share:g}")]
        else:
            rows += [("device", '"cpu"'), ("cache_gib", str(_cache_gib(of)))]
    if flags := _cache_flags(of):
        # The llama.cpp that noria brings takes no flags.
        rows += [("program", '"llama-server"')] if of.engine == "llamacpp" else []
        rows.append(("flags", json.dumps(flags)))
    return "\n".join(["[engines.local]", *(f"{name} = {value}" for name, value in rows)])


def model(of: Plan, names: Names) -> str:
    """The id, folder or file that the engine is given."""
    short = names.id.rstrip("/").rpartition("/")[2]
    if of.engine == "llamacpp":
        kind = {"fp32": "F32", "bf16": "BF16"}.get(of.precision, of.precision)
        return names.file if names.file and of.precision == names.stored else f"{short}-{kind}.gguf"
    if of.precision in ("awq", "gptq", "int8"):
        made = [each for each in names.also if each.lower().endswith(f"-{of.precision}")]
        return made[0] if made else f"{of.precision.upper()}-OF/{short}"
    return names.id


def _llama(of: Plan, names: Names, device: Device) -> list[str]:
    slots = of.asked.concurrency
    # llama-server divides the context by the slots.
    words = ["llama-server", "-m", model(of, names), "-c", str(slots * of.asked.context), "-np", str(slots)]
    words += ["--cache-ram", "0"]
    if device.sort != "cpu":
        words += ["-ngl", "999"]
    return [*words, *_cache_flags(of)]


def _vllm(of: Plan, names: Names, device: Device) -> list[str]:
    words = ["vllm", "serve", model(of, names), "--max-model-len", str(of.asked.context)]
    words += ["--max-num-seqs", str(of.asked.concurrency), "--dtype", _dtype(of, device)]
    if method := _method(of):
        words += ["--quantization", method]
    words += _cache_flags(of)
    if device.sort != "cuda":
        return ["env", f"VLLM_CPU_KVCACHE_SPACE={_cache_gib(of)}", *words]
    words += ["--gpu-memory-utilization", f"{device.share:.2f}"]
    return [*words, "--tensor-parallel-size", str(device.count)] if device.count > 1 else words


def _infinity(of: Plan, names: Names, device: Device) -> list[str]:
    words = ["infinity_emb", "v2", "--model-id", names.id, "--engine", "torch", "--device", device.sort]
    words += ["--batch-size", str(of.asked.concurrency)]
    return [*words, "--dtype", "float32" if of.precision == "fp32" else "float16"]


def _cache_flags(of: Plan) -> list[str]:
    """What makes the engine keep its cache in 8 bits, where that is asked for."""
    if of.asked.cache not in ("fp8", "q8_0") or of.engine == "infinity":
        return []
    return ["-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0"] if of.engine == "llamacpp" else ["--kv-cache-dtype", "fp8"]


def _dtype(of: Plan, device: Device) -> str:
    if of.precision == "fp32":
        return "float32"
    if of.precision in ("awq", "gptq") and device.bfloat16:
        return "auto"
    return "bfloat16" if device.bfloat16 else "float16"


def _method(of: Plan) -> str | None:
    """Quantization that vLLM does while it loads; of ready checkpoints it reads the method from their config."""
    return {"nf4": "bitsandbytes", "fp8": "fp8"}.get(of.precision)


def _cache_gib(of: Plan) -> int:
    return max(1, -(-int(of.cache) // 2**30))
