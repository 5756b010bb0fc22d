"""From a reader's items to documents: rows are checked and get their text. Few imports: a process starts with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from noria.lake.columns import Columns, holds
from noria.lake.limited import FREE, Limits, TooMuch
from noria.lake.rows import Fault, Item, Row, Skip, broken

if TYPE_CHECKING:
    from pydantic import JsonValue

Made = tuple[str | None, str | None, str | None, int, str | None]
"""A document's text, fields as JSON, conversation (None where it is one by itself) and offset, and None; or None three
times, the offset and the reason of a fault."""

FAULTS = 100_000
"""A file with more broken rows than this, and more than good ones, is given up as a whole."""
_BATCH_ROWS, _BATCH_CHARS = 4096, 4 << 20
_JSON = json.JSONEncoder(ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Job:
    """What is the same for all files of a source; `parser` is `module:function`."""

    parser: str
    kind: str
    source: str
    map: Mapping[str, str]
    columns: Mapping[str, str] | None
    encoding: str | None
    limits: Limits
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    """What the parser is told beside the bytes, by name."""

    def line(self) -> bytes:
        """The job as a JSON line."""
        told = {name: getattr(self, name) for name in self.__slots__}
        limits = {name: getattr(self.limits, name) for name in self.limits.__slots__}
        return json.dumps({**told, "limits": limits}).encode() + b"\n"

    @classmethod
    def of(cls, line: bytes) -> Self:
        """The job that `line` holds."""
        told = json.loads(line)
        return cls(**{**told, "limits": Limits(**told["limits"])})


@dataclass(slots=True)
class Maker:
    """Makes documents of the items of one file and hands them on by the thousand."""

    job: Job
    give: Callable[[list[Made]], None]
    offset: int = 0
    """Where the row began that was taken last."""
    documents: int = 0
    quarantined: int = 0
    first: Fault | None = None
    """The first fault."""
    skipped: Counter[str] = field(default_factory=Counter)
    columns: Columns = field(default_factory=Columns)
    _rows: list[Made] = field(default_factory=list)
    _chars: int = 0
    _pending: int = 0

    def take(self, item: Item, size: float) -> None:
        """Take the next item; `size` is that of the file so far. Raises TooMuch for too many rows."""
        if isinstance(item, Skip):
            self.skipped[item.reason] += 1
            return
        self.offset = item.offset
        if isinstance(item, Row):
            item = self._checked(item)
        if isinstance(item, Fault):
            self._fault(item)
        else:
            self._document(item)
        if self._chars > FREE + self.job.limits.ratio * size:
            raise TooMuch(f"its rows take more than ratio = {self.job.limits.ratio:g} times its size")

    def flush(self) -> None:
        """Hand on what is left."""
        if self._rows:
            rows, self._rows, self._pending = self._rows, [], 0
            self.give(rows)

    def _checked(self, row: Row) -> Row | Fault:
        """The row, or why it cannot be used: too long, no text, a mapped column missing or empty, a wrong type."""
        if reason := self._unfit(row):
            return Fault(row.offset, reason)
        self.columns.add(row.fields)
        for column in self.job.map.values():
            if column not in row.fields:
                return Fault(row.offset, f"there is no column '{column}', but: {', '.join(row.fields) or 'none'}")
            if not row.fields[column].strip():
                return Fault(row.offset, f"column '{column}' is empty")
        for column, kind in (self.job.columns or {}).items():
            value = row.fields.get(column, "")
            if value.strip() and not holds(kind, value):
                return Fault(row.offset, f"column '{column}' is no {kind}: '{value[:40]}'")
        if not any(value.strip() for value in row.fields.values()):
            return Fault(row.offset, "all columns are empty")
        return row

    def _unfit(self, row: Row) -> str | None:
        chars = sum(map(len, row.fields)) + sum(map(len, row.fields.values()))
        if max(chars, len(row.text or "")) > self.job.limits.row_chars:
            return f"the row has more than row_chars = {self.job.limits.row_chars} characters"
        for text in (row.text, row.conversation, *row.fields, *row.fields.values()):
            if text and (reason := broken(text)):
                return reason
        return None

    def _document(self, row: Row) -> None:
        self.documents += 1
        key = self.job.map.get("conversation")
        # A conversation's id says nothing about the content, and would hide that two rows are the same.
        shown = ((name, value.strip()) for name, value in row.fields.items() if name != key)
        text = row.text if row.text is not None else "\n".join(f"{name}: {value}" for name, value in shown if value)
        conversation = row.fields[key].strip() if key else row.conversation
        fields = _JSON.encode(row.fields)
        self._add((text, fields, conversation or None, row.offset, None))

    def _fault(self, fault: Fault) -> None:
        self.quarantined += 1
        reason = fault.reason[:1000].encode("utf-8", "backslashreplace").decode()
        self.first = self.first or Fault(fault.offset, reason)
        self._add((None, None, None, fault.offset, reason))
        if self.quarantined > FAULTS and self.quarantined > self.documents:
            raise TooMuch(f"more than {FAULTS:,} of its rows are broken")

    def _add(self, row: Made) -> None:
        self._rows.append(row)
        chars = len(row[0] or "") + len(row[1] or "") + len(row[2] or "") + len(row[4] or "")
        self._chars += chars
        self._pending += chars
        if len(self._rows) >= _BATCH_ROWS or self._pending >= _BATCH_CHARS:
            self.flush()
