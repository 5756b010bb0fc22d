"""Engines that already run and speak OpenAI's API, of any make: attached, never started or stopped by noria."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import JsonValue

from noria.backends.chat_client import ChatClient
from noria.classes import among
from noria.errors import Invalid, NoriaError, NotFound, Unavailable
from noria.ports import EngineKind
from noria.settings import EngineSettings, engine_key, known
from noria.types import Caps, Endpoint, Form, Generation, Message, Ref, digest_of


def open() -> EngineKind:
    """What the entry point `openai` of the group `noria.engines` opens."""
    return OpenAI()


class OpenAI:
    """Port `EngineKind`: attaches a running server. It cannot be given adapters.

    Nothing beyond chat is common to all makes.
    """

    def __init__(self, caps: Caps | None = None) -> None:
        self.caps = caps or Caps()

    def base(self, settings: EngineSettings) -> tuple[Ref, str]:
        """The first model that the server lists; the digest is that of its address and the model's id.

        Two servers with the same model are two bases, since a server does not say what its weights are. Raises
        Unavailable when it does not answer within 5 s, Invalid when `url` is missing or the key is wrong.
        """
        chat = connect(settings)
        chat.close()
        endpoint = chat.endpoint
        digest = digest_of({"url": endpoint.url, "model": endpoint.model})
        return Ref(kind="base", name=endpoint.model, digest=digest), "unknown"

    def start(self, settings: EngineSettings, adapters: Mapping[Ref, Path], log: Path) -> AttachedEngine:
        """The server at `settings.url`, once it has answered; `log` stays unwritten, the server keeps its own.

        Raises Invalid when adapters are wanted, else as `base` does.
        """
        if adapters:
            names = ", ".join(str(ref) for ref in adapters)
            raise Invalid(
                f"engine '{_address(settings)}' is attached and cannot load adapters: {names}",
                "let noria launch an engine that can: kind = 'llamacpp' with model = …",
            )
        return AttachedEngine(connect(settings), self.caps)


class AttachedEngine:
    """Port `Engine` on a server that somebody else runs."""

    def __init__(self, chat: ChatClient, caps: Caps) -> None:
        self._chat = chat
        self._caps = caps

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers."""
        return self._chat.endpoint

    def extra(self, adapter: Ref | None) -> dict[str, JsonValue]:
        """Nothing; raises NotFound for any adapter."""
        if adapter is not None:
            raise NotFound(f"adapter '{adapter}' is not loaded in this engine", "an attached engine has its base only")
        return {}

    def answer(
        self, messages: Sequence[Message], adapter: Ref | None, max_tokens: int, stop: Sequence[str], how: Form = Form()
    ) -> Generation:
        """One greedy answer; raises Invalid for what the server refuses, Unavailable when it is gone."""
        extra = {**self.extra(adapter), **among(self._caps.choice, how.among, how.several)}
        return self._chat.answer(messages, extra, max_tokens, stop, how)

    def next_token(self, tokens: Sequence[int], adapter: Ref | None) -> tuple[int, float]:
        """Not offered; always raises Invalid. Ask `caps.exact_tokens` first."""
        raise Invalid("an attached engine takes no token ids", "use an engine whose caps say exact_tokens")

    def logprob(self, messages: Sequence[Message], answer: str, adapter: Ref | None) -> tuple[float, int]:
        """Sum of the log-probabilities of the answer's tokens and their number; for kinds with `prompt_logprobs`.

        Raises Invalid for a server that does not give them.
        """
        return self._chat.likelihood(messages, answer, self.extra(adapter))

    def alive(self) -> bool:
        """Whether it lists its models within 5 s."""
        try:
            self._chat.get(f"{self.endpoint.url}/models")
        except NoriaError:
            return False
        return True

    def close(self) -> None:
        """Drop the connections; the server stays as it is."""
        self._chat.close()


def _address(settings: EngineSettings) -> str:
    if settings.url is None:
        raise Invalid(
            f"engines of kind '{settings.kind}' are attached and need a url", 'url = "http://127.0.0.1:8080/v1"'
        )
    address = settings.url.rstrip("/")
    if urlsplit(address).scheme not in ("http", "https"):
        raise Invalid(f"'{settings.url}' is not the address of a server", 'url = "http://127.0.0.1:8080/v1"')
    return address


def connect(settings: EngineSettings, rooted: Sequence[str] = ()) -> ChatClient:
    """A client for the model that the settings name, or the first one that the server lists.

    `rooted` are paths that it has at its root and not below `/v1`. Raises Invalid, Unavailable.
    """
    url = _address(settings)
    key = engine_key(settings, url)
    paths = tuple((path, path) for path in rooted)
    hint = f"is it running? curl {url}/models"
    probe = ChatClient(Endpoint(url=url, key=key, model=""), url, hint)
    try:
        names = [str(each["id"]) for each in probe.get(f"{url}/models")["data"]]
        model = settings.serves or names[0]
    except (KeyError, IndexError, TypeError) as error:
        raise Unavailable(f"engine '{url}' lists no models", f"look at it: curl {url}/models") from error
    finally:
        probe.close()
    if model not in names:
        raise Invalid(f"engine '{url}' does not list the model '{model}'", known(model, names))
    return ChatClient(Endpoint(url=url, key=key, model=model, paths=paths), url, hint)
