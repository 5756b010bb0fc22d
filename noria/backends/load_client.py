"""A client that loads an engine with streamed requests and keeps the time of each."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
from pydantic import JsonValue

from noria.backends.chat_client import ANSWER_TIMEOUT, SEED, on_this_machine
from noria.engines import Reply
from noria.routes import Endpoint

Body = Mapping[str, JsonValue]
_CONNECT: Final = 10.0


class LoadClient:
    """Greedy requests to one endpoint, so many at once as it is told, over kept connections."""

    def __init__(self, endpoint: Endpoint, extra: Body | None = None) -> None:
        self._endpoint = endpoint
        self._extra = {**(extra or {})}
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {endpoint.key}"},
            timeout=httpx.Timeout(ANSWER_TIMEOUT, connect=_CONNECT),
            limits=httpx.Limits(max_connections=512, max_keepalive_connections=512, keepalive_expiry=2.0),
            trust_env=not on_this_machine(endpoint.url),
        )

    def close(self) -> None:
        """Close the kept connections."""
        self._http.close()

    def takes(self, field: str, value: JsonValue) -> bool:
        """Whether the engine takes a request with this field; what it does with it is not said."""
        body = self._chat([{"role": "user", "content": "Say yes."}], 1)
        return not self._one(f"{self._endpoint.url}/chat/completions", {**body, field: value}).error

    def use(self, extra: Body) -> None:
        """Send these fields with each request from now on."""
        self._extra |= extra

    def ask(self, messages: Sequence[Mapping[str, str]], max_tokens: int, extra: Body | None = None) -> Reply:
        """One streamed answer."""
        body = {**self._chat(messages, max_tokens), **(extra or {})}
        return self._one(f"{self._endpoint.url}/chat/completions", body)

    def embed(self, texts: Sequence[str]) -> Reply:
        """The vectors of texts; `vectors` are those that are finite and not zero."""
        began = time.perf_counter()
        body: dict[str, JsonValue] = {"model": self._endpoint.model, "input": list(texts)}
        try:
            answer = self._http.post(f"{self._endpoint.url}/embeddings", json=body)
            seconds = time.perf_counter() - began
            if not answer.is_success:
                return Reply(seconds, error=f"HTTP {answer.status_code} {answer.text[:200]}")
            told = answer.json()
            fine = sum(_is_vector(each["embedding"]) for each in told["data"])
            usage = told.get("usage") or {}
            return Reply(seconds, prompt_tokens=usage.get("prompt_tokens"), vectors=fine, finish="stop")
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            return Reply(time.perf_counter() - began, error=_said(error))

    def all(self, asks: Sequence[Sequence[Mapping[str, str]] | Sequence[str]], max_tokens: int, at_once: int,
            extra: Body | None = None) -> tuple[list[Reply], float]:  # fmt: skip
        """Answers to all of them in their order, and seconds from the first sent to the last answered.

        Texts (`str`) are embedded, messages answered. Nothing is sent before all threads are there.
        """
        ready = threading.Barrier(at_once + 1)

        def one(ask: Sequence[Mapping[str, str]] | Sequence[str]) -> Reply:
            texts = [each for each in ask if isinstance(each, str)]
            if texts:
                return self.embed(texts)
            return self.ask([each for each in ask if not isinstance(each, str)], max_tokens, extra)

        with ThreadPoolExecutor(at_once) as pool:
            waiting = [pool.submit(ready.wait) for _ in range(at_once)]
            ready.wait()
            for each in waiting:
                each.result()
            began = time.perf_counter()
            replies = [*pool.map(one, asks)]
            return replies, time.perf_counter() - began

    def _chat(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> dict[str, JsonValue]:
        return {
            "model": self._endpoint.model,
            "messages": [{**each} for each in messages],
            "temperature": 0,
            "seed": SEED,
            "max_tokens": max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._extra,
        }

    def _one(self, url: str, body: Body) -> Reply:
        began = time.perf_counter()
        heard = _Heard(began)
        try:
            with self._http.stream("POST", url, json=body) as answer:
                if not answer.is_success:
                    answer.read()
                    return Reply(time.perf_counter() - began, error=f"HTTP {answer.status_code} {answer.text[:200]}")
                for event in _events(answer):
                    heard.take(event)
        except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            return Reply(time.perf_counter() - began, first=heard.first, text=heard.text, error=_said(error))
        return heard.reply()


class _Heard:
    """What of a streamed answer has come so far."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._last = began
        self._usage: Mapping[str, Any] = {}
        self._cached: int | None = None
        self._error = ""
        self.first: float | None = None
        self.text = ""
        self.finish: str | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """One event of the stream."""
        now = time.perf_counter()
        if event.get("error"):
            self._error = str(event["error"])[:200]
        for choice in event.get("choices") or ():
            piece = (choice.get("delta") or {}).get("content") or ""
            if piece:
                self.first = now - self._began if self.first is None else self.first
                self.text += piece
                self._last = now
            self.finish = choice.get("finish_reason") or self.finish
            self._last = now
        self._usage = event.get("usage") or self._usage
        self._cached = (event.get("timings") or {}).get("cache_n", self._cached)

    def reply(self) -> Reply:
        """The answer as a whole."""
        details = self._usage.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens")
        return Reply(
            seconds=self._last - self._began,
            first=self.first,
            tokens=self._usage.get("completion_tokens"),
            prompt_tokens=self._usage.get("prompt_tokens"),
            cached=self._cached if cached is None else cached,
            finish=self.finish,
            text=self.text,
            error=self._error,
        )


def _events(answer: httpx.Response) -> Iterator[Mapping[str, Any]]:
    """The events of a stream (https://html.spec.whatwg.org/multipage/server-sent-events.html), up to [DONE]."""
    for line in answer.iter_lines():
        if line.startswith("data:"):
            data = line[5:].strip()
            if data == "[DONE]":
                return
            yield json.loads(data)


def _is_vector(values: Any) -> bool:
    numbers = [float(value) for value in values]
    return any(numbers) and all(map(math.isfinite, numbers))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
