"""A streamed answer on its way through: read for the log, changed as little as possible, its tail held back.

Server-sent events as in the WHATWG HTML standard, section 9.2, with OpenAI's chunks as data.
"""

from __future__ import annotations

from typing import Any

import orjson

from noria.errors import NoriaError
from noria.gateway.wire import error_body

DONE = b"data: [DONE]\n\n"


def usage_of(document: dict[str, Any]) -> tuple[int | None, int | None]:
    """Prompt and completion tokens in an answer or a chunk, None where the engine does not say."""
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None, None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return prompt if isinstance(prompt, int) else None, completion if isinstance(completion, int) else None


class AnswerStream:
    """Takes the bytes of an engine's stream and gives those for the client.

    What follows the first `finish_reason` is held back in `tail`: the interaction must be logged before the client
    can take the answer for complete, and the usage chunk, which is part of the record, comes last.
    """

    def __init__(self, task: str, usage: bool) -> None:
        """`task` is the name the client knows the model by; `usage` whether it asked for the usage chunk."""
        self._task = task
        self._usage = usage
        self._rest = b""
        self._texts: list[str] = []
        self._tail: list[bytes] = []
        self.finish_reason: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.done = False
        """The engine has said that the stream is at its end."""
        self.error: str | None = None
        """What the engine said went wrong in the middle of its answer."""

    @property
    def text(self) -> str:
        """The answer until now."""
        return "".join(self._texts)

    @property
    def begun(self) -> bool:
        """Whether any text has come."""
        return bool(self._texts)

    @property
    def complete(self) -> bool:
        """Whether the answer came to its end, so that an end of the stream is no truncation."""
        return self.error is None and (self.done or self.finish_reason is not None)

    @property
    def tail(self) -> bytes:
        """What was held back, with the end mark."""
        return b"".join(self._tail) + DONE

    def feed(self, piece: bytes) -> bytes:
        """Take in what the engine sent; returns what may go to the client now, whole events only."""
        data = self._rest + piece if self._rest else piece
        if b"\r" in data:
            # A line end cut in two waits for its other half.
            held = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n") if not held else data[:-1].replace(b"\r\n", b"\n") + b"\r"
        *events, self._rest = data.split(b"\n\n")
        out: list[bytes] = []
        for event in events:
            passed = self._event(event)
            if passed:
                (self._tail if self.finish_reason is not None else out).append(passed)
        return b"".join(out)

    def failure(self, error: NoriaError) -> bytes:
        """The event that tells the client of an error when the stream has begun."""
        return b"data: %b\n\n" % error_body(error)

    def _event(self, event: bytes) -> bytes:
        if b"\n" in event or not event.startswith(b"data:"):
            data = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
            if not data:
                # Comments keep a connection awake; `error:` is how llama.cpp's server reports one.
                if event.startswith(b"error:"):
                    self.error = event[6:].decode(errors="replace").strip()
                    return b""
                return event + b"\n\n" if event else b""
            payload = b"\n".join(data)
        else:
            payload = event[5:].strip()
        if payload == b"[DONE]":
            self.done = True
            return b""
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            chunk = None
        if not isinstance(chunk, dict):
            self.error = "the engine sent a chunk that is not a JSON object"
            return b""
        return self._chunk(event, chunk)

    def _chunk(self, event: bytes, chunk: dict[str, Any]) -> bytes:
        if "error" in chunk:
            found = chunk["error"]
            self.error = str(found.get("message", found)) if isinstance(found, dict) else str(found)
            return b""
        prompt, completion = usage_of(chunk)
        self.prompt_tokens = self.prompt_tokens if prompt is None else prompt
        self.completion_tokens = self.completion_tokens if completion is None else completion
        choices = chunk.get("choices")
        if not choices:
            return event + b"\n\n" if self._usage else b""
        changed = self._choice(choices[0]) if isinstance(choices, list) and isinstance(choices[0], dict) else False
        if chunk.get("model") != self._task:
            chunk["model"] = self._task
            changed = True
        return b"data: %b\n\n" % orjson.dumps(chunk) if changed else event + b"\n\n"

    def _choice(self, choice: dict[str, Any]) -> bool:
        """Note a choice's text and end; returns whether it was changed."""
        changed = False
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        if isinstance(delta, dict) and isinstance(text, str) and text:
            if not self._texts and text[0].isspace():
                text = text.lstrip()
                delta["content"] = text
                changed = True
            if text:
                self._texts.append(text)
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self.finish_reason = reason
        return changed
