"""Engines of kind encoder: vectors, ranks and classes of texts, in a child process that needs no torch."""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from noria import adapters as folders
from noria.backends import server_child
from noria.backends.chat_client import ChatClient
from noria.backends.child import stop
from noria.backends.encoder_bert import shape_of
from noria.backends.encoder_model import HEAD, PACKAGED, digest_of_folder, encoder_folder
from noria.backends.encoder_server import DRAIN, ServerConfig
from noria.backends.scratch import temporary
from noria.classes import among
from noria.errors import Invalid, NoriaError, NotFound
from noria.ports import EngineKind
from noria.settings import EngineSettings, child_environment, known
from noria.types import Caps, Endpoint, Form, Generation, Message, Ref

SERVER: Final = "noria.backends.encoder_server"
THREADS: Final = 2
READY_SECONDS: Final = 60.0
"""Threads where the settings name no number: an encoder is small, and others want the machine too."""
CAPS: Final = Caps(
    heads=True, choice="classes", text=False, schema=False, logprobs=False, embeddings=True, rerank=True, classify=True
)
ONE_THREAD: Final[Mapping[str, str]] = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Variables by which numpy computes in the thread that calls it.

OpenBLAS's own threads spin while they wait: on a busy machine they cost ten times what they gain. And the sums of a
product then do not depend on how many cores there are.
"""


def open() -> EngineKind:
    """What the entry point `encoder` of the group `noria.engines` opens."""
    return Encoders()


class Encoders:
    """Port `EngineKind`: serves a folder of an encoder with the heads that training has made for it."""

    def __init__(self) -> None:
        self._bases: dict[tuple[Path, int, int], Ref] = {}

    @property
    def caps(self) -> Caps:
        """Heads, and classes by their bare names."""
        return CAPS

    def base(self, settings: EngineSettings) -> tuple[Ref, str]:
        """Name of the encoder by the SHA-256 of its files; weights are computed with in single precision.

        Raises Invalid for a folder that is no encoder, NotFound for one that is missing, Unavailable when the package
        that carries it is not installed.
        """
        folder = model_folder(settings)
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise Invalid(f"'{folder.name}' has no 'model.safetensors'", "noria reads no pickled weights: convert them")
        stat = weights.stat()
        key = (folder, stat.st_size, stat.st_mtime_ns)
        if key not in self._bases:
            shape_of(folder)
            name = str(settings.model) if settings.model in PACKAGED else folder.name
            self._bases[key] = Ref(kind="base", name=name, digest=digest_of_folder(folder))
        return self._bases[key], "F32"

    def start(self, settings: EngineSettings, adapters: Mapping[Ref, Path], log: Path) -> EncoderEngine:
        """A server that answers, with these heads loaded; its output goes to `log`.

        Raises Invalid for a bad model or an adapter that is no head, Unavailable when the process does not come up.
        """
        base, _ = self.base(settings)
        for ref, folder in adapters.items():
            if folders.kind_of(folder) != "head" or not (folder / HEAD).is_file():
                raise Invalid(f"adapter '{ref}' is no head, and an encoder serves nothing else", "train it again")
        reranker = encoder_folder(settings.reranker).resolve() if settings.reranker else None
        key = secrets.token_urlsafe(24)
        with ExitStack() as unless_ready, temporary("noria-engine.") as scratch:
            config = ServerConfig(
                folder=model_folder(settings).resolve(),
                model=base.name,
                context=settings.context,
                threads=settings.threads or min(THREADS, os.cpu_count() or 1),
                slots=settings.slots,
                key=key,
                adapters={str(ref): folder.resolve() for ref, folder in adapters.items()},
                reranker=reranker,
                ready=scratch / "ready",
            )
            process = server_child.launch(SERVER, config, scratch, log, child_environment(**ONE_THREAD))
            unless_ready.callback(stop, process, 0.0)
            limit = settings.start_limit or READY_SECONDS
            url = server_child.wait(process, config.ready, log, limit, "the encoder")
            endpoint = Endpoint(
                url=f"{url}/v1", key=key, model=base.name, paths=(("/tokenize", "/v1/tokenize"),)
            )  # fmt: skip
            engine = EncoderEngine(process, endpoint, tuple(adapters), log)
            unless_ready.pop_all()
        return engine


class EncoderEngine:
    """Port `Engine` on one child process."""

    def __init__(
        self, process: subprocess.Popen[bytes], endpoint: Endpoint, adapters: tuple[Ref, ...], log: Path
    ) -> None:
        self.process = process
        self._chat = ChatClient(endpoint, endpoint.model, f"its log is {log}")
        self._adapters = adapters
        self._closing = threading.Lock()

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers; the key is made anew at each start."""
        return self._chat.endpoint

    @property
    def pids(self) -> tuple[int, ...]:
        """Its own process."""
        return (self.process.pid,)

    def extra(self, adapter: Ref | None) -> dict[str, JsonValue]:
        """The head's name; raises NotFound for an unknown one."""
        if adapter is not None and adapter not in self._adapters:
            raise NotFound(
                f"adapter '{adapter}' is not loaded in this engine",
                known(str(adapter), {str(ref) for ref in self._adapters}),
            )
        return {"adapter": str(adapter or "")}

    def answer(
        self, messages: Sequence[Message], adapter: Ref | None, max_tokens: int, stop: Sequence[str], how: Form = Form()
    ) -> Generation:
        """The class of a conversation's text. Without a head it is the nearest of `how.among`, or nothing at all.

        Raises Invalid for a text longer than the context and for a form other than classes, Unavailable.
        """
        extra = {**self.extra(adapter), **among(CAPS.choice, how.among, how.several)}
        return self._chat.answer(messages, extra, max_tokens, stop, how)

    def next_token(self, tokens: Sequence[int], adapter: Ref | None) -> tuple[int, float]:
        """Not offered; always raises Invalid. Ask `caps.exact_tokens` first."""
        raise Invalid("an encoder writes no tokens", "use an engine whose caps say exact_tokens")

    def alive(self) -> bool:
        """Whether the process lives and says that it is healthy."""
        if self.process.poll() is not None:
            return False
        try:
            self._chat.get(f"{self.endpoint.url.removesuffix('/v1')}/health")
        except NoriaError:
            return False
        return True

    def close(self) -> None:
        """Wait for the answers in flight (20 s at the most) and end the process; may be called again."""
        with self._closing:
            # Connections that are kept open would hold its end back.
            self._chat.close()
            if self.process.poll() is None:
                stop(self.process, DRAIN + 2.0)


def model_folder(settings: EngineSettings) -> Path:
    """The folder that `settings.model` names; raises as `Encoders.base` does."""
    if settings.model is None:
        raise Invalid("engines of kind 'encoder' are launched, not attached", "for a running server: kind = 'openai'")
    return encoder_folder(settings.model)
