"""Errors that engines are known to end with: their texts, as a table, and what to type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from noria.errors import NotFound

TAIL_BYTES: Final = 4 * 1024 * 1024
"""Of a longer log only its end is read: engines name their fault last."""
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Known:
    """One trouble. `pattern` is searched for in every line; `says` and `hint` may name its groups in braces."""

    name: str
    pattern: re.Pattern[str]
    says: str
    hint: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A trouble in a log: where it was first seen (line from 1), how often, the line itself."""

    name: str
    line: int
    times: int
    text: str
    says: str
    hint: str


def _known(name: str, pattern: str, says: str, hint: str) -> Known:
    return Known(name, re.compile(pattern, re.IGNORECASE), says, hint)


TROUBLES: Final = (
    _known(
        "KV cache too small",
        r"max(?:imum)? seq(?:uence)? len(?:gth)? \((?P<wanted>\d+)\) is larger than the maximum number of tokens "
        r"that can be stored in KV cache \((?P<room>\d+)\)",
        "{wanted} tokens are asked for, the cache has room for {room}",
        "set context = {room} or less for the engine, or give it more of the memory: --gpu-memory-utilization 0.95",
    ),
    _known(
        "KV cache too small",
        r"max seq len \((?P<wanted>\d+)\).*(?:needed|required).*available KV cache memory|"
        r"estimated maximum model length is (?P<room>\d+)",
        "the context does not fit into the cache",
        "lower context (the log names the most that fits), or see: noria fit",
    ),
    _known(
        "no memory for the KV cache",
        r"No available memory for the cache blocks",
        "the weights leave nothing for the KV cache",
        "more of the memory: --gpu-memory-utilization 0.95; a smaller or quantized model; or more GPUs",
    ),
    _known(
        "no memory for the KV cache",
        r"Not enough memory\.? (?:to allocate KV cache|Please try to increase --mem-fraction-static)",
        "SGLang's static share has no room for weights and KV cache",
        "raise --mem-fraction-static (such as 0.92), or lower context",
    ),
    _known(
        "no memory for the batch",
        r"Not enough memory to handle (?P<tokens>\d+) (?:total|prefill) tokens",
        "TGI cannot hold {tokens} tokens at once",
        "lower --max-batch-prefill-tokens and --max-batch-total-tokens",
    ),
    _known(
        "GPU busy",
        r"Free memory on device .*is less than desired GPU memory utilization",
        "another process holds memory of this GPU",
        "see who: nvidia-smi; stop it, or lower --gpu-memory-utilization",
    ),
    _known(
        "out of GPU memory",
        r"CUDA out of memory|cudaMalloc failed: out of memory|torch\.(?:cuda\.)?OutOfMemoryError|"
        r"unable to allocate CUDA\d* buffer|HIP out of memory|CUDA error: out of memory",
        "the GPU's memory is full",
        "lower context or slots, take a quantized model, or look at what fits: noria fit MODEL",
    ),
    _known(
        "out of memory",
        r"unable to allocate (?:CPU|backend) buffer|failed to allocate (?:CPU )?buffer of size|bad_alloc|"
        r"DefaultCPUAllocator: can't allocate memory|Out of memory: Killed process|\bMemoryError\b",
        "the machine's memory is full",
        "lower context or slots, or take a smaller or more quantized model",
    ),
    _known(
        "wrong torchvision",
        r"operator torchvision::nms does not exist",
        "torchvision does not fit the installed torch",
        "in the engine's environment: pip uninstall -y torchvision torchaudio torchcodec",
    ),
    _known(
        "gated model",
        r"(?:Cannot access gated repo|gated repo|access to (?:the )?model .* is restricted|"
        r"GatedRepoError|You are trying to access a gated)",
        "the model wants its licence accepted, and a token",
        "accept it on the model's page, then: export HF_TOKEN=… (or: hf auth login)",
    ),
    _known(
        "hub refuses",
        r"(?:HfHubHTTPError|HTTPError|Client Error).*(?P<status>40[13])|(?P<other>40[13]) Client Error.*huggingface",
        "the hub refused the download",
        "check the token: hf auth whoami; then: export HF_TOKEN=…",
    ),
    _known(
        "model not found",
        r"RepositoryNotFoundError|is not a local folder and is not a valid model identifier|"
        r"Repo id must be in the form",
        "there is no such model on the hub or on this disk",
        "correct the model's name or path; a private one needs HF_TOKEN",
    ),
    _known(
        "hub not reachable",
        r"LocalEntryNotFoundError|OfflineModeIsEnabled|couldn't connect to '?https://huggingface\.co|"
        r"Max retries exceeded with url: .*huggingface|Failed to resolve 'huggingface\.co'",
        "the weights are not here and cannot be fetched",
        "check the network and HF_HUB_OFFLINE, or fetch once: hf download MODEL --local-dir DIR, and set model = DIR",
    ),
    _known(
        "bfloat16 not supported",
        r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0",
        "cards before Ampere, such as T4 and V100, have no bfloat16",
        "start it with --dtype half (float16)",
    ),
    _known(
        "FP8 not supported",
        r"quantization method (?:is not supported for the current GPU|fp8 is not supported)|"
        r"(?:FP8|Float8).*(?:requires|only supported|not supported).*(?:compute capability|8\.9|CUDA|GPU)",
        "the card does not compute in this quantization",
        "take AWQ, GPTQ or GGUF weights; FP8 needs Ada, Hopper or later",
    ),
    _known(
        "quantization package missing",
        r"(?P<method>awq|gptq|marlin) quantization requires some operators from vllm",
        "this SGLang image needs vLLM's kernels for {method}",
        "pip install vllm in the engine's environment, in the version that the message names, or a newer image",
    ),
    _known(
        "quantization package missing",
        r"(?:requires|needs?|install)[^.]*\b(?P<package>bitsandbytes|autoawq|auto-gptq|gptqmodel|optimum|hqq|"
        r"compressed[-_]tensors|auto-round)\b|No module named '(?P<module>bitsandbytes|awq|gptqmodel|auto_gptq|hqq)'",
        "the package for this quantization is not installed",
        "in the engine's environment: pip install {package}",
    ),
    _known(
        "no chat template",
        r"default chat template is no longer allowed|chat_template is not set|does not have a chat template|"
        r"no chat template|chat template is (?:not|none)|missing chat template",
        "the model's tokenizer has no chat template",
        "give one: --chat-template FILE, or take the model's -Instruct variant",
    ),
    _known(
        "address in use",
        r"address already in use|Errno 98|couldn't bind (?:to server socket|HTTP server socket)|"
        r"error while attempting to bind on address",
        "another process has the port",
        "see which: noria doctor; stop it, or use another port",
    ),
    _known(
        "connection refused",
        r"Connection refused|Errno 111|ConnectionRefusedError",
        "nobody listened at the address that was asked",
        "is it up? curl http://HOST:PORT/health; check host and port in noria.toml",
    ),
    _known(
        "unknown architecture",
        r"unknown model architecture: '(?P<architecture>[\w-]+)'|"
        r"model type [`'](?P<kind>[\w-]+)[`'] but Transformers does not recognize",
        "this version of the engine does not know the model's architecture",
        "use a newer version of the engine, or another engine",
    ),
    _known(
        "broken model file",
        r"invalid magic|tensor '.*' data is not within the file bounds|SafetensorError|HeaderTooLarge|"
        r"InvalidHeaderDeserialization",
        "the weights are damaged or only half here",
        "remove the file and fetch it again; a Git LFS pointer is no model: git lfs pull",
    ),
    _known(
        "driver too old",
        r"CUDA driver version is insufficient|The NVIDIA driver on your system is too old|"
        r"no kernel image is available for execution",
        "driver, CUDA and card do not go together",
        "compare: nvidia-smi; use an image or wheel for this card and driver",
    ),
    _known(
        "no GPU",
        r"No CUDA GPUs are available|Failed to infer device type|Found no NVIDIA driver|"
        r"could not select device driver .*gpu",
        "the engine sees no GPU",
        "in a container: --gpus all and the NVIDIA container toolkit; without a card: kind = \"llamacpp\"",
    ),
    _known(
        "shared memory full",
        r"unable to (?:mmap|open shared memory)|/dev/shm.*(?:No space|too small)|Bus error",
        "the container's /dev/shm is too small for the engine's processes",
        "start the container with --ipc=host or --shm-size 8g",
    ),
    _known(
        "disk full",
        r"No space left on device|Errno 28",
        "a disk is full",
        "see which: df -h; move the hub's cache: export HF_HOME=…",
    ),
    _known(
        "remote code",
        r"(?:requires you to execute|contains custom code)[^.]*|trust_remote_code=True",
        "the model brings code of its own, which is not run unasked",
        "read that code; then, if you trust it: --trust-remote-code",
    ),
)  # fmt: skip
"""In order: of a line the first that fits is told. Texts of vLLM, SGLang, TGI, llama.cpp, torch, huggingface_hub."""

_DEFAULTS: Final = {"package": "", "room": "", "wanted": "", "tokens": "so many", "method": "this quantization"}
_PIP: Final = {"awq": "autoawq", "auto_gptq": "gptqmodel", "auto-gptq": "gptqmodel"}


def read(log: Path) -> str:
    """The log's text, of a long one the end; raises NotFound."""
    if not log.is_file():
        raise NotFound(f"there is no log '{log}'", "logs of noria's own engines: .noria/logs/")
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace")


def recognised(text: str) -> list[Seen]:
    """Known troubles of a log in the order in which they were first seen, each once."""
    found: dict[tuple[str, str], Seen] = {}
    for seen in _each(text):
        key = (seen.name, seen.hint)
        first = found.get(key)
        found[key] = seen if first is None else Seen(
            first.name, first.line, first.times + 1, first.text, first.says, first.hint
        )  # fmt: skip
    return [*found.values()]


def _each(text: str) -> Iterator[Seen]:
    for number, line in enumerate(text.splitlines(), 1):
        plain = _ESCAPES.sub("", line)[:2000]
        for known in TROUBLES:
            if match := known.pattern.search(plain):
                named = {name: value for name, value in match.groupdict().items() if value}
                package = named.get("package") or named.get("module") or ""
                values = {**_DEFAULTS, **named, "package": _PIP.get(package, package)}
                shown = plain.strip()[:160]
                yield Seen(known.name, number, 1, shown, known.says.format(**values), known.hint.format(**values))
                break
