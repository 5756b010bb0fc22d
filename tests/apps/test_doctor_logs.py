"""Known errors of engines are recognised in their logs, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from noria.apps.cli import app
from noria.apps.doctor.logs import TAIL_BYTES, TROUBLES, read, recognised
from noria.errors import NotFound

LINES = [
    ("(EngineCore_0 pid=214) ERROR 11-03 09:12:44 [core.py:700] torch.OutOfMemoryError: CUDA out of memory. Tried to "
     "allocate 1.02 GiB. GPU 0 has a total capacity of 14.58 GiB of which 612.56 MiB is free.", "out of GPU memory",
     "noria fit"),
    ("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9216.00 MiB on device 0: cudaMalloc failed: out of memory",
     "out of GPU memory", "slots"),
    ("llama_model_load: error loading model: unable to allocate CUDA0 buffer", "out of GPU memory", "quantized"),
    ("alloc_tensor_range: failed to allocate CPU buffer of size 437944320", "out of memory", "context"),
    ("RuntimeError: operator torchvision::nms does not exist", "wrong torchvision", "pip uninstall -y torchvision"),
    ("ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in "
     "KV cache (7344). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the "
     "engine.", "KV cache too small", "context = 7344"),
    ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing "
     "the engine.", "no memory for the KV cache", "--gpu-memory-utilization"),
    ("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.", "no memory for the KV cache",
     "--mem-fraction-static"),
    ("Error: Warmup(Generation(\"Not enough memory to handle 4096 prefill tokens. You need to decrease "
     "`--max-batch-prefill-tokens`\"))", "no memory for the batch", "--max-batch-prefill-tokens"),
    ("OSError: You are trying to access a gated repo.", "gated model", "HF_TOKEN"),
    ("huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url "
     "https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct/resolve/main/config.json.", "gated model", "accept it"),
    ("requests.exceptions.HTTPError: 403 Client Error: Forbidden for url: https://huggingface.co/x/y/resolve/main/a",
     "hub refuses", "hf auth whoami"),
    ("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has "
     "compute capability 7.5. You can use float16 instead by explicitly setting the `dtype` flag in CLI, for example: "
     "--dtype=half.", "bfloat16 not supported", "--dtype half"),
    ("ValueError: awq quantization requires some operators from vllm. Please install vllm by `pip install "
     "vllm==0.7.2`", "quantization package missing", "vllm"),
    ("ImportError: Using `bitsandbytes` 4-bit quantization requires bitsandbytes: `pip install -U bitsandbytes`",
     "quantization package missing", "pip install bitsandbytes"),
    ("ModuleNotFoundError: No module named 'awq'", "quantization package missing", "pip install autoawq"),
    ("ValueError: As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat "
     "template if the tokenizer does not define one.", "no chat template", "--chat-template"),
    ("OSError: [Errno 98] Address already in use", "address in use", "noria doctor"),
    ("main: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080", "address in use", "another port"),
    ("httpx.ConnectError: [Errno 111] Connection refused", "connection refused", "/health"),
    ("llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'qwen3next'",
     "unknown architecture", "newer version"),
    ("gguf_init_from_file_impl: invalid magic characters: 'vers', expected 'GGUF'; invalid magic", "broken model file",
     "git lfs pull"),
    ("RuntimeError: No CUDA GPUs are available", "no GPU", "--gpus all"),
    ("OSError: [Errno 28] No space left on device: '/root/.cache/huggingface/hub'", "disk full", "df -h"),
    ("huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files in the disk cache",
     "hub not reachable", "hf download"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "name", "hint"), LINES, ids=[f"{name}-{hint}" for _, name, hint in LINES])
def test_a_known_error_is_recognised_and_says_what_to_type(line: str, name: str, hint: str) -> None:
    text = f"INFO 11-03 09:12:01 [api_server.py:1850] starting\n\x1b[31m{line}\x1b[0m\nINFO done\n"
    (seen,) = recognised(text)
    assert (seen.name, seen.line, seen.times) == (name, 2, 1)
    assert hint in seen.hint
    assert "{" not in seen.says + seen.hint


@pytest.mark.parametrize(
    "line",
    [
        "INFO 11-03 09:12:01 [gpu_worker.py:300] Available KV cache memory: 5.21 GiB",
        "INFO: Maximum concurrency for 32,768 tokens per request: 6.59x",
        "srv  log_server_r: request: POST /v1/chat/completions 127.0.0.1 200",
        "load_tensors: CPU model buffer size = 138.23 MiB",
        "WARNING: Triton is not installed on this platform",
        'INFO: 127.0.0.1:40112 - "GET /health HTTP/1.1" 200 OK',
        "using the bitsandbytes quantization of the checkpoint",
        "slot launch_slot_: id 0 | task 4011 | processing task, 401 tokens",
    ],
)
def test_what_engines_say_every_day_is_no_trouble(line: str) -> None:
    assert recognised(line) == []


def test_a_trouble_is_told_once_with_its_first_line_and_how_often() -> None:
    text = "\n".join(["fine", "CUDA out of memory", "fine", "torch.OutOfMemoryError: CUDA out of memory", "Errno 98"])
    found = recognised(text)
    assert [(each.name, each.line, each.times) for each in found] == [
        ("out of GPU memory", 2, 2), ("address in use", 5, 1)
    ]  # fmt: skip


def test_every_pattern_finds_its_values() -> None:
    for known in TROUBLES:
        groups = set(known.pattern.groupindex)
        wanted = {part.split("}")[0] for part in f"{known.says}{known.hint}".split("{")[1:]}
        assert wanted <= groups | {"package", "room", "wanted", "tokens", "method"}


def test_of_a_long_log_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"CUDA out of memory\n" + b"x" * TAIL_BYTES + b"\nErrno 98\n")
    assert [each.name for each in recognised(read(log))] == ["address in use"]
    with pytest.raises(NotFound, match="no log"):
        read(tmp_path / "gone.log")


def test_the_command_reads_a_log(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text(f"{LINES[5][0]}\n")
    done = CliRunner().invoke(app, ["doctor", "--log", str(log), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)[0]["hint"].startswith("set context = 7344")
    assert "KV cache too small" in CliRunner().invoke(app, ["doctor", "--log", str(log)]).stdout
    log.write_text("INFO ready\n")
    calm = CliRunner().invoke(app, ["doctor", "--log", str(log)])
    assert calm.exit_code == 0
    assert "no known trouble" in calm.stdout
