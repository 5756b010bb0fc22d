"""Tables of scrubbing: what is done with personal data in a task's rows."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from noria.settings.base import Share, Table

PersonalKind = Literal[
    "email", "phone", "card", "iban", "ip", "ssn", "national_id", "address", "secret", "mac", "name", "place"
]
ScrubAction = Literal["replace", "pseudonym", "drop"]


class ScrubSettings(Table):
    """tasks.NAME.scrub: personal data in all that a data set's rows are made of; `documents` stay as they are.

    The validated kinds are looked for in everything; names and places where they are asked for, by a model.
    """

    action: ScrubAction = "replace"
    """`replace` by kind (`<email>`), by a `pseudonym` that is the same for the same value, or `drop` the row."""
    actions: dict[PersonalKind, ScrubAction] = Field(default_factory=dict)
    """Kinds with an action of their own."""
    leave: tuple[PersonalKind, ...] = ()
    """Kinds that are left as they are."""
    allow: tuple[str, ...] = ()
    """What is no personal data here, such as the firm's own address; case does not count."""
    mac: bool = False
    """Look for hardware addresses too."""
    names: bool = False
    places: bool = False
    sample: Share = 1.0
    """Share of the texts in which names and places are looked for."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if both := sorted(set(self.leave) & self.actions.keys()):
            raise ValueError(f"'{both[0]}' is left alone and has an action; take it out of one of them")
        asked: dict[PersonalKind, bool] = {"name": self.names, "place": self.places, "mac": self.mac}
        option = {"name": "names", "place": "places", "mac": "mac"}
        for kind in self.actions:
            if not asked.get(kind, True):
                raise ValueError(f"'{kind}' has an action, but is not looked for: {option[kind]} = true")
        return self

    @property
    def keyed(self) -> bool:
        """Whether pseudonyms are made."""
        return "pseudonym" in (self.action, *self.actions.values())
