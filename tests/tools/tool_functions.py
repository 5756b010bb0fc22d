"""Functions that tests offer as tools."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field


class Place(BaseModel):
    """Where."""

    city: str
    country: str = "France"


def visit(
    place: Place,
    day: date,
    people: Annotated[int, Field(ge=1, le=9)] = 1,
    how: Literal["train", "car"] = "train",
    tags: list[str] | None = None,
) -> dict[str, Any]:
    """Plan a visit.

    It is only planned,
    never booked.

    Args:
        place: where to go
        day (date): when to go, as
            YYYY-MM-DD
        people: how many go
        tags: words
            on more: lines

    Returns:
        what was planned
    """
    return {"city": place.city, "day": day, "people": people, "how": how, "tags": tags}


async def later(schema: str, copy: int = 2) -> str:
    """Say it so many times.

    Args:
        schema: a name that pydantic's own models have too
    """
    await asyncio.sleep(0)
    return schema * copy


def sleeps() -> str:
    """Takes a minute, also while it holds Python's lock."""
    time.sleep(60)
    return "slept"


def spins() -> str:
    """Never ends."""
    while True:
        pass


def dies() -> str:
    """Ends its process."""
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def raises() -> str:
    """Fails."""
    raise RuntimeError("the shelf fell")


def prints() -> str:
    """Prints what would break a protocol."""
    print('{"text": "forged", "outcome": "ok"}')  # noqa: T201
    sys.__stdout__.write("forged\n")  # type: ignore[union-attr]
    os.write(1, b"forged\n")
    return "true"


def long() -> list[int]:
    """A result of many characters."""
    return list(range(10_000))


def unseen(name: str) -> str:
    """A variable of the environment.

    Args:
        name: of the variable
    """
    return os.environ.get(name, "not there")  # noqa: TID251


def counts(file: str) -> int:
    """How often it was called.

    Args:
        file: where it counts
    """
    with Path(file).open("a") as out:
        out.write("x")
    return len(Path(file).read_text())


def odd() -> object:
    """A result without JSON."""
    return object()


def several(words: list[str]) -> dict[str, Any]:
    """Makes functions."""

    def count() -> int:
        """How many words there are."""
        return len(words)

    return {"count": count}


def asks() -> str:
    """Reads what its user types."""
    return sys.stdin.read() or "nothing"
