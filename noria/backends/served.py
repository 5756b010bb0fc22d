"""Engines that run as a server of their own, launched as a process or container, or attached by their address."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from noria import adapters as folders
from noria.backends import engine_metrics, served_kinds, served_models
from noria.backends.chat_client import ChatClient
from noria.backends.llamacpp import LlamaCpp
from noria.backends.openai import OpenAI, connect
from noria.backends.served_kinds import MAKES, RANK, Make, Plan
from noria.backends.served_process import LOOPBACK, START_SECONDS, end, launch, port_of, wait
from noria.backends.served_verify import changes
from noria.classes import among
from noria.errors import Invalid, NoriaError, NotFound, Unavailable
from noria.ports import EngineKind
from noria.settings import EngineSettings, child_environment, known
from noria.types import Caps, Endpoint, Form, Generation, Load, Message, Ref

DRAIN: Final = 20.0
"""Most seconds to wait for the answers in flight before a server is told to end."""
GRACE: Final = 15.0
"""Seconds that it then has to end by itself."""
_POLL: Final = 0.1


def open_vllm() -> EngineKind:
    """What the entry point `vllm` of the group `noria.engines` opens."""
    return Served(MAKES["vllm"])


def open_sglang() -> EngineKind:
    """What the entry point `sglang` opens."""
    return Served(MAKES["sglang"])


def open_aphrodite() -> EngineKind:
    """What the entry point `aphrodite` opens."""
    return Served(MAKES["aphrodite"])


def open_lmdeploy() -> EngineKind:
    """What the entry point `lmdeploy` opens."""
    return Served(MAKES["lmdeploy"])


def open_tgi() -> EngineKind:
    """What the entry point `tgi` opens."""
    return Served(MAKES["tgi"])


def open_infinity() -> EngineKind:
    """What the entry point `infinity` opens."""
    return Served(MAKES["infinity"])


def open_transformers() -> EngineKind:
    """What the entry point `transformers` opens."""
    return Served(MAKES["transformers"])


def open_ollama() -> EngineKind:
    """What the entry point `ollama` opens."""
    return Served(MAKES["ollama"])


def open_nim() -> EngineKind:
    """What the entry point `nim` opens."""
    return Served(MAKES["nim"])


def command(settings: EngineSettings, adapters: Mapping[Ref, Path], port: int) -> list[str]:
    """The command line of this engine as a process on the loopback; raises Invalid, NotFound, Unavailable."""
    make = make_of(settings.kind)
    return served_kinds.command(make, plan(make, settings, adapters, port))


def container(settings: EngineSettings, adapters: Mapping[Ref, Path], port: int, name: str = "") -> list[str]:
    """The command line that launches it as a container called `name`; raises as `command`."""
    make = make_of(settings.kind)
    return served_kinds.container(make, plan(make, settings, adapters, port), name)


def variables(settings: EngineSettings, adapters: Mapping[Ref, Path]) -> dict[str, str]:
    """What its process's environment must say: no calls home, no downloads, its threads; raises as `command`."""
    make = make_of(settings.kind)
    return dict(make.variables(plan(make, settings, adapters, make.port)))


def make_of(kind: str) -> Make:
    """The row of the table; raises Invalid for a kind that is no outside server."""
    if kind not in MAKES:
        raise Invalid(f"engines of kind '{kind}' are no servers of their own", known(kind, set(MAKES)))
    return MAKES[kind]


def plan(make: Make, settings: EngineSettings, adapters: Mapping[Ref, Path], port: int) -> Plan:
    """What one launch needs to know; raises Invalid for adapters that the make or their folders do not allow."""
    if make.arguments is None:
        raise Invalid(
            f"engines of kind '{make.name}' are attached, not launched", f'url = "http://{LOOPBACK}:{make.port}/v1"'
        )
    if adapters and not make.caps.lora:
        names = ", ".join(str(ref) for ref in adapters)
        raise Invalid(f"engines of kind '{make.name}' cannot load adapters: {names}", "use kind llamacpp or vllm")
    ranks = [_rank(ref, folder) for ref, folder in adapters.items()]
    model = served_models.folder(settings)
    alias = str(model) if make.named_by_path else served_models.name_of(settings)
    loaded = {adapter_name(ref): str(folder.resolve()) for ref, folder in adapters.items()}
    return Plan(settings, str(model), alias, LOOPBACK, port, loaded, max(ranks, default=RANK))


def adapter_name(ref: Ref) -> str:
    """What an engine calls an adapter: letters, digits and dashes, another name for other content."""
    return f"{ref.name}-{ref.digest}"


def _rank(ref: Ref, folder: Path) -> int:
    if (kind := folders.kind_of(folder)) != "lora":
        raise Invalid(f"adapter '{ref}' is a {kind}, and this engine serves LoRA adapters only", "use another recipe")
    return served_models.lora_rank(ref, folder)


class Served:
    """Port `EngineKind`: a row of the table. With `url` it attaches, with `model` it launches."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._bases: dict[str, tuple[Ref, str]] = {}

    @property
    def caps(self) -> Caps:
        """What the make can do, where it is started for it."""
        return self._make.caps

    def base(self, settings: EngineSettings) -> tuple[Ref, str]:
        """Name of the base by content and its precision; of an attached server by its address and the model's name.

        Raises Invalid, NotFound or Unavailable for a model that is not there or is none.
        """
        if settings.url is not None:
            return OpenAI(self.caps).base(settings)
        if self._make.arguments is None:
            plan(self._make, settings, {}, 0)
        key = settings.model_dump_json(include={"model", "dtype", "quantization"})
        if key not in self._bases:
            model = served_models.folder(settings)
            precision = served_models.precision(settings, model)
            if served_models.is_gguf(served_models.named(settings)):
                self._bases[key] = LlamaCpp().base(settings)[0], precision
            else:
                name, digest = served_models.name_of(settings), served_models.digest_of(model)
                self._bases[key] = Ref(kind="base", name=name, digest=digest), precision
        return self._bases[key]

    def start(self, settings: EngineSettings, adapters: Mapping[Ref, Path], log: Path) -> ServedEngine:
        """An engine that answers with these adapters, each of which has been seen to change an answer.

        Raises Invalid for a bad model, adapter or setting, Unavailable when the process does not come up within
        `settings.start_limit` (600 s without it), with the last lines of its log.
        """
        if settings.url is not None:
            return self._attach(settings, adapters)
        port = port_of(settings.port)
        planned = plan(self._make, settings, adapters, port)
        key = secrets.token_urlsafe(24) if self._make.key else "none"
        # Another name at each start: the end of one container must not take away the next on the same port.
        name = f"noria-{self._make.name}-{port}-{secrets.token_hex(4)}"
        remove = () if settings.container is None else (settings.container, "rm", "-f", name)
        with ExitStack() as unless_ready:
            process = self._launch(planned, key, log, name, remove)
            unless_ready.callback(end, process, 0.0, remove)
            root = f"http://{LOOPBACK}:{port}"
            wait(self._make.name, process, f"{root}{self._make.health}", settings.start_limit or START_SECONDS, log)
            paths = tuple((path, path) for path in self._make.rooted)
            endpoint = Endpoint(url=f"{root}/v1", key=key, model=planned.alias, paths=paths)
            chat = ChatClient(endpoint, served_models.name_of(settings), f"its log is {log}")
            engine = ServedEngine(self._make, chat, tuple(adapters), process, remove)
            unless_ready.callback(engine.close)
            for ref, folder in adapters.items():
                engine.verify(ref, folder)
            unless_ready.pop_all()
        return engine

    def _attach(self, settings: EngineSettings, adapters: Mapping[Ref, Path]) -> ServedEngine:
        """The server at `settings.url`; it loads the adapters where it has a route for that and sees their folders."""
        if adapters and not self.caps.hot:
            names = ", ".join(str(ref) for ref in adapters)
            raise Invalid(
                f"engine '{settings.url}' is attached and cannot load adapters: {names}",
                "let noria launch an engine that can: kind = 'llamacpp' with model = …",
            )
        for ref, folder in adapters.items():
            _rank(ref, folder)
        engine = ServedEngine(self._make, connect(settings, self._make.rooted), (), None)
        try:
            for ref, folder in adapters.items():
                engine.load(ref, folder)
        except NoriaError:
            engine.close()
            raise
        return engine

    def _launch(self, planned: Plan, key: str, log: Path, name: str, remove: Sequence[str]) -> subprocess.Popen[bytes]:
        settings, make = planned.settings, self._make
        env = child_environment(**make.variables(planned))
        env |= {make.key: key} if make.key else {}
        env |= {make.home: str(served_models.cache())} if make.home else {}
        if settings.container is not None:
            line = served_kinds.container(make, planned, name)
        else:
            line = served_kinds.command(make, planned)
        if shutil.which(line[0]) is None:
            raise Unavailable(
                f"'{line[0]}', with which engines of kind '{make.name}' are launched, is not there",
                f'program = "FOLDER/bin/python" of {make.name}\'s own environment, or container = "docker"',
            )
        return launch(line, env, log, remove)


class ServedEngine:
    """Ports `Engine`, `Swaps` and `Measured` on a server; `process` leads its process group, None where attached.

    `remove` is the command that takes its container away, empty without one.
    """

    def __init__(
        self, make: Make, chat: ChatClient, adapters: tuple[Ref, ...], process: subprocess.Popen[bytes] | None,
        remove: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.process = process
        self._remove = remove
        self._make = make
        self._chat = chat
        self._root = chat.endpoint.url.removesuffix("/v1")
        self._adapters = adapters
        self._mine: tuple[Ref, ...] = ()
        self._changing = threading.Lock()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process that leads its group; empty where it is attached."""
        return () if self.process is None else (self.process.pid,)

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers; where the make takes a key, it is made anew at each start."""
        return self._chat.endpoint

    def extra(self, adapter: Ref | None) -> dict[str, JsonValue]:
        """The name by which the adapter is asked, in place of the base's; raises NotFound for an unknown one."""
        if adapter is None:
            return {}
        if adapter not in self._adapters:
            raise NotFound(
                f"adapter '{adapter}' is not loaded in this engine",
                known(str(adapter), {str(ref) for ref in self._adapters}),
            )
        return self._make.address(self.endpoint.model, adapter_name(adapter))

    def answer(
        self, messages: Sequence[Message], adapter: Ref | None, max_tokens: int, stop: Sequence[str], how: Form = Form()
    ) -> Generation:
        """One greedy answer; raises Invalid for what the server refuses or cannot do, Unavailable when it is gone."""
        caps = self._make.caps
        extra = self.extra(adapter)
        if not caps.text:
            raise Invalid(f"engines of kind '{self._make.name}' write no text", "ask its vectors, ranks or classes")
        if (how.schema is not None and not caps.schema) or (how.choices and not caps.logprobs):
            wanted = "hold an answer to a schema" if how.schema is not None else "tell the likeliest tokens"
            raise Invalid(f"engines of kind '{self._make.name}' cannot {wanted}", "use kind llamacpp or vllm")
        body = {**extra, **among(caps.choice, how.among, how.several)}
        found = self._chat.answer(messages, body, max_tokens, stop, how)
        ends = [place for word in stop if (place := found.text.find(word)) >= 0]
        # Transformers goes on behind a stop word.
        return replace(found, text=found.text[: min(ends)], finish_reason="stop") if ends else found

    def next_token(self, tokens: Sequence[int], adapter: Ref | None) -> tuple[int, float]:
        """The likeliest next token's id after these and its log-probability, as vLLM tells them.

        Raises Invalid for no tokens, and for makes whose caps do not say `exact_tokens`.
        """
        if not self._make.caps.exact_tokens:
            raise Invalid(f"engines of kind '{self._make.name}' take no token ids", "ask caps.exact_tokens first")
        if not tokens:
            raise Invalid("no token comes after an empty prompt", "give at least one token id")
        body: dict[str, JsonValue] = {
            "model": self.endpoint.model, "prompt": list(tokens), "max_tokens": 1, "temperature": 0, "logprobs": 1,
            "return_tokens_as_token_ids": True, **self.extra(adapter),
        }  # fmt: skip
        reply = self._chat.post(f"{self.endpoint.url}/completions", body)
        try:
            told = reply["choices"][0]["logprobs"]
            return int(str(told["tokens"][0]).removeprefix("token_id:")), float(told["token_logprobs"][0])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Unavailable(f"engine '{self.endpoint.model}' tells no token ids", "is it of this kind?") from error

    def logprob(self, messages: Sequence[Message], answer: str, adapter: Ref | None) -> tuple[float, int]:
        """Sum of the log-probabilities of the answer's tokens and their number; for makes with `prompt_logprobs`.

        Raises Invalid for a server that does not give them.
        """
        return self._chat.likelihood(messages, answer, self.extra(adapter))

    def load(self, adapter: Ref, folder: Path) -> None:
        """Serve this adapter too, once an answer was seen to change.

        Raises Invalid where the server takes none while it runs or refuses this one, Unavailable when the adapter
        changes nothing.
        """
        if self._make.routes is None:
            raise Invalid(f"engines of kind '{self._make.name}' take adapters at their start only", "start another")
        _rank(adapter, folder)
        name = adapter_name(adapter)
        with self._changing:
            if adapter in self._adapters:
                return
            told: dict[str, JsonValue] = {"lora_name": name, "lora_path": str(folder.resolve())}
            try:
                self._chat.tell(f"{self._root}{self._make.routes.load}", told)
            except Invalid as error:
                raise Invalid(
                    f"adapter '{adapter}' was not loaded: {error.fact}",
                    "the engine must be started for adapters (loras = …) and see the folder",
                ) from error
            self._adapters = (*self._adapters, adapter)
            self._mine = (*self._mine, adapter)
        try:
            self.verify(adapter, folder)
        except NoriaError:
            self.unload(adapter)
            raise

    def unload(self, adapter: Ref) -> None:
        """Serve it no more: it is unknown here from now on. Raises NotFound, Invalid, Unavailable."""
        self.extra(adapter)
        if self._make.routes is None:
            raise Invalid(f"engines of kind '{self._make.name}' keep the adapters of their start", "start another")
        with self._changing:
            self._adapters = tuple(ref for ref in self._adapters if ref != adapter)
            self._mine = tuple(ref for ref in self._mine if ref != adapter)
        self._chat.tell(f"{self._root}{self._make.routes.unload}", {"lora_name": adapter_name(adapter)})

    def verify(self, adapter: Ref, folder: Path) -> None:
        """Raise Unavailable unless this adapter changes what the engine computes.

        A server that knows an adapter's name may still answer as the base does, with status 200.
        """
        if not changes(self, adapter, folder, self._make.caps):
            raise Unavailable(
                f"adapter '{adapter}' changes nothing: the engine answers as its base does",
                "it was not loaded, or training has changed no weights; read the engine's log",
            )

    def measure(self) -> Load:
        """What the server's own metrics say; nothing where the make has none. Raises Unavailable when it is gone."""
        if self._make.metrics is None:
            return Load()
        return engine_metrics.read(self._chat.text(f"{self._root}/metrics"), self._make.metrics)

    def alive(self) -> bool:
        """Whether its process lives and says within 5 s that it is healthy."""
        if self.process is not None and self.process.poll() is not None:
            return False
        try:
            self._chat.text(f"{self._root}{self._make.health}")
        except NoriaError:
            return False
        return True

    def close(self) -> None:
        """Wait for the answers in flight (20 s at the most) and end the process group; leave an attached server alone.

        Of an attached server only the adapters that were loaded here are taken away. May be called again.
        """
        if self.process is None:
            for adapter in self._mine:
                with suppress(NoriaError):
                    self.unload(adapter)
            self._chat.close()
            return
        if self.process.poll() is None:
            self._drain()
        self._chat.close()
        end(self.process, GRACE, self._remove)

    def _drain(self) -> None:
        """Idle must be seen twice: a request may be between its arrival and the queue."""
        idle, until = 0, time.monotonic() + DRAIN
        while self._make.metrics is not None and idle < 2 and time.monotonic() < until:
            try:
                load = self.measure()
            except NoriaError:
                return
            idle = 0 if (load.waiting or 0) + (load.running or 0) > 0 else idle + 1
            time.sleep(_POLL)
