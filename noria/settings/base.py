"""What every table of noria.toml is, and forms that several of them use."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

NAME, ADDRESS, URL = r"^[a-z0-9][a-z0-9_-]{0,62}$", r"^[^:\s]+:\d{1,5}$", r"^https?://\S+$"
DEVICE = r"^(auto|(cpu|cuda)(:[1-9]\d?)?)$"
SIZE = r"^\d+(\.\d+)?(KiB|MiB|GiB|TiB|kB|MB|GB|TB)$"
LICENCE = r"^[a-z0-9][a-z0-9.+-]{0,62}$"
FORMS = {
    LICENCE: "use the hub's identifier, such as apache-2.0, cc-by-4.0 or other",
    DEVICE: "auto, cpu, cuda, or how many train together, such as cuda:4",
    SIZE: 'give a number and a unit, such as "2GiB" or "500MB"',
    NAME: "use a-z, 0-9, - and _, 63 at most",
    ADDRESS: "give host:port",
    URL: "give http://HOST:PORT",
}
"""By pattern: what to type instead."""

Name = Annotated[str, Field(pattern=NAME)]
Address = Annotated[str, Field(pattern=ADDRESS)]
Url = Annotated[str, Field(pattern=URL)]
Size = Annotated[str, Field(pattern=SIZE)]
"""Bytes as people write them, such as 2GiB."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Table(BaseModel):
    """A table of noria.toml: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def bytes_of(size: str) -> int:
    """The bytes that a `Size` says; units of IEC 80000-13 (GiB, powers of 1024) and of the SI (GB, of 1000)."""
    number = size.rstrip("KMGTiBk")
    unit = size[len(number) :]
    power = "kMGT".index(unit[0].replace("K", "k")) + 1
    return int(float(number) * (1024 if "i" in unit else 1000) ** power)


def known(word: str, words: Sequence[str] | dict[str, Any] | set[str]) -> str:
    """A hint that names the nearest known word, or all of them."""
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(sorted(words)) or 'none'}"
