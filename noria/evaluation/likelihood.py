"""How probable a model finds a text that it did not write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from noria.types import Message, Ref


@runtime_checkable
class Scorer(Protocol):
    """What a running engine can do beside port `Engine` where its kind has `caps.prompt_logprobs`."""

    def logprob(self, messages: Sequence[Message], answer: str, adapter: Ref | None) -> tuple[float, int]:
        """Sum of the log-probabilities of the answer's tokens after the messages, in nats, and their number.

        The answer's end is not counted. Raises Invalid for what the engine refuses, Unavailable when it is gone.
        """
