"""The record of one request, filled while it is served and appended before its answer ends."""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson

from noria.errors import NoriaError, Unavailable
from noria.gateway.answers import Heard
from noria.gateway.limits import Reservation
from noria.gateway.metrics import OTHER, Metrics
from noria.gateway.routing import Live, LiveArm, Replica, position
from noria.gateway.wire import error_event
from noria.ports import Recorder
from noria.settings import RecordSettings

if TYPE_CHECKING:
    from noria.gateway.spans import Trace

GONE = 499
"""Status of an interaction whose client left before the end (nginx's number for it)."""
BATCH = "batch:"
"""What stands before the endpoint's name in the record of a batch's line."""


def pseudonym(secret: bytes, name: str) -> str:
    """Keyed hash of a user's name: HMAC-SHA-256 (RFC 2104), 16 hexadecimal characters."""
    return hmac.digest(secret, name.encode(errors="replace"), "sha256").hex()[:16]


_AHEAD = 512
"""Random parts of ids that are drawn at once."""
_APART = ("messages", "user")
"""Fields of a request that the record has elsewhere."""


class Ids:
    """Makes ids of interactions: UUID version 7 (RFC 9562), whose random parts are drawn in advance."""

    def __init__(self) -> None:
        self._tails: list[str] = []
        self._milliseconds = 0
        self._head = ""

    def make(self, seconds: float) -> str:
        """An id for a time in seconds since 1970."""
        milliseconds = int(seconds * 1000)
        if milliseconds != self._milliseconds:
            self._milliseconds = milliseconds
            time = f"{milliseconds:012x}"
            self._head = f"{time[:8]}-{time[8:]}-7"
        if not self._tails:
            drawn = os.urandom(_AHEAD * 10).hex()
            self._tails = [_tail(drawn[at : at + 20]) for at in range(0, len(drawn), 20)]
        return self._head + self._tails.pop()


def _tail(drawn: str) -> str:
    """What follows the version of an id, from 20 hexadecimal digits."""
    return f"{drawn[:3]}-{'89ab'[int(drawn[3], 16) & 3]}{drawn[4:7]}-{drawn[7:19]}"


class Turn:
    """What is known of a request so far; the record's fields are those of `noria.types.Interaction`.

    Most requests end as the defaults say, so these stand on the class and cost a request nothing.
    """

    trainable = True
    trace: str | None = None
    """The value of traceparent that stands for this request (W3C Trace Context)."""
    route = ""
    """The path that was asked."""
    span: Trace | None = None
    """Where the request is traced: its identifiers."""
    query = b""
    """What stands after the question mark."""
    model = ""
    live: Live | None = None
    """The route of `model`, where there is one."""
    arm: LiveArm | None = None
    replica: Replica | None = None
    """Where it is being worked on."""
    messages: Sequence[Any] = ()
    request: Mapping[str, Any] = MappingProxyType({})
    context: str | None = None
    sources: tuple[str, ...] = ()
    """Ids of the documents in the context."""
    status = 500
    error: str | None = "the gateway failed"
    cause = "internal"
    """Why it failed, in a word of few (`metrics.cause_of`)."""
    stream = False
    first_token_seconds: float | None = None
    findings: Sequence[str] = ()
    light: str | None = None
    support: float | None = None
    """Share of the answer that is in its sources."""
    reservation: Reservation | None = None
    tokens: tuple[int, int] = (0, 0)
    """Of prompt and answer, known when it is recorded."""
    cost: float | None = None
    """Of these tokens; None where nothing has a price."""
    serving: asyncio.Task[Any] | None = None
    deadline = float("inf")
    """When it is given up, by the same clock as `began`."""
    started = False
    """Whether the client was sent any part of an answer."""
    broken: Callable[[NoriaError], bytes] = staticmethod(error_event)
    """The event that tells the client of an error when its stream has begun."""
    gone = False
    """Whether the client has left."""
    mirrored = False
    """Whether a shadow had its chance."""
    late = False
    """Whether its deadline has passed."""
    recorded = False
    """Whether an attempt to write the record was made, after which the outcome stands."""
    logged = False
    """Whether the record is safe."""

    def __init__(self, identity: str, at: datetime, seconds: float, api: str, user: str, key: str) -> None:
        self.id = self.conversation = identity
        self.at = at
        self.seconds = seconds
        """`at`, in seconds since 1970."""
        self.api = api
        self.user = user
        self.key = key
        self.heard = Heard()
        self.began = time.perf_counter()

    def left(self) -> None:
        """Its client has left: give it up, unless it is over already."""
        if not self.recorded and not self.late and self.serving is not None:
            self.gone = True
            self.serving.cancel()

    def elapsed(self) -> float:
        """Seconds since the request came."""
        return time.perf_counter() - self.began

    def ended(self, status: int, error: str | None, cause: str = "") -> None:
        """Note how it ended; `cause` is a word of `metrics.cause_of`."""
        self.status, self.error, self.cause = status, error, cause

    @property
    def served_by(self) -> str:
        """Name of what answered, empty before an engine was asked."""
        return self.arm.arm.served_by if self.arm is not None else ""

    @property
    def engine(self) -> str:
        """Name of the engine that was asked, empty before."""
        return self.arm.arm.engine if self.arm is not None else ""

    def count(self) -> None:
        """Settle `tokens` and `cost`: as the engine counted them, else estimated from the texts."""
        heard = self.heard
        prompt, completion = heard.prompt_tokens, heard.completion_tokens
        if prompt is None:
            prompt = len(orjson.dumps(self.messages or dict(self.request))) // 4 if heard.pieces else 0
        if completion is None:
            completion = max(heard.pieces if self.stream else 0, sum(len(text) for text in heard.texts) // 4)
        self.tokens = prompt, completion
        if self.arm is not None and self.arm.arm.price != (0.0, 0.0):
            self.cost = self.arm.cost(prompt, completion)

    def line(self, seconds: float, redact: Callable[[str], str]) -> bytes:
        """The interaction as one line of JSON."""
        heard, arm = self.heard, self.arm
        messages = self.messages
        if self.status == 400:
            messages = [each for each in messages if isinstance(each, dict)]
        request = {name: value for name, value in self.request.items() if name not in _APART}
        texts: dict[str, Any] = {
            "messages": messages, "request": request, "context": self.context, "answer": heard.answer,
            "output": heard.output(),
        }  # fmt: skip
        rules = self.live.record if self.live is not None else None
        if rules is not None:
            texts = kept(texts, rules, self.id, redact)
        return orjson.dumps(
            {
                "kind": "interaction", "id": self.id, "at": self.at, "api": self.api, "task": self.model,
                "arm": arm.arm.name if arm else "", "engine": arm.arm.engine if arm else "",
                "served_by": arm.arm.served_by if arm else "", "user": self.user, "key": self.key,
                "conversation": self.conversation, **texts, "finish_reason": heard.finish_reason,
                "status": self.status, "error": self.error, "stream": self.stream, "prompt_tokens": self.tokens[0],
                "completion_tokens": self.tokens[1], "first_token_seconds": self.first_token_seconds,
                "seconds": seconds, "trainable": self.trainable, "logprob": heard.logprob, "support": self.support,
                "findings": self.findings, "sources": self.sources, "light": self.light, "cost": self.cost,
                "trace": self.trace,
            }
        )  # fmt: skip


def kept(texts: dict[str, Any], rules: RecordSettings, identity: str, redact: Callable[[str], str]) -> dict[str, Any]:
    """The texts of a record as the task's settings want them kept."""
    if rules.sample < 1.0 and position("record", identity) >= rules.sample:
        return {"messages": [], "request": {}, "context": None, "answer": "", "output": None}
    if rules.redact:
        return {name: _redacted(value, redact) for name, value in texts.items()}
    return texts


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """Every string of a JSON value redacted by itself: in JSON a line end is a letter, which hides what follows it."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: _redacted(each, redact) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(each, redact) for each in value]
    return value


class Journal:
    """Appends what was answered, and counts it. `drops` tells whether a record that the disk refuses is given up."""

    def __init__(
        self, recorder: Recorder, metrics: Metrics, redact: Callable[[str], str], drops: Callable[[], bool]
    ) -> None:
        self._recorder = recorder
        self.metrics = metrics
        self.ended: Callable[[Turn, float], None] | None = None
        """Told of every request that has ended and is being traced, with the seconds that it took."""
        self._redact = redact
        self._drops = drops

    def append(self, line: bytes) -> bool:
        """Append one line; whether it is safe. Raises Unavailable when the disk refuses it and that is no option."""
        try:
            self._recorder.append(line)
        except OSError as error:
            self.metrics.count("unlogged")
            if self._drops():
                return False
            raise Unavailable(
                f"the answer could not be logged ({error.strerror or error})", "try again later; its disk may be full"
            ) from error
        return True

    def finish(self, turn: Turn) -> None:
        """Append a request's record and count it, once; raises Unavailable."""
        if turn.recorded:
            return
        turn.recorded = True
        turn.count()
        seconds = turn.elapsed()
        safe = False
        try:
            turn.logged = self.append(turn.line(seconds, self._redact))
            safe = True
        finally:
            arm = turn.arm.arm.name if turn.arm is not None else ""
            self.metrics.finished(
                turn.model if turn.live is not None else OTHER, arm, turn.status if safe else Unavailable.status,
                seconds, turn.first_token_seconds, turn.tokens, turn.cause if safe else "unlogged",
            )  # fmt: skip
            if turn.span is not None and self.ended is not None:
                self.ended(turn, seconds)
