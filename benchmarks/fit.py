"""How far plans are from what engines take: noria fit against the memory of real processes on this machine.

llama.cpp serves SmolLM2-135M in several precisions (made here from the packaged Q4_1 file; sizes are what counts) with
several slots and contexts, and answers a long prompt. Memory is that of the engine's processes. With --vllm and --model
vLLM on a CPU is started too.

    python benchmarks/fit.py                                          writes benchmarks/results/fit.json
    python benchmarks/fit.py --vllm ENV/bin/python --model FOLDER     vLLM alone, added to it
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy as np

from noria.apps import fitting as glue
from noria.backends import machine
from noria.backends.processes import tree
from noria.deployment import devices, fitting, memory_plan
from noria.deployment.memory_plan import GIB, Asked, Plan
from noria.wiring import base_model

RESULTS = Path(__file__).parent / "results" / "fit.json"
SETTINGS = ((1, 2048), (4, 2048), (4, 8192))
MADE = ("F16", "Q8_0", "Q4_0")
READY_SECONDS = 300.0
DEVICE = devices.named("CPU=16GiB")


def made(source: Path, name: str, folder: Path) -> Path:
    """The model in another precision, in the form that llama.cpp's own quantizer gives it."""
    out = folder / f"{name}.gguf"
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{name}"])
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        kind = gguf.GGMLQuantizationType[name]
        if values.ndim < 2:
            writer.add_tensor(tensor.name, values)
            continue
        if kind == gguf.GGMLQuantizationType.Q4_0 and tensor.name == "token_embd.weight":
            kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def row(plan: Plan, measured: float, precision: str) -> dict[str, object]:
    found = memory_plan.plan_vs_real(plan, measured)
    print(
        f"{plan.engine:9} {precision:6} {plan.asked.concurrency} x {plan.asked.context:5}: planned "
        f"{found.planned / GIB:.3f} GiB, took {found.measured / GIB:.3f}, off by {found.off:+.1%}",
        flush=True,
    )
    return {
        "engine": plan.engine, "precision": precision, "slots": plan.asked.concurrency, "context": plan.asked.context,
        "weights_gib": glue.gib(plan.weights), "kv_gib": glue.gib(plan.cache),
        "activations_gib": glue.gib(plan.activations), "overhead_gib": glue.gib(plan.overhead),
        "planned_gib": glue.gib(found.planned), "measured_gib": glue.gib(found.measured), "off": round(found.off, 4),
    }  # fmt: skip


def llama() -> Iterator[dict[str, object]]:
    source = base_model("smollm2-135m-instruct")
    with tempfile.TemporaryDirectory() as folder:
        files = [("Q4_1", source), *((name, made(source, name, Path(folder))) for name in MADE)]
        for name, file in files:
            model, _, _ = glue.model_of(str(file))
            for slots, context in SETTINGS:
                fitted = fitting.fit(model, DEVICE, Asked(context, slots))
                exact = next(each for each in fitted.rows if each.exact)
                found = glue.measure(fitted, exact)
                yield row(exact.plan, found.measured, name)


def vllm(python: str, folder: str) -> Iterator[dict[str, object]]:
    """Each in a process group of its own; the KV space is what the plan says, as vLLM takes it in whole GiB."""
    model, _, _ = glue.model_of(folder)
    for slots, context, space in ((16, 2048, 1), (16, 2048, 2)):
        fitted = fitting.fit(model, DEVICE, Asked(context, slots), ("bf16",), "vllm")
        plan = fitted.rows[0].plan
        taken = served(python, folder, plan, space)
        # vLLM takes the whole space, however much of it the requests want.
        yield row(replace(plan, cache=space * GIB), taken, "bf16")


def served(python: str, folder: str, plan: Plan, space: int) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = (
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--served-model-name", "m", "--host",
        "127.0.0.1", "--port", str(port), "--dtype", "bfloat16", "--max-model-len", str(plan.asked.context),
        "--max-num-seqs", str(plan.asked.concurrency), "--enforce-eager",
    )  # fmt: skip
    settings = {
        "VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": str(space), "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch, open(f"{scratch}/log", "wb") as log:
        env = {**os.environ, **settings, "VLLM_CACHE_ROOT": scratch}
        env.pop("PYTHONPATH", None)
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, process_group=0)
        try:
            wait(f"http://127.0.0.1:{port}/health", process)
            body = {"model": "m", "prompt": "word " * 600, "max_tokens": 8}
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/completions",
                json.dumps(body).encode(),
                {"Content-Type": "application/json"},
            )
            urllib.request.urlopen(request, timeout=300).read()
            return machine.taken({*tree([process.pid])})
        except OSError:
            print(Path(log.name).read_text()[-2000:], file=sys.stderr)
            raise
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def wait(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            time.sleep(1)
        else:
            return
    raise OSError("vLLM did not start")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vllm", help="Python of an environment that has vLLM for CPUs")
    parser.add_argument("--model", help="Hugging Face folder for it")
    asked = parser.parse_args()
    told = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"rows": []}
    engine = "vllm" if asked.vllm else "llamacpp"
    fresh = [*(vllm(asked.vllm, asked.model) if asked.vllm else llama())]
    rows = [each for each in told["rows"] if each["engine"] != engine] + fresh
    told = {
        "xllamacpp": version("xllamacpp"), "worst": max(abs(each["off"]) for each in rows),
        "rows": sorted(rows, key=lambda each: each["engine"]),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    print(f"the worst is off by {told['worst']:.1%}")


if __name__ == "__main__":
    main()
