"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fault"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; `hint` says what to do where it is not `good`."""

    name: str
    good: bool
    found: str
    hint: str = ""
    grave: bool = True
    """Whether something will not work, and not only badly."""

    @property
    def level(self) -> Level:
        """In one word."""
        return "ok" if self.good else "fault" if self.grave else "warn"


def warning(name: str, found: str, hint: str) -> Check:
    """Something that works, but badly."""
    return Check(name, False, found, hint, grave=False)


def gib(size: float) -> str:
    """Bytes for people, such as `2.1 GiB`; small ones in MiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
