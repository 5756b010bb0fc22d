"""Tables of sources: where raw data comes from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from noria.settings.base import LICENCE, Name, Share, Table

ColumnType = Literal["text", "integer", "number", "boolean", "date"]
"""What a column's values may be: any text, a whole number, any number, true or false, an ISO 8601 date or time."""


Kind = Literal[
    "chat", "csv", "docx", "html", "huggingface", "json", "jsonl", "markdown", "mbox", "parquet", "pdf", "sql", "text",
    "tsv", "xml", "yaml",
]  # fmt: skip
"""What reads a source: see design/lake.md."""


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


class CrawlSettings(Table):
    """crawl of a source: how to go through the site at its url, below the path of the url."""

    rate: float = Field(default=1.0, gt=0.0, le=100.0)
    """Requests a second at most; a crawl-delay in robots.txt counts where it asks for fewer."""
    pages: int = Field(default=1000, ge=1)
    """Most pages that are asked for in one crawl."""
    page_mb: float = Field(default=10.0, gt=0.0)
    """Largest page, in megabytes; larger ones are left out."""
    total_mb: float = Field(default=500.0, gt=0.0)
    """A crawl ends once it has read this much, in megabytes."""
    timeout_s: float = Field(default=30.0, gt=0.0)
    """Seconds for one page, from the request to its last byte."""


class SourceSettings(Table):
    """[[sources]]: where raw data comes from."""

    name: Name
    kind: Kind
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
    crawl: CrawlSettings = Field(default_factory=CrawlSettings)
    record: str | None = Field(default=None, min_length=1)
    """Element of an XML file that is a row; without it the repeated one."""
    main: bool = False
    """Whether to keep the main text of web pages only, as trafilatura finds it."""
    assistants: tuple[str, ...] = ()
    """Who answers in chats and e-mail, by name, id or address; without it everybody but who began."""
    map: dict[Literal["question", "answer", "conversation", "user", "at"], str] = Field(default_factory=dict)
    """Which columns are what; `user` and `at` (a time in ISO 8601) are for the split."""
    pairs: bool = False
    """Sections whose heading is a question become examples, for pages without a map."""
    slice: Name = "task"
    """Rows of another slice than `task` are guarded: a candidate may not lose there."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many examples, chosen by content."""
    limits: FileLimits = FileLimits()
    faulty: Share | None = None
    """Share of broken rows, or of broken files, above which the cycle stops; the task's without it."""
    licence: str | None = Field(default=None, pattern=LICENCE)
    """What the data may be used for, as the hub's identifier, such as cc-by-4.0; it stands on the data set's card."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "sql" and not (self.url and self.query):
            raise ValueError("a source of kind sql needs url and query")
        if self.kind == "html" and bool(self.path) == bool(self.url):
            raise ValueError("a source of kind html needs path or url, and not both")
        if self.kind == "html" and self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("the url of a site begins with http:// or https://")
        if self.kind not in ("sql", "html") and not self.path:
            raise ValueError(f"a source of kind {self.kind} needs path")
        if self.watermark and self.kind != "sql":
            raise ValueError("a watermark is a column of a query: only a source of kind sql has one")
        self._options()
        if self.map and not {"question", "answer"} <= self.map.keys():
            raise ValueError("map needs question and answer")
        if self.columns is not None and (missing := set(self.map.values()) - self.columns.keys()):
            raise ValueError(f"columns lacks '{min(missing)}', which map needs")
        if self.encoding is not None:
            try:
                "a".encode(self.encoding)
            except LookupError:
                raise ValueError(f"there is no encoding '{self.encoding}'") from None
        if self.map and self.pairs:
            raise ValueError("map and pairs exclude each other: pairs is for pages without columns")
        return self

    def _options(self) -> None:
        """Refuse an option that says nothing for this kind."""
        kinds = {
            "record": ("xml",), "main": ("html",), "crawl": ("html",), "assistants": ("chat", "mbox"),
            "query": ("sql",), "url": ("sql", "html"), "pairs": ("html", "markdown", "docx", "pdf"),
        }  # fmt: skip
        for name, served in kinds.items():
            if name in self.model_fields_set and self.kind not in served:
                raise ValueError(f"{name} is for kind {' and '.join(served)}, not {self.kind}")
        for name in ("path", "encoding"):
            if self.kind == "sql" and name in self.model_fields_set:
                raise ValueError(f"{name} is for files: a source of kind sql has url and query")
        if self.storage and "://" not in (self.path or ""):
            raise ValueError("storage is for a path in an object store, such as s3://bucket/*.csv")
        if "crawl" in self.model_fields_set and not self.url:
            raise ValueError("crawl is for a site: it needs url instead of path")
