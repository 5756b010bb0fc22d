"""Columns of a source: what is in its files, what its settings need, and the error that shows both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

MOST = 1000
"""Columns of one file that are remembered."""

_INTEGER = re.compile(r"[-+]?(?:0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NARROW = ("boolean", "integer", "number", "date")
"""Types from narrow to wide, but for text, which holds everything."""


class Columns:
    """Names and types of the columns that the rows of a file have, in the order in which they came."""

    def __init__(self) -> None:
        self.types: dict[str, str] = {}

    def add(self, fields: Mapping[str, str]) -> None:
        """Take one row into account; an empty value says nothing of its column's type."""
        for name, value in fields.items():
            known = self.types.get(name)
            if known == "text" or (known is None and len(self.types) >= MOST):
                continue
            seen = type_of(value)
            self.types[name] = seen if known in (None, "empty") else wider(known or seen, seen)


def type_of(value: str) -> str:
    """The narrowest type of a value: empty, boolean, integer, number, date or text."""
    value = value.strip()
    if not value:
        return "empty"
    return next((kind for kind in _NARROW if holds(kind, value)), "text")


def holds(kind: str, value: str) -> bool:
    """Whether a value that is not empty is of the type. `007` is a text: as a number it would lose its zeros."""
    value = value.strip()
    if kind == "boolean":
        return value in ("true", "false")
    if kind == "integer":
        return _INTEGER.fullmatch(value) is not None
    if kind == "number":
        leading = value.lstrip("+-")
        zeros = len(leading) > 1 and leading[0] == "0" and leading[1].isdigit()
        return not zeros and _NUMBER.fullmatch(value) is not None
    if kind == "date":
        if not _DATE.match(value):
            return False
        try:
            datetime.fromisoformat(value)
        except ValueError:
            return False
    return True


def wider(one: str, other: str) -> str:
    """The narrowest type that holds the values of both."""
    kinds = {one, other} - {"empty"}
    if len(kinds) <= 1:
        return kinds.pop() if kinds else "empty"
    return "number" if kinds == {"integer", "number"} else "text"


def union(all_of_them: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """The columns of both, with types that hold the values of both."""
    mixed = dict(all_of_them)
    for name, kind in more.items():
        mixed[name] = wider(mixed.get(name, "empty"), kind)
    return mixed


def shown(columns: Mapping[str, str]) -> str:
    """Columns for an error: `id (integer), question (text)`."""
    return ", ".join(f"{name} ({kind})" for name, kind in columns.items()) or "none"
