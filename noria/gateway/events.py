"""A streamed answer on its way through: read for the log, changed as little as possible, its tail held back.

Server-sent events as in the WHATWG HTML standard, section 9.2, with OpenAI's chunks as data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from noria.errors import NoriaError
from noria.gateway.answers import Heard
from noria.gateway.wire import error_event

DONE = b"data: [DONE]\n\n"


class Events:
    """Cuts the bytes of an engine's stream into events, whole ones only."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that are complete with this piece, without the empty line at their end."""
        data = self._rest + piece if self._rest else piece
        if b"\r" in data:
            # A line end cut in two waits for its other half.
            held = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n") if not held else data[:-1].replace(b"\r\n", b"\n") + b"\r"
        *events, self._rest = data.split(b"\n\n")
        return events


class AnswerStream:
    """Takes the bytes of an engine's stream and gives those for the client.

    What follows the last choice's `finish_reason` is held back in `tail`: the interaction must be logged before the
    client can take the answer for complete, and the usage chunk, which is part of the record, comes last.

    Args:
        heard: takes in what is said.
        model: the name the client knows the model by.
        usage: whether the client asked for the usage chunk.
        strip: whether white space before the answer is left out.
        logprobs: whether the client asked for log-probabilities; else they are taken out again.
        filtered: makes of each new text of a choice the text that may be sent, and of None the rest.
    """

    def __init__(
        self,
        heard: Heard,
        model: str,
        usage: bool,
        strip: bool = True,
        logprobs: bool = True,
        filtered: Callable[[int, str | None], str] | None = None,
    ) -> None:
        self.heard = heard
        self._model = model
        self._usage = usage
        self._strip = strip
        self._logprobs = logprobs
        self._filtered = filtered
        self._events = Events()
        self._tail: list[bytes] = []
        self._ended = 0
        self.done = False
        """The engine has said that the stream is at its end."""
        self.error: str | None = None
        """What the engine said went wrong in the middle of its answer."""

    @property
    def held(self) -> bool:
        """Whether every choice is at its end, so that what follows is kept back."""
        return self._ended >= self.heard.choices

    @property
    def complete(self) -> bool:
        """Whether the answer came to its end, so that an end of the stream is no truncation."""
        return self.error is None and (self.done or self.held)

    def broken(self, error: NoriaError) -> bytes:
        """The event that tells the client why the stream ends before the answer does."""
        return error_event(error)

    def tail(self, more: bytes = b"") -> bytes:
        """What was held back, then `more`, then the end mark."""
        return b"".join((*self._tail, more, DONE))

    def feed(self, piece: bytes) -> bytes:
        """Take in what the engine sent; returns what may go to the client now, whole events only."""
        out: list[bytes] = []
        for event in self._events.feed(piece):
            for passed in self._event(event):
                (self._tail if self.held else out).append(passed)
        return out[0] if len(out) == 1 else b"".join(out)

    def _event(self, event: bytes) -> Iterator[bytes]:
        if b"\n" in event or not event.startswith(b"data:"):
            data = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
            if not data:
                # Comments keep a connection awake; `error:` is how llama.cpp's server reports one.
                if event.startswith(b"error:"):
                    self.error = event[6:].decode(errors="replace").strip()
                elif event:
                    yield event + b"\n\n"
                return
            payload = b"\n".join(data)
        else:
            payload = event[5:].strip()
        if payload == b"[DONE]":
            self.done = True
            return
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            chunk = None
        if not isinstance(chunk, dict):
            self.error = "the engine sent a chunk that is not a JSON object"
            return
        yield from self._chunk(event, chunk)

    def _chunk(self, event: bytes, chunk: dict[str, Any]) -> Iterator[bytes]:
        found = chunk.get("error")
        choices = chunk.get("choices")
        if found or (choices is None and chunk.get("object") == "error"):
            found = found or chunk
            self.error = str(found.get("message", found)) if isinstance(found, dict) else str(found)
            return
        self.heard.usage(chunk)
        if not isinstance(choices, list) or not choices:
            # Only the usage is what the client may not have asked for.
            if self._usage or not chunk.get("usage"):
                yield self._named(event, chunk, False)
            return
        changed = False
        for choice in choices:
            if isinstance(choice, dict):
                rest, altered = self._choice(choice)
                changed |= altered
                if rest:
                    yield self._named(event, {**chunk, "choices": [rest]}, True)
        yield self._named(event, chunk, changed)

    def _named(self, event: bytes, chunk: dict[str, Any], changed: bool) -> bytes:
        if chunk.get("model") != self._model:
            chunk["model"] = self._model
            changed = True
        return b"data: %b\n\n" % orjson.dumps(chunk) if changed else event + b"\n\n"

    def _choice(self, choice: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
        """Note a choice's text and end. Returns a choice that must go before it, and whether it was changed."""
        changed = False
        index = choice.get("index")
        number = index if isinstance(index, int) and 0 <= index < self.heard.choices else 0
        delta = choice.get("delta")
        holder, name = (delta, "content") if isinstance(delta, dict) else (choice, "text")
        text = holder.get(name)
        if isinstance(text, str) and text:
            said = text.lstrip() if self._strip and not self.heard.begun_by(number) else text
            self.heard.text(number, said)
            if self._filtered is not None:
                said = self._filtered(number, said)
            if said != text:
                holder[name] = said
                changed = True
            if isinstance(delta, dict) and len(delta) > 1:
                self.heard.other(number, delta)
        elif isinstance(delta, dict) and delta:
            self.heard.other(number, delta)
        self.heard.around(number, choice)
        changed |= self._logprob(choice)
        reason = choice.get("finish_reason")
        if not isinstance(reason, str):
            return None, changed
        self._ended += 1
        self.heard.finish_reason = reason
        rest = self._filtered(number, None) if self._filtered is not None else ""
        if not rest:
            return None, changed
        left = {"delta": {"content": rest}} if isinstance(delta, dict) else {"text": rest}
        return {"index": number, **left, "finish_reason": None}, changed

    def _logprob(self, choice: dict[str, Any]) -> bool:
        found = choice.get("logprobs")
        if found is None:
            return False
        self.heard.logprobs(found)
        if self._logprobs:
            return False
        choice["logprobs"] = None
        return True
