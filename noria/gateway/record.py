"""The record of one request, filled while it is served and appended before its answer ends."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from noria.errors import Unavailable
from noria.gateway.answers import Heard
from noria.gateway.limits import Reservation
from noria.gateway.metrics import OTHER, Metrics
from noria.gateway.routing import Live, LiveArm, Replica, position
from noria.ports import Recorder

if TYPE_CHECKING:
    from noria.gateway.spans import Trace

GONE = 499
"""Status of an interaction whose client left before the end (nginx's number for it)."""


def pseudonym(secret: bytes, name: str) -> str:
    """Keyed hash of a user's name: HMAC-SHA-256 (RFC 2104), 16 hexadecimal characters."""
    return hmac.digest(secret, name.encode(errors="replace"), "sha256").hex()[:16]


@dataclass(slots=True, eq=False)
class Turn:
    """What is known of a request so far; the record's fields are those of `noria.types.Interaction`."""

    id: str
    at: datetime
    api: str
    user: str
    key: str
    conversation: str
    trainable: bool = True
    trace: str | None = None
    """The value of traceparent that stands for this request (W3C Trace Context)."""
    route: str = ""
    """The path that was asked."""
    span: Trace | None = None
    """Where the request is traced: its identifiers."""
    began: float = field(default_factory=time.perf_counter)
    model: str = ""
    live: Live | None = None
    """The route of `model`, where there is one."""
    arm: LiveArm | None = None
    replica: Replica | None = None
    """Where it is being worked on."""
    messages: Sequence[Mapping[str, Any]] = ()
    request: dict[str, Any] = field(default_factory=dict)
    context: str | None = None
    heard: Heard = field(default_factory=Heard)
    status: int = 500
    error: str | None = "the gateway failed"
    cause: str = "internal"
    """Why it failed, in a word of few (`metrics.cause_of`)."""
    stream: bool = False
    first_token_seconds: float | None = None
    findings: list[str] = field(default_factory=list)
    light: str | None = None
    reservation: Reservation | None = None
    serving: asyncio.Task[Any] | None = None
    watcher: asyncio.Task[Any] | None = None
    deadline: float = float("inf")
    """When it is given up, by the same clock as `began`."""
    started: bool = False
    """Whether the client was sent any part of an answer."""
    gone: bool = False
    """Whether the client has left."""
    mirrored: bool = False
    """Whether a shadow had its chance."""
    late: bool = False
    """Whether its deadline has passed."""
    recorded: bool = False
    """Whether an attempt to write the record was made, after which the outcome stands."""
    logged: bool = False
    """Whether the record is safe."""

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
    def tokens(self) -> tuple[int, int]:
        """Prompt and completion tokens as the engine counted them, else estimated from the texts."""
        heard = self.heard
        prompt, completion = heard.prompt_tokens, heard.completion_tokens
        if prompt is None:
            prompt = len(orjson.dumps(self.messages or self.request)) // 4 if heard.begun else 0
        if completion is None:
            completion = max(heard.pieces if self.stream else 0, sum(len(text) for text in heard.texts) // 4)
        return prompt, completion

    def cost(self) -> float | None:
        """What its tokens cost; None where nothing has a price."""
        if self.arm is None or self.arm.arm.price == (0.0, 0.0):
            return None
        return self.arm.cost(*self.tokens)

    def line(self, seconds: float, redact: Callable[[str], str]) -> bytes:
        """The interaction as one line of JSON."""
        heard, arm = self.heard, self.arm
        prompt, completion = self.tokens
        texts: dict[str, Any] = {
            "messages": self.messages, "request": self.request, "context": self.context, "answer": heard.answer,
            "output": heard.output(),
        }  # fmt: skip
        rules = self.live.task.record if self.live is not None and self.live.task is not None else None
        if rules is not None and rules.sample < 1.0 and position("record", self.id) >= rules.sample:
            texts = {"messages": [], "request": {}, "context": None, "answer": "", "output": None}
        elif rules is not None and rules.redact:
            texts = orjson.loads(redact(orjson.dumps(texts).decode()))
        return orjson.dumps(
            {
                "kind": "interaction", "id": self.id, "at": self.at, "api": self.api, "task": self.model,
                "arm": arm.arm.name if arm else "", "engine": arm.arm.engine if arm else "",
                "served_by": self.served_by, "user": self.user, "key": self.key, "conversation": self.conversation,
                **texts, "finish_reason": heard.finish_reason, "status": self.status, "error": self.error,
                "stream": self.stream, "prompt_tokens": prompt, "completion_tokens": completion,
                "first_token_seconds": self.first_token_seconds, "seconds": seconds, "trainable": self.trainable,
                "logprob": heard.logprob, "findings": self.findings, "light": self.light, "cost": self.cost(),
                "trace": self.trace,
            }
        )  # fmt: skip


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
