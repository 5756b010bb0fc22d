"""Tables of sources: where raw data comes from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from noria.settings.base import Name, Share, Table

ColumnType = Literal["text", "integer", "number", "boolean", "date"]
"""What a column's values may be: any text, a whole number, any number, true or false, an ISO 8601 date or time."""


class FileLimits(Table):
    """sources.limits: what one file may cost; one that costs more goes to the quarantine, and the others are read."""

    file_mb: float = Field(default=1024, gt=0)
    """Size of a file in MiB, and again of what it unpacks to."""
    row_chars: int = Field(default=1_000_000, ge=1)
    """Characters of one row, its columns together."""
    seconds: float = Field(default=60, gt=0)
    """Time for a file, and as much again for every 16 MiB of it."""
    memory_mb: int = Field(default=2048, ge=64)
    """Memory of the process that reads it, in MiB."""
    ratio: float = Field(default=200, ge=1)
    """How many times its size a file may unpack to, and its rows may take; the first 16 MiB are free."""


class SourceSettings(Table):
    """[[sources]]: where raw data comes from."""

    name: Name
    kind: Literal["csv", "json", "jsonl", "yaml", "html", "sql", "text"]
    path: str | None = None
    """A file or a pattern, from the project's folder or with `s3://`, `abfs://` or another of fsspec's protocols."""
    storage: dict[str, str | int | bool] = Field(default_factory=dict)
    """What fsspec is told of an object store, such as `endpoint_url`; secrets belong into the environment."""
    url: str | None = None
    query: str | None = None
    watermark: str | None = None
    """A column of the query that only grows, such as the time of the last change: only newer rows are fetched."""
    encoding: str | None = None
    """Of its files; found out without it."""
    columns: dict[str, ColumnType] | None = None
    """The columns that its rows have, no more and no less."""
    map: dict[Literal["question", "answer", "conversation"], str] = Field(default_factory=dict)
    slice: Name = "task"
    """Rows of another slice than `task` are guarded: a candidate may not lose there."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many examples, chosen by content."""
    limits: FileLimits = FileLimits()
    faulty: Share | None = None
    """Share of broken rows, or of broken files, above which the cycle stops; the task's without it."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "sql" and not (self.url and self.query):
            raise ValueError("a source of kind sql needs url and query")
        if self.kind != "sql" and not self.path:
            raise ValueError(f"a source of kind {self.kind} needs path")
        if self.watermark and self.kind != "sql":
            raise ValueError("a watermark is a column of a query: only a source of kind sql has one")
        if self.map and not {"question", "answer"} <= self.map.keys():
            raise ValueError("map needs question and answer")
        if self.columns is not None and (missing := set(self.map.values()) - self.columns.keys()):
            raise ValueError(f"columns lacks '{min(missing)}', which map needs")
        if self.encoding is not None:
            try:
                "a".encode(self.encoding)
            except LookupError:
                raise ValueError(f"there is no encoding '{self.encoding}'") from None
        return self
