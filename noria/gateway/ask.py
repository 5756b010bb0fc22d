"""What clients ask for: the bodies of the inference endpoints, checked, and the bodies that engines are given.

Fields that nobody here knows pass through untouched: engines know more of them than any gateway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from noria import prompts
from noria.errors import Invalid
from noria.gateway.answers import Filter
from noria.gateway.events import AnswerStream
from noria.gateway.faults import engine_fault, said
from noria.gateway.record import Turn
from noria.gateway.routing import Live, LiveArm
from noria.gateway.wire import EngineFault, read_object
from noria.ports import Meant
from noria.settings import GatewaySettings

_OURS: Final = frozenset(("metadata", "store", "user", "max_completion_tokens", "safety_identifier", "service_tier"))
"""Fields of a chat request that are for noria or renamed, and are not sent on."""
_ROLES: Final = frozenset(("system", "developer", "user", "assistant", "tool", "function"))
_PLAIN: Final = ("user", "assistant", "system")
_LACKING: Final = (404, 405, 501)
"""How engines say that they have no such endpoint."""
CHARS_PER_TOKEN: Final = 4
"""For estimates where an engine does not count: the usual ratio for English."""


class Ask:
    """A checked request, of `size` bytes. `messages` is its conversation, where it has one."""

    messages: Sequence[Mapping[str, Any]] = ()
    stream = False
    usage = False
    """Whether the client asked for the usage chunk at the end of a stream."""
    max_tokens: int | None = None
    choices = 1
    stop: tuple[str, ...] = ()
    logprobs = False
    """Whether the client asked for log-probabilities."""
    meant: Meant | None = None
    """The question as a vector, where documents are found by meaning."""

    def __init__(self, api: Api, body: Mapping[str, Any], size: int) -> None:
        self.api = api
        self.body = body
        self.size = size

    def generation(self, rules: GatewaySettings) -> None:
        """Read the fields that all generating endpoints share; raises Invalid."""
        body = self.body
        if "stream" in body:
            self.stream = flag(body, "stream")
        if "stream_options" in body:
            options = body["stream_options"] or {}
            if not isinstance(options, dict):
                raise Invalid("'stream_options' is not an object", 'send {"include_usage": true}')
            self.usage = bool(options.get("include_usage"))
        self.max_tokens = longest(body, rules.max_tokens)
        if "n" in body:
            self.choices = _choices(body["n"], rules.choices)
        if "stop" in body:
            self.stop = _stop(body["stop"])

    def tokens(self, live: Live) -> tuple[int, int]:
        """Tokens of the prompt and most tokens of the answer, estimated before an engine has counted them."""
        prompt = self.size // CHARS_PER_TOKEN
        if not self.api.generates:
            return prompt, 0
        default = live.task.max_tokens if live.task is not None else 256
        return prompt, (self.max_tokens or default) * self.choices

    def question(self) -> str | None:
        """What is asked last of a conversation; None where that is no user's."""
        last = self.messages[-1] if self.messages else {}
        return _text(last) if last.get("role") == "user" else None

    def prefix(self) -> str:
        """The beginning of the prompt, by which a replica that knows it is found."""
        head = "".join(text if isinstance(text := each.get("content"), str) else "" for each in self.messages[:2])
        return head or "".join(self.api.texts(self)[:1])


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one engine is sent: the request body, the context that went into it, and the ids of its documents."""

    body: bytes
    context: str | None = None
    sources: tuple[str, ...] = ()


class Api:
    """One endpoint: `name` in records and metrics, `path` at the engine. This one passes requests through."""

    generates = False
    """Whether it produces text, whose length the caller limits."""
    chats = False
    """Whether it is a conversation, to which a task's prompt definition belongs."""
    told: tuple[str, ...] = ()
    """Fields of the body that the record has among its messages already."""

    def __init__(self, name: str, path: str, texts: Sequence[str] = (), *, kept: bool = False) -> None:
        """`texts` names the fields that hold the caller's words and must be there.

        `kept` is whether the engine's whole answer goes into the record; vectors and token ids would only fill it.
        """
        self.name = name
        self.path = path
        self._texts = tuple(texts)
        self._kept = kept

    def read(self, body: bytes, query: bytes) -> dict[str, Any]:
        """The fields of a request; raises Invalid."""
        return read_object(body)

    def unnamed(self, tasks: Sequence[str]) -> str:
        """The model of a request that names none, for a caller who may ask these tasks; empty where it must."""
        return ""

    def parse(self, body: Mapping[str, Any], rules: GatewaySettings, size: int) -> Ask:
        """Check a request; raises Invalid with the field that is wrong."""
        for name in self._texts:
            value = body.get(name)
            if not isinstance(value, str | list) or not value:
                raise Invalid(f"'{name}' is missing, empty or no text", f"send {' and '.join(self._texts)}")
        return Ask(self, body, size)

    def texts(self, ask: Ask) -> list[str]:
        """What the request says in words."""
        return [text for name in self._texts for text in _words(ask.body.get(name))]

    def prepare(self, live: Live, arm: LiveArm, ask: Ask) -> Prepared:
        """The body for an engine behind a route."""
        body = {name: value for name, value in ask.body.items() if name not in ("user", "metadata")}
        body["model"] = arm.arm.upstreams[0].model
        body.update(arm.arm.extra)
        return Prepared(orjson.dumps(body))

    def fault(self, status: int, body: bytes, engine: str) -> EngineFault:
        """What an engine's answer that has not status 200 means to the client."""
        if status not in _LACKING:
            return engine_fault(status, body)
        message, _ = said(body)
        return EngineFault(404, f"engine '{engine}' does not offer {self.path}: {message}", "not_found_error")

    def relay(self, body: bytes, ask: Ask, turn: Turn) -> bytes:
        """An engine's answer as the client gets it, under the name that it knows the model by; notes its usage."""
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise EngineFault(502, "the engine's answer is not JSON") from error
        if self._kept:
            turn.heard.whole = found
        if not isinstance(found, dict):
            return body
        turn.heard.usage(found)
        if found.get("model", turn.model) == turn.model:
            return body
        found["model"] = turn.model
        return orjson.dumps(found)

    def render(self, document: dict[str, Any], ask: Ask, turn: Turn) -> Mapping[str, Any]:
        """A chat or text completion as this endpoint's clients expect it."""
        return document

    def stream(self, ask: Ask, turn: Turn, strip: bool, logprobs: bool, filtered: Filter | None = None) -> AnswerStream:
        """What makes of an engine's stream this endpoint's; arguments as of AnswerStream."""
        return AnswerStream(turn.heard, turn.model, ask.usage, strip, logprobs, filtered)


class Chat(Api):
    """Chat completions. A task's prompt definition, context and defaults are applied here."""

    generates = True
    chats = True

    def __init__(self, name: str = "chat") -> None:
        super().__init__(name, "/chat/completions")

    def fault(self, status: int, body: bytes, engine: str) -> EngineFault:
        """As `Api.fault`: every engine has this endpoint."""
        return engine_fault(status, body)

    def parse(self, body: Mapping[str, Any], rules: GatewaySettings, size: int) -> Ask:
        """As `Api.parse`."""
        ask = Ask(self, body, size)
        ask.messages = _messages(body.get("messages"), rules.messages)
        ask.generation(rules)
        ask.logprobs = flag(body, "logprobs")
        return ask

    def texts(self, ask: Ask) -> list[str]:
        """As `Api.texts`."""
        return [_text(message) for message in ask.messages]

    def prepare(self, live: Live, arm: LiveArm, ask: Ask) -> Prepared:
        """As `Api.prepare`; raises Invalid when the conversation does not end with the user."""
        body = dict(ask.body)
        for name in _OURS & body.keys():
            del body[name]
        context, sources = prompts.beside((), 0)
        task = live.task
        if task is not None:
            if arm.index is not None and task.context is not None and (question := ask.question()) is not None:
                hits = arm.index.search(question, task.context.k, ask.meant)
                context, sources = prompts.beside(hits, task.context_chars)
            body["messages"] = prompts.dress(task.system, ask.messages, context, arm.wording)
            body["stop"] = [*ask.stop, prompts.STOP]
            if body.get("temperature") is None:
                body["temperature"] = 0.0
            # llama.cpp's server refuses log-probabilities of a stream that may call tools.
            if task.lights is not None and not (ask.stream and body.get("tools")):
                body["logprobs"] = True
        most = ask.max_tokens or (task.max_tokens if task is not None else None)
        if most is not None:
            body["max_tokens"] = most
        body["model"] = arm.arm.upstreams[0].model
        _with_usage(body, ask)
        body.update(arm.arm.extra)
        return Prepared(orjson.dumps(body), context, sources)


class Completions(Api):
    """Text completions, as they come: no prompt definition stands before them."""

    generates = True

    def __init__(self) -> None:
        super().__init__("completions", "/completions", ("prompt",))

    def parse(self, body: Mapping[str, Any], rules: GatewaySettings, size: int) -> Ask:
        """As `Api.parse`."""
        prompt = body.get("prompt")
        if prompt is None or prompt == []:
            raise Invalid("'prompt' is missing or empty", 'send "prompt": "…"')
        if not isinstance(prompt, str | list):
            raise Invalid("'prompt' is neither a string nor a list", 'send "prompt": "…"')
        wanted = body.get("logprobs")
        ask = Ask(self, body, size)
        ask.generation(rules)
        ask.logprobs = wanted is not None and wanted is not False
        if isinstance(prompt, list) and not isinstance(prompt[0], int):
            # A list of numbers is one prompt; of anything else each one is answered.
            if len(prompt) > rules.messages:
                raise Invalid(f"there are {len(prompt)} prompts; the most is {rules.messages}", "send fewer at a time")
            ask.choices *= len(prompt)
        return ask

    def prepare(self, live: Live, arm: LiveArm, ask: Ask) -> Prepared:
        """As `Api.prepare`."""
        body = {name: value for name, value in ask.body.items() if name not in _OURS}
        most = ask.max_tokens or (live.task.max_tokens if live.task is not None else None)
        if most is not None:
            body["max_tokens"] = most
        body["model"] = arm.arm.upstreams[0].model
        _with_usage(body, ask)
        body.update(arm.arm.extra)
        return Prepared(orjson.dumps(body))


class Classify(Api):
    """Classes of texts. A single text is recorded as a question, and its class as the answer."""

    told = ("input",)

    def __init__(self) -> None:
        super().__init__("classify", "/classify", ("input",), kept=True)

    def parse(self, body: Mapping[str, Any], rules: GatewaySettings, size: int) -> Ask:
        """As `Api.parse`."""
        ask = super().parse(body, rules, size)
        texts = self.texts(ask)
        if len(texts) == 1:
            ask.messages = [{"role": "user", "content": texts[0]}]
        return ask

    def relay(self, body: bytes, ask: Ask, turn: Turn) -> bytes:
        """As `Api.relay`; notes the class of a single text and its log-probability."""
        relayed = super().relay(body, ask, turn)
        whole = turn.heard.whole
        rows = whole.get("data") if isinstance(whole, dict) else None
        if ask.messages and isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], dict):
            turn.heard.text(0, str(rows[0].get("label") or ""))
            turn.heard.logprobs({"content": [rows[0]]})
        return relayed


CHAT: Final = Chat()
COMPLETIONS: Final = Completions()
EMBEDDINGS: Final = Api("embeddings", "/embeddings", ("input",))
RERANK: Final = Api("rerank", "/rerank", ("query", "documents"), kept=True)
CLASSIFY: Final = Classify()


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A field that is true, false or missing; raises Invalid for anything else."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Invalid(f"'{name}' is '{value}', not true or false", f"send true or false for {name}")
    return bool(value)


def _with_usage(body: dict[str, Any], ask: Ask) -> None:
    if ask.stream:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    else:
        body.pop("stream_options", None)


def _messages(found: object, most: int) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not found:
        raise Invalid("'messages' is missing, empty or not a list", 'send [{"role": "user", "content": "…"}]')
    if len(found) > most:
        raise Invalid(f"there are {len(found)} messages; the most is {most}", "send the latest ones")
    for number, message in enumerate(found):
        if type(message) is dict and type(message.get("content")) is str and message.get("role") in _PLAIN:
            continue
        if not isinstance(message, dict):
            raise Invalid(f"'messages.{number}' is not an object", 'send {"role": "user", "content": "…"}')
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or role not in _ROLES:
            raise Invalid(f"'messages.{number}.role' is '{role}'", "one of: system, developer, user, assistant, tool")
        if not isinstance(content, str | list) and not (content is None and role == "assistant"):
            raise Invalid(f"'messages.{number}.content' is neither text nor a list of parts", "send a string")
        if isinstance(content, list) and not all(isinstance(part, dict) for part in content):
            raise Invalid(f"'messages.{number}.content' has a part that is no object", 'send {"type": "text", …}')
    return found


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(prompts.text_of([part]) for part in parts if prompts.is_text([part]))


def _words(found: object) -> list[str]:
    if isinstance(found, str):
        return [found]
    if isinstance(found, list):
        # Documents to be ranked may be objects.
        words = (each.get("text") if isinstance(each, dict) else each for each in found)
        return [each for each in words if isinstance(each, str)]
    return []


def longest(
    body: Mapping[str, Any], most: int, names: Sequence[str] = ("max_completion_tokens", "max_tokens")
) -> int | None:
    """The number of tokens that an answer may have, in the first of these fields; raises Invalid."""
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise Invalid(f"'{name}' is '{value}'", "send a whole number of at least 1")
        if value > most:
            raise Invalid(f"'{name}' is {value}; the most is {most}", "ask for less, or raise [gateway] max_tokens")
        return value
    return None


def _choices(value: object, most: int) -> int:
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise Invalid(f"'n' is '{value}'", f"send a whole number from 1 to {most}")
    return value


def _stop(found: object) -> tuple[str, ...]:
    if found is None:
        return ()
    if isinstance(found, str):
        return (found,)
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return tuple(found)
    raise Invalid("'stop' is neither a string nor a list of strings", 'send "stop": ["…"]')
