"""Tables of sources: where raw data comes from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from noria.settings.base import Name, Table


class SourceSettings(Table):
    """[[sources]]: where raw data comes from."""

    name: Name
    kind: Literal["csv", "json", "jsonl", "yaml", "html", "sql", "text"]
    path: str | None = None
    url: str | None = None
    query: str | None = None
    map: dict[Literal["question", "answer", "conversation", "user", "at"], str] = Field(default_factory=dict)
    """Which columns are what; `user` and `at` (a time in ISO 8601) are for the split."""
    pairs: bool = False
    """Sections whose heading is a question become examples, for pages without a map."""
    slice: Name = "task"
    """Rows of another slice than `task` are guarded: a candidate may not lose there."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many examples, chosen by content."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "sql" and not (self.url and self.query):
            raise ValueError("a source of kind sql needs url and query")
        if self.kind != "sql" and not self.path:
            raise ValueError(f"a source of kind {self.kind} needs path")
        if self.map and not {"question", "answer"} <= self.map.keys():
            raise ValueError("map needs question and answer")
        if self.map and self.pairs:
            raise ValueError("map and pairs exclude each other: pairs is for pages without columns")
        return self
