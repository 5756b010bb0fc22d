"""The record of one request, filled while it is served and appended before its answer ends."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from noria.errors import Unavailable
from noria.gateway.metrics import OTHER, Metrics
from noria.ports import Recorder

GONE = 499
"""Status of an interaction whose client left before the end (nginx's number for it)."""


def pseudonym(secret: bytes, name: str) -> str:
    """Keyed hash of a user's name: HMAC-SHA-256 (RFC 2104), 16 hexadecimal characters."""
    return hmac.digest(secret, name.encode(), "sha256").hex()[:16]


@dataclass(slots=True)
class Turn:
    """What is known of a request so far; the fields are those of `noria.types.Interaction`."""

    id: str
    at: datetime
    user: str
    conversation: str
    trainable: bool = True
    began: float = field(default_factory=time.perf_counter)
    task: str = ""
    known: bool = False
    """Whether `task` is one of the snapshot's."""
    served_by: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    context: str | None = None
    answer: str = ""
    finish_reason: str | None = None
    status: int = 500
    error: str | None = "the gateway failed"
    stream: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token_seconds: float | None = None
    started: bool = False
    """Whether the client was sent any part of an answer."""
    gone: bool = False
    """Whether the client has left."""
    recorded: bool = False
    """Whether an attempt to write the record was made, after which the outcome stands."""
    logged: bool = False
    """Whether the record is safe."""

    def elapsed(self) -> float:
        """Seconds since the request came."""
        return time.perf_counter() - self.began

    def ended(self, status: int, error: str | None) -> None:
        """Note how it ended."""
        self.status, self.error = status, error

    def line(self, seconds: float) -> bytes:
        """The interaction as one line of JSON."""
        return orjson.dumps(
            {
                "kind": "interaction", "id": self.id, "at": self.at, "task": self.task, "served_by": self.served_by,
                "user": self.user, "conversation": self.conversation, "messages": self.messages,
                "context": self.context, "answer": self.answer,
                "finish_reason": self.finish_reason, "status": self.status, "error": self.error,
                "stream": self.stream, "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens, "first_token_seconds": self.first_token_seconds,
                "seconds": seconds, "trainable": self.trainable,
            }
        )  # fmt: skip


class Journal:
    """Appends what was answered, and counts it."""

    def __init__(self, recorder: Recorder, metrics: Metrics) -> None:
        self._recorder = recorder
        self._metrics = metrics

    def append(self, line: bytes) -> None:
        """Append one line; raises Unavailable when the disk refuses it: nothing is answered unlogged."""
        try:
            self._recorder.append(line)
        except OSError as error:
            self._metrics.unlogged.inc()
            raise Unavailable(
                f"the answer could not be logged ({error.strerror or error})", "try again later; its disk may be full"
            ) from error

    def finish(self, turn: Turn) -> None:
        """Append a request's record and count it, once; raises Unavailable."""
        if turn.recorded:
            return
        turn.recorded = True
        seconds = turn.elapsed()
        try:
            self.append(turn.line(seconds))
            turn.logged = True
        finally:
            self._metrics.finished(
                turn.task if turn.known else OTHER, turn.status if turn.logged else Unavailable.status, seconds,
                turn.first_token_seconds, turn.prompt_tokens, turn.completion_tokens,
            )  # fmt: skip
