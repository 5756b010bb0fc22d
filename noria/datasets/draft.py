"""An example on its way into a dataset: with what the split needs to know of it and nobody keeps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from noria.types import Example

SYNTHETIC = "synthetic:"
"""How the origin of rows begins whose question a model has made up."""


@dataclass(frozen=True, slots=True)
class Draft:
    """`user` is whose row it is, as a pseudonym; `giver` who said what it teaches; both empty where nobody is known."""

    example: Example
    user: str = ""
    giver: str = ""
    at: datetime | None = None

    @property
    def synthetic(self) -> bool:
        """Whether its question is made up: it may be learned from and never be tested on."""
        return self.example.origin.startswith(SYNTHETIC)

    @property
    def text(self) -> str:
        """The question with its history."""
        return "\n".join(message.content for message in self.example.messages)

    @property
    def whole(self) -> str:
        """All that can be learned from it."""
        return f"{self.text}\n{self.example.target}"
