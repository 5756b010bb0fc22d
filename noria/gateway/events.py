"""A streamed answer on its way through: read for the log, changed as little as possible, its tail held back.

Server-sent events as in the WHATWG HTML standard, section 9.2, with OpenAI's chunks as data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from noria.errors import NoriaError
from noria.gateway.answers import CHOICE, DOCUMENT, SAID, Filter, Heard, screen
from noria.gateway.guard import Refused
from noria.gateway.wire import error_event

_TEXT = {"content"}
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


class Frame:
    """What the chunks of a stream have in common where they differ in their text only.

    To read and write JSON anew for every token costs more than everything else that is done for it. A text without
    quotation marks and backslashes cannot change what the bytes around it mean.
    """

    __slots__ = ("_back", "_before", "_behind", "_sent_before", "_sent_behind", "_start")

    def __init__(self, event: bytes, sent: bytes, said: bytes, opening: bytes) -> None:
        """`said` is the field with its text, once in the event and in what was sent; `opening` is how it begins."""
        before, _, behind = event.partition(said)
        sent_before, _, sent_behind = sent.partition(said)
        self._before, self._behind = before + opening, b'"' + behind
        self._sent_before, self._sent_behind = sent_before + opening, b'"' + sent_behind
        self._start, self._back = len(self._before), -len(self._behind)

    @classmethod
    def of(cls, event: bytes, sent: bytes, text: str) -> Frame | None:
        """The frame of a chunk as it came and as it was sent; None where its text cannot be told from the rest."""
        for opening in (b'"content":"', b'"content": "'):
            said = opening + orjson.dumps(text)[1:]
            if event.count(said) == 1 == sent.count(said):
                return cls(event, sent, said, opening)
        return None

    def fill(self, event: bytes, heard: Heard) -> bytes | None:
        """What is sent for a chunk of this frame, whose text is noted; None for any other chunk."""
        if not (event.startswith(self._before) and event.endswith(self._behind)):
            return None
        raw = event[self._start : self._back]
        if b'"' in raw or b"\\" in raw or b"\n" in raw or not raw:
            return None
        try:
            heard.text(0, raw.decode())
        except UnicodeDecodeError:
            return None
        return self._sent_before + raw + self._sent_behind


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
        filtered: makes of more of a text the text that may be sent, and of None the rest; texts have names.
    """

    def __init__(
        self,
        heard: Heard,
        model: str,
        usage: bool,
        strip: bool = True,
        logprobs: bool = True,
        filtered: Filter | None = None,
    ) -> None:
        self.heard = heard
        self._model = model
        self._usage = usage
        self._strip = strip
        self._logprobs = logprobs
        self._filtered = filtered
        self._quick = filtered is None and heard.choices == 1
        """Whether a chunk can be understood at a glance."""
        self._common: Frame | None = None
        self._events = Events()
        self._tail: list[bytes] = []
        self._ended = 0
        self.done = False
        """The engine has said that the stream is at its end."""
        self.error: str | None = None
        """What the engine said went wrong in the middle of its answer."""
        self.refused: Refused | None = None
        """Why a guard lets nothing more of the answer pass."""
        self._last: Mapping[str, Any] = {}
        self._names: dict[int, list[str]] = {}

    @property
    def held(self) -> bool:
        """Whether every choice is at its end, so that what follows is kept back."""
        return self._ended >= self.heard.choices

    @property
    def complete(self) -> bool:
        """Whether the answer came to its end, so that an end of the stream is no truncation."""
        return self.error is None and (self.done or self.held)

    @property
    def over(self) -> bool:
        """Whether nothing more of it matters."""
        return self.done or self.error is not None or self.refused is not None

    def broken(self, error: NoriaError) -> bytes:
        """The event that tells the client why the stream ends before the answer does."""
        return error_event(error)

    def tail(self, noria: Mapping[str, Any] | None = None) -> bytes:
        """What was held back, then the end mark; `noria` becomes a field of the chunk with the finish reason."""
        if noria is not None:
            self._tail = self._noted(noria)
        return b"".join((*self._tail, DONE))

    def cut_off(self) -> bytes:
        """The chunk that ends every choice that is open where a guard lets nothing more pass."""
        chat = "completion.chunk" in str(self._last.get("object", "chat.completion.chunk"))
        left: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
        choices = [{"index": each, **left, "finish_reason": "content_filter"} for each in range(self.heard.choices)]
        return self._named(b"", self._own(choices), True)

    def _noted(self, noria: Mapping[str, Any]) -> list[bytes]:
        tail = list(self._tail)
        for place in range(len(tail) - 1, -1, -1):
            if b'"choices":[{' in tail[place].replace(b" ", b""):
                chunk = orjson.loads(tail[place][5:])
                tail[place] = b"data: %b\n\n" % orjson.dumps({**chunk, "noria": noria})
                return tail
        return [*tail, self._named(b"", {**self._own([]), "noria": noria}, True)]

    def _own(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """A chunk of our own that looks like the engine's last one."""
        return {
            **{name: self._last[name] for name in ("id", "object", "created") if name in self._last},
            "choices": choices,
        }

    def feed(self, piece: bytes) -> bytes:
        """Take in what the engine sent; returns what may go to the client now, whole events only."""
        out: list[bytes] = []
        for event in self._events.feed(piece):
            if self._quick and not self._ended:
                usual = self._common.fill(event, self.heard) if self._common is not None else None
                if usual is None:
                    usual = self._usual(event)
                if usual is not None:
                    out.append(usual)
                    continue
            for passed in self._event(event):
                (self._tail if self.held or self.done else out).append(passed)
            if self.refused is not None:
                break
        return out[0] if len(out) == 1 else b"".join(out)

    def _usual(self, event: bytes) -> bytes | None:
        """A chunk that brings more text of the only answer and nothing else, as nearly all do; None for any other."""
        if event[:6] != b"data: " or b"\n" in event:
            return None
        try:
            chunk = orjson.loads(event[6:])
            (choice,) = chunk["choices"]
            text = choice["delta"]["content"]
            alone = choice["index"] == 0 and choice["delta"].keys() == _TEXT
        except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError):
            return None
        if not (
            alone
            and type(text) is str
            and text
            and choice.get("finish_reason") is None
            and choice.get("logprobs") is None
            and chunk.get("usage") is None
            and chunk.keys() <= DOCUMENT
            and choice.keys() <= CHOICE
            and (not self._strip or self.heard.begun_by(0))
        ):
            return None
        self.heard.text(0, text)
        self._last = chunk
        name = chunk.get("model")
        former = b'"model":%b' % orjson.dumps(name)
        if name == self._model:
            sent = event + b"\n\n"
        elif event.count(former) == 1:
            sent = event.replace(former, b'"model":%b' % orjson.dumps(self._model)) + b"\n\n"
        else:
            sent = self._named(event, chunk, True)
        self._common = Frame.of(event, sent, text)
        return sent

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
            for number in list(self._names):
                # An engine that gives no finish reason.
                if rest := self._rest(number, "delta" in str(self._last)):
                    yield self._named(b"", self._own([rest]), True)
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
        self._last = chunk
        changed = False
        for choice in choices:
            if isinstance(choice, dict):
                rest, altered = self._choice(choice)
                changed |= altered
                if rest:
                    yield self._named(b"", self._own([rest]), True)
        if not (changed and self._filtered is not None and _says_nothing(chunk)):
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
            sent = said if self._filtered is None else self._through(number, "", said)
            self.heard.text(number, said, sent)
            if sent != text:
                holder[name] = sent
                changed = True
        if isinstance(delta, dict) and len(delta) > (1 if text else 0):
            if self._filtered is not None:
                changed |= screen(delta, lambda key, value: self._through(number, f".{key}", value))
            self.heard.other(number, delta)
        self.heard.around(number, choice)
        changed |= self._logprob(choice)
        reason = choice.get("finish_reason")
        if not isinstance(reason, str):
            return None, changed
        rest = self._rest(number, isinstance(delta, dict)) if self._filtered is not None else None
        if self.refused is not None:
            choice["finish_reason"] = None
            return rest, True
        self._ended += 1
        self.heard.finish_reason = reason
        return rest, changed

    def _through(self, number: int, name: str, text: str | None) -> str:
        """A text's next piece, or its end, as it may be sent; nothing once a guard has refused."""
        if self.refused is not None or self._filtered is None:
            return ""
        known = self._names.setdefault(number, [])
        if name not in known:
            known.append(name)
        try:
            return self._filtered(f"{number}{name}", text)
        except Refused as refused:
            self.refused = refused
            return refused.passed

    def _rest(self, number: int, chat: bool) -> dict[str, Any] | None:
        """A choice with what is left of its texts at its end."""
        message: dict[str, Any] = {}
        for name in self._names.pop(number, []):
            rest = self._through(number, name, None)
            if not rest:
                continue
            if not name:
                message["content" if chat else "text"] = rest
                self.heard.rest(number, rest)
            elif name[1:] in SAID:
                message[name[1:]] = rest
            else:
                call = {"index": int(name.rpartition(".")[2]), "function": {"arguments": rest}}
                message.setdefault("tool_calls", []).append(call)
        self._names.pop(number, None)
        if not message:
            return None
        self.heard.other(number, message)
        return {"index": number, **({"delta": message} if chat else message), "finish_reason": None}

    def _logprob(self, choice: dict[str, Any]) -> bool:
        found = choice.get("logprobs")
        if found is None:
            return False
        self.heard.logprobs(found)
        if self._logprobs:
            return False
        choice["logprobs"] = None
        return True


def _says_nothing(chunk: Mapping[str, Any]) -> bool:
    """Whether all that a chunk brought is held back."""
    return chunk.get("usage") is None and all(
        isinstance(choice, dict)
        and choice.get("finish_reason") is None
        and choice.get("logprobs") is None
        and choice.get("delta", {"content": choice.get("text")}) == {"content": ""}
        for choice in chunk["choices"]
    )
