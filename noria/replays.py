"""What came of making a run again: the same bytes, or how far the two lie apart. It stands in the ledger."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from noria.ports import Platform
from noria.types import Bound, Record, Ref

KEY = "replay"
"""Where it stands in the `meta` of an adapter's artifact."""


class Replay(Record):
    """One run made again in another folder and another process. What could not be compared is None.

    `weights` is the largest difference of any weight, `relative` the norm of all differences as a share of the norm of
    all weights, `loss` the largest difference of any step's loss (nats per token), `agreement` the share of probes on
    which both find the same next token, `logprob` the largest difference of those tokens' log-probabilities (nats).
    """

    same: bool
    at: datetime
    machine: str
    """Where it was made again."""
    made_on: str = ""
    """Where it was made; empty where that was not recorded."""
    files: tuple[str, ...] = ()
    """Those that differ."""
    weights: Bound | None = None
    relative: Bound | None = None
    loss: float | None = None
    agreement: float | None = None
    logprob: float | None = None

    @property
    def same_machine(self) -> bool:
        """Whether both were made on the same kind of processor, with as many cores."""
        return self.machine == self.made_on

    def words(self) -> str:
        """In one line."""
        if self.same:
            return "made again, the same digest"
        told = [
            form.format(value)
            for form, value in (
                ("weights differ by up to {:.3g}", self.weights),
                ("losses by up to {:.3g}", self.loss),
                ("next tokens agree on {:.1%} of the probes", self.agreement),
            )
            if value is not None
        ]
        return f"made again, {', '.join(told) or 'another digest'}"


def of(platform: Platform, adapter: Ref | None) -> Replay | None:
    """The latest replay of an adapter; None where there was none."""
    made = platform.runs.artifact(adapter) if adapter is not None else None
    return read(made.meta.get(KEY)) if made is not None else None


def read(told: object) -> Replay | None:
    """A replay as the ledger keeps it; None for what is none."""
    try:
        return Replay.model_validate(told) if told else None
    except ValidationError:
        return None


def told(platform: Platform, adapter: Ref | None) -> str:
    """The latest replay of an adapter in one line; empty where there was none."""
    found = of(platform, adapter)
    return found.words() if found is not None else ""
