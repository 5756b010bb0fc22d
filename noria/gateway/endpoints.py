"""Every inference endpoint by its path; `/generate` and `/tokenize`, which have no model in OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from noria.errors import Invalid
from noria.gateway.ask import CHAT, CLASSIFY, COMPLETIONS, EMBEDDINGS, RERANK, Api, Ask, Chat, Prepared, longest
from noria.gateway.record import Turn
from noria.gateway.responses import RESPONSES
from noria.gateway.routing import Live, LiveArm
from noria.gateway.wire import read_object
from noria.settings import GatewaySettings

_PROMPTS: Final = ("prompt", "text")
_LENGTHS: Final = ("max_new_tokens", "max_length", "max_tokens")
_NUMBERS: Final = (*_LENGTHS, "temperature", "top_p", "top_k", "seed")
_TOKENIZED: Final = ("content", "prompt", "text", "input")
_MOST_FIELDS: Final = 64


class Generate(Chat):
    """`POST /generate`: one prompt in, one text out, over chat; parameters in the query, in a JSON body, or in both.

    `max_length` is the most new tokens: unlike that of Hugging Face's pipelines it does not count the prompt's.
    """

    told = _PROMPTS

    def __init__(self) -> None:
        super().__init__("generate")

    def read(self, body: bytes, query: bytes) -> dict[str, Any]:
        """As `Api.read`; what the body says holds against the query."""
        found = read_object(body) if body.strip() else {}
        try:
            pairs = parse_qsl(query.decode(errors="replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError as error:
            raise Invalid(f"the query has more than {_MOST_FIELDS} fields", "send them as a JSON body") from error
        return {name: _number(value) if name in _NUMBERS else value for name, value in pairs} | found

    def unnamed(self, tasks: Sequence[str]) -> str:
        """As `Api.unnamed`: the only task that the caller may ask."""
        if len(tasks) == 1:
            return tasks[0]
        known = ", ".join(tasks) or "none"
        raise Invalid("'model' is missing, and there is not exactly one task to ask", f"known are: {known}")

    def parse(self, body: Mapping[str, Any], rules: GatewaySettings, size: int) -> Ask:
        """As `Api.parse`; the body of what is returned is that of a chat request."""
        prompt = next((body[name] for name in _PROMPTS if body.get(name)), None)
        if not isinstance(prompt, str):
            raise Invalid("'prompt' is missing, empty or no text", "send ?prompt=… or a JSON body with 'prompt'")
        if body.get("stream"):
            raise Invalid("'/generate' does not stream", "use /v1/chat/completions")
        chat = {name: value for name, value in body.items() if name not in (*_PROMPTS, *_LENGTHS, "n", "messages")}
        chat["messages"] = [{"role": "user", "content": prompt}]
        most = longest(body, rules.max_tokens, _LENGTHS)
        if most is not None:
            chat["max_tokens"] = most
        return super().parse(chat, rules, size or len(prompt))

    def render(self, document: dict[str, Any], ask: Ask, turn: Turn) -> Mapping[str, Any]:
        """As `Api.render`: the new text and nothing else."""
        message = document["choices"][0].get("message") or {}
        return {"generated_text": message.get("content") or ""}


class Tokenize(Api):
    """`POST /tokenize`: a text, or a conversation where the engine takes one, as token ids.

    The text may stand in any of the fields that engines know it by; each engine finds it in its own.
    """

    def __init__(self) -> None:
        super().__init__("tokenize", "/tokenize")

    def parse(self, body: Mapping[str, Any], rules: GatewaySettings, size: int) -> Ask:
        """As `Api.parse`."""
        text = next((body[name] for name in _TOKENIZED if name in body), None)
        if text is None and not isinstance(body.get("messages"), list):
            raise Invalid("'prompt' is missing", 'send "prompt": "…"')
        if text is not None and not isinstance(text, str):
            raise Invalid("'prompt' is no text", 'send "prompt": "…"')
        return Ask(self, body, size)

    def texts(self, ask: Ask) -> list[str]:
        """As `Api.texts`."""
        return [ask.body[name] for name in _TOKENIZED if name in ask.body][:1]

    def prepare(self, live: Live, arm: LiveArm, ask: Ask) -> Prepared:
        """As `Api.prepare`."""
        body = {name: value for name, value in ask.body.items() if name not in (*_TOKENIZED, "user", "metadata")}
        body["model"] = arm.arm.upstreams[0].model
        for text in self.texts(ask):
            # llama.cpp's name for it, then vLLM's.
            body["content"] = body["prompt"] = text
        return Prepared(orjson.dumps(body))

    def relay(self, body: bytes, ask: Ask, turn: Turn) -> bytes:
        """As `Api.relay`, with the number of tokens where the engine has not counted them."""
        body = super().relay(body, ask, turn)
        found = orjson.loads(body)
        if isinstance(found, dict) and "count" not in found and isinstance(found.get("tokens"), list):
            return orjson.dumps({**found, "count": len(found["tokens"])})
        return body


GENERATE: Final = Generate()
TOKENIZE: Final = Tokenize()
APIS: Final[Mapping[str, Api]] = {
    "/chat/completions": CHAT,
    "/completions": COMPLETIONS,
    "/responses": RESPONSES,
    "/embeddings": EMBEDDINGS,
    "/rerank": RERANK,
    "/classify": CLASSIFY,
    "/tokenize": TOKENIZE,
    "/generate": GENERATE,
}
"""By the path below `/v1`; each answers without that too."""


def _number(value: str) -> int | float | str:
    with suppress(ValueError):
        number = int(value)
        # JSON as engines read it has no longer ones.
        return number if abs(number) < 2**63 else float(number)
    with suppress(ValueError):
        return float(value)
    return value
