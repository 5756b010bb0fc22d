"""Engines that run as a server of their own, a row each: how one is launched, what it can do, how it is asked.

Versions are those in docs/engines.md. vLLM, infinity and Transformers are run by the conformance suite; the rows of
SGLang, Aphrodite, LMDeploy and TGI follow their sources and documentation, and are held by golden files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from noria.backends.engine_metrics import NAMES, Names
from noria.backends.served_process import LOOPBACK
from noria.errors import Invalid
from noria.settings import EngineSettings
from noria.types import Caps

EVERYWHERE: Final = "0.0.0.0"
"""Inside a container, whose port is published on the loopback alone."""
MODEL: Final = "/model"
"""Where a container has a model's folder."""
CPU_CACHE_GIB: Final = 2
"""KV cache of vLLM on a CPU where `cache_gib` does not say."""
RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""Highest ranks of adapters that vLLM can be started for."""
RANK: Final = 32
"""The highest rank where none of the adapters is known at the start."""
OFFLINE: Final[Mapping[str, str]] = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1"}
"""No downloads and no calls home while an engine starts or runs."""
_COMPACT: Final = '{"backend": "xgrammar", "disable_any_whitespace": true}'
_BLOCK: Final = 32
"""Tokens of a block of the KV cache of `transformers serve`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One launch: `adapters` are folders by the name under which each is asked; `rank` is the highest of theirs."""

    settings: EngineSettings
    model: str
    alias: str
    host: str
    port: int
    adapters: Mapping[str, str]
    rank: int = RANK

    @property
    def loras(self) -> int:
        """Places for adapters in all."""
        return len(self.adapters) + self.settings.loras


Arguments = Callable[[Plan], Sequence[str]]
Variables = Callable[[Plan], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Routes:
    """Where a running server takes adapters, below its root, and what its request calls them."""

    load: str
    unload: str


def by_model(alias: str, adapter: str) -> dict[str, JsonValue]:
    """An adapter is a model of its own name."""
    return {"model": adapter}


def by_suffix(alias: str, adapter: str) -> dict[str, JsonValue]:
    """An adapter's name stands behind the base's."""
    return {"model": f"{alias}:{adapter}"}


@dataclass(frozen=True, slots=True)
class Make:
    """What noria knows of one make of engine. Without `arguments` it can only be attached.

    `program` is its command with the words that always follow, `module` what Python runs instead where
    `settings.program` is an interpreter; `flag` then stands before the model. `rooted` are paths that it has at its
    root and not below `/v1`, `metrics` the names on its `/metrics`, `key` the variable from which it reads the key that
    callers must show.
    """

    name: str
    caps: Caps
    port: int = 8000
    health: str = "/health"
    rooted: tuple[str, ...] = ()
    metrics: Names | None = None
    arguments: Arguments | None = None
    program: tuple[str, ...] = ()
    module: tuple[str, ...] = ()
    flag: str = ""
    image: str = ""
    entry: tuple[str, ...] = ()
    """Words before the arguments in a container, where its image starts nothing by itself."""
    variables: Variables = field(default=lambda plan: OFFLINE)
    key: str = ""
    home: str = ""
    """The variable that names the folder of its own cache, which would else lie in the current one."""
    routes: Routes | None = None
    address: Callable[[str, str], dict[str, JsonValue]] = by_model
    named_by_path: bool = False
    """Whether requests must name the model as it stands on the command line."""


def _where(plan: Plan, host: str = "--host", port: str = "--port") -> list[str]:
    return [host, plan.host, port, str(plan.port)]


def _given(**flags: object) -> list[str]:
    """Flags with their values: none for None and False, no value for True."""
    out: list[str] = []
    for name, value in flags.items():
        if value is None or value is False:
            continue
        out.append(f"--{name.replace('_', '-')}")
        if value is not True:
            out.append(str(value))
    return out


def _pairs(plan: Plan) -> list[str]:
    return [f"{name}={folder}" for name, folder in plan.adapters.items()]


def _rank(plan: Plan) -> int:
    return next((rank for rank in RANKS if rank >= plan.rank), plan.rank)


def _dtype(settings: EngineSettings) -> str | None:
    return None if settings.dtype == "auto" else settings.dtype


def _vllm(plan: Plan) -> Sequence[str]:
    # Small models fill an answer in JSON with white space until their tokens are used up.
    return [*_vllm_like(plan), "--structured-outputs-config", _COMPACT]


def _vllm_like(plan: Plan) -> Sequence[str]:
    """Flags of vLLM 0.32.0, which Aphrodite, a fork, has kept."""
    settings = plan.settings
    out = [
        *(plan.model, "--served-model-name", plan.alias, *_where(plan)),
        *("--max-model-len", str(settings.context), "--max-num-seqs", str(settings.slots)),
        *_given(
            dtype=_dtype(settings),
            quantization=settings.quantization,
            gpu_memory_utilization=settings.memory_share,
            tensor_parallel_size=settings.gpus if settings.gpus > 1 else None,
            trust_remote_code=settings.remote_code,
            # Compiling takes a minute and a compiler, and gains little without a GPU.
            enforce_eager=settings.device == "cpu",
            enable_auto_tool_choice=settings.tools is not None,
            tool_call_parser=settings.tools,
        ),
    ]
    if plan.loras:
        out += ["--enable-lora", "--max-loras", str(plan.loras), "--max-lora-rank", str(_rank(plan))]
    if plan.adapters:
        out += ["--lora-modules", *_pairs(plan)]
    return out


def _vllm_variables(plan: Plan) -> Mapping[str, str]:
    settings = plan.settings
    out = {**OFFLINE, "VLLM_NO_USAGE_STATS": "1"}
    if plan.loras:
        out["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if settings.device != "cpu":
        return out
    # Two threads that spin while they wait were slower than one, by far on a busy machine.
    return {
        **out,
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(settings.threads or 1),
        "VLLM_CPU_KVCACHE_SPACE": str(math.ceil(settings.cache_gib or CPU_CACHE_GIB)),
    }


def _aphrodite_variables(plan: Plan) -> Mapping[str, str]:
    return {**OFFLINE, "APHRODITE_ALLOW_RUNTIME_LORA_UPDATING": "1"} if plan.loras else OFFLINE


def _sglang(plan: Plan) -> Sequence[str]:
    settings = plan.settings
    out = [
        *("--model-path", plan.model, "--served-model-name", plan.alias, *_where(plan)),
        *("--context-length", str(settings.context), "--max-running-requests", str(settings.slots)),
        "--enable-metrics",
        *_given(
            device=None if settings.device == "auto" else settings.device,
            dtype=_dtype(settings),
            quantization=settings.quantization,
            mem_fraction_static=settings.memory_share,
            tp_size=settings.gpus if settings.gpus > 1 else None,
            trust_remote_code=settings.remote_code,
            tool_call_parser=settings.tools,
        ),
    ]
    if plan.loras:
        # An adapter that is loaded later may have other modules than those that are there at the start.
        out += ["--enable-lora", "--max-loras-per-batch", str(plan.loras), "--max-lora-rank", str(_rank(plan))]
        out += ["--lora-target-modules", "all"]
    if plan.adapters:
        out += ["--lora-paths", *_pairs(plan)]
    return out


def _lmdeploy(plan: Plan) -> Sequence[str]:
    settings = plan.settings
    return [
        *(plan.model, "--model-name", plan.alias, *_where(plan, "--server-name", "--server-port")),
        # TurboMind, the faster of its two, serves no adapters.
        *("--backend", "pytorch" if plan.loras else "turbomind"),
        *("--session-len", str(settings.context), "--max-batch-size", str(settings.slots)),
        *_given(
            dtype=_dtype(settings),
            model_format=settings.quantization,
            cache_max_entry_count=settings.memory_share,
            tp=settings.gpus if settings.gpus > 1 else None,
            trust_remote_code=settings.remote_code,
            tool_call_parser=settings.tools,
        ),
        *(("--adapters", *_pairs(plan)) if plan.adapters else ()),
    ]


def _tgi(plan: Plan) -> Sequence[str]:
    settings = plan.settings
    return [
        *("--model-id", plan.model, *_where(plan, "--hostname")),
        *("--max-input-tokens", str(settings.context - 1), "--max-total-tokens", str(settings.context)),
        *("--max-concurrent-requests", str(settings.slots), "--usage-stats", "off"),
        *_given(
            dtype=_dtype(settings),
            quantize=settings.quantization,
            cuda_memory_fraction=settings.memory_share,
            num_shard=settings.gpus if settings.gpus > 1 else None,
            trust_remote_code=settings.remote_code,
        ),
        *(("--lora-adapters", ",".join(_pairs(plan))) if plan.adapters else ()),
    ]


def _infinity(plan: Plan) -> Sequence[str]:
    settings = plan.settings
    return [
        *("--model-id", plan.model, "--served-model-name", plan.alias, *_where(plan), "--url-prefix", "/v1"),
        *("--engine", "torch", "--no-compile", "--no-model-warmup"),
        *_given(
            device=None if settings.device == "auto" else settings.device,
            dtype=_dtype(settings),
        ),
        "--trust-remote-code" if settings.remote_code else "--no-trust-remote-code",
    ]


def _infinity_variables(plan: Plan) -> Mapping[str, str]:
    out = {**OFFLINE, "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    threads = plan.settings.threads
    return out if threads is None else {**out, "OMP_NUM_THREADS": str(threads)}


def _transformers(plan: Plan) -> Sequence[str]:
    """Flags of `transformers serve` 5.19.0. Unbounded, its cache took 20 GB for 135 million parameters."""
    settings = plan.settings
    blocks = max(16, math.ceil(settings.slots * settings.context / _BLOCK))
    return [
        *(plan.model, *_where(plan), "--continuous-batching"),
        *("--cb-num-blocks", str(blocks), "--cb-block-size", str(_BLOCK)),
        *("--cb-max-batch-tokens", str(max(256, settings.slots)), "--attn-implementation", "sdpa"),
        *_given(
            device=None if settings.device == "auto" else settings.device,
            dtype=_dtype(settings),
            quantization=settings.quantization,
            no_cb_use_cuda_graph=settings.device == "cpu",
            trust_remote_code=settings.remote_code,
        ),
    ]


def _transformers_variables(plan: Plan) -> Mapping[str, str]:
    threads = plan.settings.threads or 1
    return {**OFFLINE, "OMP_NUM_THREADS": str(threads)} if plan.settings.device == "cpu" else OFFLINE


_LORA: Final = Caps(lora=True, hot=True, tools=True)
_VLLM: Final = Caps(
    lora=True, hot=True, tools=True, exact_tokens=True, prompt_logprobs=True, choice="structured_outputs"
)  # fmt: skip
_API: Final = Routes("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
_ROOTED: Final = ("/tokenize", "/classify")

MAKES: Final[Mapping[str, Make]] = {
    make.name: make
    for make in (
        Make(
            "vllm", _VLLM, rooted=_ROOTED, metrics=NAMES["vllm"], arguments=_vllm, routes=_API, key="VLLM_API_KEY",
            program=("vllm", "serve"), module=("vllm.entrypoints.openai.api_server",), flag="--model",
            variables=_vllm_variables, image="vllm/vllm-openai:v0.32.0",
        ),
        Make(
            "aphrodite", _LORA, port=2242, rooted=_ROOTED, metrics=NAMES["aphrodite"], arguments=_vllm_like,
            routes=_API, program=("aphrodite", "run"), image="alpindale/aphrodite-openai:latest",
            entry=("aphrodite", "run"), variables=_aphrodite_variables,
        ),
        Make(
            "sglang", _LORA, port=30000, metrics=NAMES["sglang"], arguments=_sglang, address=by_suffix,
            routes=Routes("/load_lora_adapter", "/unload_lora_adapter"), image="lmsysorg/sglang:v0.5.23",
            program=("python3", "-m", "sglang.launch_server"), module=("sglang.launch_server",),
            entry=("python3", "-m", "sglang.launch_server"),
        ),
        Make(
            "lmdeploy", Caps(lora=True, tools=True), port=23333, metrics=NAMES["lmdeploy"], arguments=_lmdeploy,
            program=("lmdeploy", "serve", "api_server"), entry=("lmdeploy", "serve", "api_server"),
            image="openmmlab/lmdeploy:v0.18.0",
        ),
        Make(
            "tgi", Caps(lora=True, tools=True), port=3000, metrics=NAMES["tgi"], arguments=_tgi,
            program=("text-generation-launcher",), image="ghcr.io/huggingface/text-generation-inference:3.2.1",
        ),
        Make(
            "infinity", Caps(text=False, schema=False, logprobs=False, embeddings=True, rerank=True, classify=True),
            port=7997, arguments=_infinity, program=("infinity_emb", "v2"), module=("infinity_emb.cli", "v2"),
            key="INFINITY_API_KEY", home="INFINITY_HOME", variables=_infinity_variables,
            image="michaelf34/infinity:0.0.78", entry=("v2",),
        ),
        Make(
            "transformers", Caps(schema=False, logprobs=False, bounded=False), arguments=_transformers,
            named_by_path=True,
            program=("transformers", "serve"), module=("transformers.cli.transformers", "serve"),
            variables=_transformers_variables,
        ),
        Make("ollama", Caps(logprobs=False), port=11434, health="/api/version"),
        Make("nim", Caps(), health="/v1/health/ready"),
    )
}  # fmt: skip


def command(make: Make, plan: Plan) -> list[str]:
    """The command line of a process. Raises Invalid for a make that can only be attached."""
    arguments = _arguments(make, plan)
    program = plan.settings.program
    if program is None:
        return [*make.program, *arguments, *plan.settings.flags]
    python = Path(program).name.startswith("python")
    if python and make.module:
        lead = [make.flag] if make.flag else []
        return [program, "-m", *make.module, *lead, *arguments, *plan.settings.flags]
    if python:
        # It cannot run as a module: its command lies beside the interpreter.
        program = str(Path(program).with_name(make.program[0]))
    return [program, *make.program[1:], *arguments, *plan.settings.flags]


def container(make: Make, plan: Plan, name: str = "") -> list[str]:
    """The same as a container that ends with its command, its port published on the loopback alone.

    Model and adapters are mounted read-only; the key goes in by reference. Raises Invalid for a make that can only be
    attached or has no image.
    """
    settings = plan.settings
    image = settings.image or make.image
    if not image:
        raise Invalid(f"noria knows no image of '{make.name}'", 'image = "…", or launch it as a process: program = "…"')
    folder, model = mounted(Path(plan.model)) if Path(plan.model).is_absolute() else (None, plan.model)
    inside = replace(
        plan,
        model=model,
        adapters={adapter: f"/adapters/{adapter}" for adapter in plan.adapters},
        host=EVERYWHERE,
        port=make.port,
    )
    mounts = [] if folder is None else [f"{folder}:{MODEL}:ro"]
    mounts += [f"{folder}:/adapters/{adapter}:ro" for adapter, folder in plan.adapters.items()]
    return [
        *(settings.container or "docker", "run", "--rm", *(("--name", name) if name else ())),
        *(() if settings.device == "cpu" else ("--gpus", "all")),
        *("--ipc", "host", "-p", f"{plan.host}:{plan.port}:{make.port}"),
        *(part for mount in mounts for part in ("-v", mount)),
        *(part for pair in make.variables(plan).items() for part in ("-e", "=".join(pair))),
        *(("-e", make.key) if make.key else ()),
        *(image, *make.entry, *_arguments(make, inside), *settings.flags),
    ]


def mounted(model: Path) -> tuple[Path, str]:
    """The folder that a container is given as `MODEL`, and where the model then lies in it.

    Of the hub's cache that is all of one model's: the files of a snapshot are links to others beside it.
    """
    if model.parent.name == "snapshots":
        return model.parent.parent, f"{MODEL}/snapshots/{model.name}"
    return model, MODEL


def _arguments(make: Make, plan: Plan) -> Sequence[str]:
    if make.arguments is None:
        raise Invalid(
            f"engines of kind '{make.name}' are attached, not launched", f'url = "http://{LOOPBACK}:{make.port}/v1"'
        )
    return make.arguments(plan)
