"""What a running engine really does, found by requests whose effect must be seen in the answer.

Servers ignore what they do not know and say 200: a status proves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
from pydantic import JsonValue

from noria.backends.chat_client import ANSWER_TIMEOUT, ChatClient, on_this_machine
from noria.errors import NoriaError
from noria.types import Caps, Endpoint

_WORD: Final = "zqxj"
"""No model says it unless it is made to."""
_CHAT, _STREAM, _LOGPROBS, _SCHEMA, _TOOLS = "chat", "stream", "logprobs", "schema", "tools"
_EMBEDDINGS, _RERANK, _CLASSIFY = "embeddings", "rerank", "classify"
_TEXTS: Final = ("The river flows through Vienna.", "Add the flour, then stir.")
_ARGUMENTS: Final[dict[str, JsonValue]] = {
    "type": "object",
    "properties": {"word": {"type": "string", "enum": [_WORD]}},
    "required": ["word"],
    "additionalProperties": False,
}
_SAY: Final[dict[str, JsonValue]] = {
    "type": "function",
    "function": {"name": "say", "description": "Says a word.", "strict": True, "parameters": _ARGUMENTS},
}
_LONG: Final = 48
"""Tokens for an answer in a form: small models spend some on white space."""


def claimed(caps: Caps) -> frozenset[str]:
    """The abilities that caps promise, by the names that `probe` finds them under."""
    told = {
        _CHAT: caps.text, _STREAM: caps.text, _LOGPROBS: caps.text and caps.logprobs,
        _SCHEMA: caps.text and caps.schema, _TOOLS: caps.tools, _EMBEDDINGS: caps.embeddings,
        _RERANK: caps.rerank, _CLASSIFY: caps.classify,
    }  # fmt: skip
    return frozenset(name for name, is_told in told.items() if is_told)


def probe(endpoint: Endpoint, extra: Mapping[str, JsonValue] | None = None) -> frozenset[str]:
    """The abilities that were seen: chat, stream, logprobs, schema, tools, embeddings, rerank, classify.

    `extra` goes into every request as it is (`Engine.extra`). A few short requests each; what is refused, or makes no
    difference, is not there. Raises nothing: an engine that is gone has no abilities.
    """
    client = ChatClient(endpoint, endpoint.model, "is it running?")
    asked = _Asked(client, endpoint, dict(extra or {}))
    looks: dict[str, Callable[[], bool]] = {
        _CHAT: asked.chat, _STREAM: asked.stream, _LOGPROBS: asked.logprobs, _SCHEMA: asked.schema,
        _TOOLS: asked.tools, _EMBEDDINGS: asked.embeddings, _RERANK: asked.rerank, _CLASSIFY: asked.classify,
    }  # fmt: skip
    try:
        return frozenset(name for name, look in looks.items() if _seen(look))
    finally:
        client.close()


def calls_tools(endpoint: Endpoint, tokens: int) -> bool:
    """Whether the model calls a tool by itself, in OpenAI's form, when told to: one request of at most `tokens`.

    That a server takes a call that is forced proves less: some force one without a parser of the model's own calls.
    Raises nothing.
    """
    client = ChatClient(endpoint, endpoint.model, "is it running?")
    try:
        return _seen(lambda: _Asked(client, endpoint, {}).calls(tokens))
    finally:
        client.close()


def _seen(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except (NoriaError, httpx.HTTPError, KeyError, IndexError, TypeError, ValueError, AttributeError):
        # Refused, or an answer of another form than OpenAI's: either way it cannot be relied on.
        return False


def _said(call: Mapping[str, Any]) -> bool:
    function = call["function"]
    return function["name"] == "say" and json.loads(function["arguments"]) == {"word": _WORD}


class _Asked:
    def __init__(self, client: ChatClient, endpoint: Endpoint, extra: dict[str, JsonValue]) -> None:
        self._client = client
        self._endpoint = endpoint
        self._extra = extra

    def chat(self) -> bool:
        return bool(self._choice({}, 4)["message"]["content"])

    def logprobs(self) -> bool:
        told = self._choice({"logprobs": True, "top_logprobs": 3}, 2)["logprobs"]["content"][0]
        return float(told["logprob"]) <= 0 and len(told["top_logprobs"]) >= 2

    def schema(self) -> bool:
        named: dict[str, JsonValue] = {"name": "answer", "strict": True, "schema": _ARGUMENTS}
        form: dict[str, JsonValue] = {"response_format": {"type": "json_schema", "json_schema": named}}
        return bool(json.loads(self._choice(form, _LONG)["message"]["content"]) == {"word": _WORD})

    def tools(self) -> bool:
        """With the schema enforced: some give whatever the model says as arguments."""
        told: dict[str, JsonValue] = {
            "tools": [_SAY],
            "tool_choice": {"type": "function", "function": {"name": "say"}},
        }
        (call,) = self._choice(told, _LONG)["message"]["tool_calls"]
        return _said(call)

    def calls(self, tokens: int) -> bool:
        """As a conversation with tools asks: the model is free to call."""
        order: JsonValue = [{"role": "user", "content": f"Call the tool say now, with the word {_WORD}."}]
        told: dict[str, JsonValue] = {"tools": [_SAY], "messages": order}
        (call,) = self._choice(told, tokens)["message"]["tool_calls"]
        return _said(call)

    def stream(self) -> bool:
        """In more than one piece, and the pieces are the answer."""
        whole = self._choice({}, 8)["message"]["content"]
        pieces = []
        body = {**self._chat({}, 8), "stream": True}
        headers = {"Authorization": f"Bearer {self._endpoint.key}"}
        url = f"{self._endpoint.url}/chat/completions"
        with (
            httpx.Client(trust_env=not on_this_machine(url), timeout=ANSWER_TIMEOUT) as http,
            http.stream("POST", url, json=body, headers=headers) as reply,
        ):
            reply.raise_for_status()
            for line in reply.iter_lines():
                if not line.startswith("data: {"):
                    continue
                for choice in json.loads(line.removeprefix("data: "))["choices"]:
                    if text := choice["delta"].get("content"):
                        pieces.append(text)
        return len(pieces) > 1 and "".join(pieces).strip() == whole.strip()

    def embeddings(self) -> bool:
        rows = self._post("/embeddings", {"input": list(_TEXTS)})["data"]
        one, other = (row["embedding"] for row in sorted(rows, key=lambda row: row["index"]))
        return len(one) == len(other) > 1 and one != other

    def rerank(self) -> bool:
        rows = self._post("/rerank", {"query": "a river", "documents": list(_TEXTS)})["results"]
        scores = [float(row["relevance_score"]) for row in rows]
        return sorted(row["index"] for row in rows) == [0, 1] and scores == sorted(scores, reverse=True) != scores[::-1]

    def classify(self) -> bool:
        """Of each text infinity and noria list every class, vLLM its best one with all probabilities."""
        data = self._post("/classify", {"input": list(_TEXTS)})["data"]
        if isinstance(data[0], list):
            return all(each["label"] and 0 <= float(each["score"]) <= 1 for row in data for each in row)
        return all(row["label"] and row["probs"] for row in data)

    def _chat(self, more: Mapping[str, JsonValue], tokens: int) -> dict[str, JsonValue]:
        return {
            "model": self._endpoint.model, "messages": [{"role": "user", "content": "Count from one to ten."}],
            "temperature": 0, "max_tokens": tokens, **self._extra, **more,
        }  # fmt: skip

    def _choice(self, more: Mapping[str, JsonValue], tokens: int) -> Any:
        return self._client.post(f"{self._endpoint.url}/chat/completions", self._chat(more, tokens))["choices"][0]

    def _post(self, path: str, body: Mapping[str, JsonValue]) -> Any:
        rooted = dict(self._endpoint.paths).get(path)
        url = f"{self._endpoint.url.removesuffix('/v1')}{rooted}" if rooted else f"{self._endpoint.url}{path}"
        return self._client.post(url, {"model": self._endpoint.model, **self._extra, **body})
