"""The one client with which noria itself asks an engine that speaks OpenAI's API, launched or attached."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import JsonValue

from noria.errors import Invalid, Unavailable
from noria.types import Choices, Endpoint, Form, Generation, Message

SEED = 0
ANSWER_TIMEOUT = 600.0
"""Most seconds between two bytes of an answer: a queued request on a slow machine waits long."""
HEALTH_TIMEOUT = 5.0


class ChatClient:
    """Greedy answers from one endpoint over kept connections; safe to share between threads.

    `name` is what errors call the engine, `hint` what they advise when it is gone.
    """

    def __init__(self, endpoint: Endpoint, name: str, hint: str) -> None:
        self.endpoint = endpoint
        self._name = name
        self._hint = hint
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {endpoint.key}"},
            # llama.cpp closes idle connections after 5 s: drop them first, or a request meets a closing one.
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=2.0),
            trust_env=not on_this_machine(endpoint.url),
        )

    def answer(
        self,
        messages: Sequence[Message],
        extra: Mapping[str, JsonValue],
        max_tokens: int,
        stop: Sequence[str],
        how: Form = Form(),
    ) -> Generation:
        """One greedy answer in this form; `extra` goes into the request body as it is.

        A schema is sent as OpenAI's structured output, which llama.cpp, vLLM and SGLang enforce token by token.

        Raises Invalid for what the engine refuses (a prompt longer than its context), Unavailable when it is gone.
        """
        body: dict[str, JsonValue] = {
            "model": self.endpoint.model,
            "messages": [message.model_dump() for message in messages],
            "temperature": 0,
            "seed": SEED,
            "max_tokens": max_tokens,
            **extra,
        }
        if stop:
            body["stop"] = list(stop)
        if how.schema is not None:
            named: dict[str, JsonValue] = {"name": "answer", "strict": True, "schema": how.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        if how.choices:
            body |= {"logprobs": True, "top_logprobs": how.choices}
        reply = self.post(f"{self.endpoint.url}/chat/completions", body)
        try:
            choice = reply["choices"][0]
            usage = reply.get("usage") or {}
            return Generation(
                text=choice["message"]["content"] or "",
                finish_reason=choice["finish_reason"],
                prompt_tokens=usage.get("prompt_tokens"),
                completion_tokens=usage.get("completion_tokens"),
                tokens=_tokens(choice) if how.choices else (),
            )
        except (KeyError, IndexError, TypeError) as error:
            raise self._nonsense() from error

    def likelihood(self, messages: Sequence[Message], answer: str, extra: Mapping[str, JsonValue]) -> tuple[float, int]:
        """Sum of the log-probabilities of an answer's tokens after the messages, in nats, and how many they are.

        vLLM gives one for each token of a prompt, which here ends in the answer; how many of them come before it is
        known from the prompt without it. Raises Invalid for an engine that gives none, else as `answer` does.
        """
        before = self.answer(messages, extra, 1, ()).prompt_tokens
        body: dict[str, JsonValue] = {
            "model": self.endpoint.model,
            "messages": [*(message.model_dump() for message in messages), {"role": "assistant", "content": answer}],
            "temperature": 0,
            "max_tokens": 1,
            "prompt_logprobs": 0,
            "add_generation_prompt": False,
            "continue_final_message": True,
            **extra,
        }
        found = self.post(f"{self.endpoint.url}/chat/completions", body).get("prompt_logprobs")
        if not found or before is None:
            raise Invalid(
                f"engine '{self._name}' gives no log-probabilities of a prompt",
                "use vLLM (kind = 'vllm'), or leave out metrics that need them",
            )
        try:
            # By token: an object from token id to its entry, the prompt's own token first.
            own = [float(next(iter(each.values()))["logprob"]) for each in found[max(1, before) :]]
        except (AttributeError, KeyError, StopIteration, TypeError, ValueError) as error:
            raise self._nonsense() from error
        return math.fsum(own), len(own)

    def post(self, url: str, body: Mapping[str, JsonValue]) -> Any:
        """The JSON reply to a JSON request; raises Invalid or Unavailable."""
        try:
            return self._read(self._ask("POST", url, ANSWER_TIMEOUT, body))
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # The engine may have closed an idle connection at that moment; a greedy question is safe to repeat.
            pass
        except httpx.TransportError as error:
            raise self._gone(error) from error
        try:
            return self._read(self._ask("POST", url, ANSWER_TIMEOUT, body))
        except httpx.TransportError as error:
            raise self._gone(error) from error

    def tell(self, url: str, body: Mapping[str, JsonValue]) -> None:
        """A JSON request whose reply does not matter beyond its status; raises Invalid or Unavailable."""
        try:
            self._checked(self._ask("POST", url, ANSWER_TIMEOUT, body))
        except httpx.TransportError as error:
            raise self._gone(error) from error

    def text(self, url: str) -> str:
        """The reply to a GET within `HEALTH_TIMEOUT` seconds as it is; raises Invalid or Unavailable."""
        try:
            return self._checked(self._ask("GET", url, HEALTH_TIMEOUT)).text
        except httpx.TransportError as error:
            raise self._gone(error) from error

    def get(self, url: str) -> Any:
        """The JSON reply to a GET within `HEALTH_TIMEOUT` seconds; raises Invalid or Unavailable."""
        try:
            return self._read(self._ask("GET", url, HEALTH_TIMEOUT))
        except httpx.TransportError as error:
            raise self._gone(error) from error

    def close(self) -> None:
        """Close the kept connections."""
        self._http.close()

    def _ask(
        self, method: str, url: str, timeout: float, body: Mapping[str, JsonValue] | None = None
    ) -> httpx.Response:
        if self._http.is_closed:
            raise Unavailable(f"engine '{self._name}' was stopped", self._hint)
        limits = httpx.Timeout(timeout, connect=HEALTH_TIMEOUT)
        return self._http.request(method, url, json=body, timeout=limits)

    def _read(self, response: httpx.Response) -> Any:
        try:
            return self._checked(response).json()
        except ValueError as error:
            raise self._nonsense() from error

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        said, kind = _complaint(response)
        fact = f"engine '{self._name}' refused the request: {said}"
        if response.status_code in (401, 403):
            raise Invalid(fact, 'give the name of the variable that holds its API key: key = "…" in its table')
        if response.status_code == 429 or response.status_code >= 500:
            raise Unavailable(fact, "try again when it has less to do, and read its log")
        if "context" in kind or "context length" in said:
            raise Invalid(fact, "shorten the conversation, or give the engine a longer context")
        raise Invalid(fact)

    def _gone(self, error: httpx.TransportError) -> Unavailable:
        reason = str(error) or type(error).__name__
        return Unavailable(
            f"engine '{self._name}' does not answer at {self.endpoint.url}: {reason}",
            self._hint,
        )

    def _nonsense(self) -> Unavailable:
        return Unavailable(
            f"engine '{self._name}' at {self.endpoint.url} answered something that is not OpenAI's API",
            f"look at it: curl {self.endpoint.url}/models",
        )


def _tokens(choice: Mapping[str, Any]) -> tuple[Choices, ...]:
    """Of each token of an answer, what was taken and the likeliest ones; nothing where the engine does not tell."""
    content = (choice.get("logprobs") or {}).get("content") or ()
    return tuple(
        tuple((str(each["token"]), float(each["logprob"])) for each in (taken, *(taken.get("top_logprobs") or ())))
        for taken in content
    )


def on_this_machine(url: str) -> bool:
    """Whether a URL names the loopback, which no proxy of the environment may stand before."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _complaint(response: httpx.Response) -> tuple[str, str]:
    """What an error in OpenAI's form says and its type and code; the plain text for one in another form."""
    try:
        error = response.json()["error"]
        return str(error["message"]), f"{error.get('type')} {error.get('code')}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"HTTP {response.status_code} {response.text[:200]}".strip(), ""
