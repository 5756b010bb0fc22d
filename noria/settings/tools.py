"""Tables of tools: what a model may call, and how far a conversation with them may go."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from noria.settings.base import Table, Url

Target = Annotated[str, Field(pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*|[a-z][a-z0-9_]*)$")]
"""`package.module:function`, or the name of an entry point of the group `noria.tools`."""
Pattern = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*(\.[A-Za-z0-9_*?-]+)?$|^\*$")]
"""The name of a tool; of a source with several `SOURCE.TOOL`, where * and ? stand for any letters."""


class McpSettings(Table):
    """tools.NAME.mcp: a server of the Model Context Protocol, launched by `command` or answering at `url`."""

    command: tuple[str, ...] = ()
    url: Url | None = None
    key: str | None = None
    """Name of the environment variable that holds the bearer token of the server at `url`."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.command) == (self.url is not None):
            raise ValueError("give either command (noria launches the server) or url (it already runs)")
        if self.key is not None and self.url is None:
            raise ValueError("key is for a server at a url; a command gets its secrets by variables = […]")
        return self


class DataTableSettings(Table):
    """tools.NAME.tables.TABLE: one table that may be described and queried."""

    path: str | None = None
    """A file: .csv, .tsv or .parquet."""
    url: str | None = None
    """A database, such as sqlite:///shop.db; `query` says what of it."""
    query: str | None = None
    about: str = ""
    """What the table holds, in a sentence or two."""
    columns: str | None = None
    """A CSV file of meanings: its columns are `column` and `meaning`."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("give either path (a file) or url and query (a database)")
        if (self.url is None) != (self.query is None):
            raise ValueError("url and query belong together")
        return self


class ToolSettings(Table):
    """[tools.NAME]: a Python function, the tools of an MCP server, or questions to tables."""

    python: Target | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Given to what `python` names, which then makes the function or several of them."""
    mcp: McpSettings | None = None
    tables: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")], DataTableSettings] = Field(
        default_factory=dict
    )
    variables: tuple[str, ...] = ()
    """Variables of the environment that it may see, beside those that every program needs."""
    seconds: float = Field(default=10.0, gt=0.0, le=3600.0)
    """Longest time of a call; what takes longer is stopped."""
    result_chars: int = Field(default=4000, ge=20, le=1_000_000)
    """Longest result that the model is given; the rest is cut."""
    rows: int = Field(default=50, ge=1, le=10_000)
    """Of tables: most rows of a query's result."""
    memory_mb: int = Field(default=512, ge=64)
    """Of tables: memory that they and a query may take."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum((self.python is not None, self.mcp is not None, bool(self.tables))) != 1:
            raise ValueError("give one of: python = …, mcp = { … }, tables = { … }")
        if self.options and self.python is None:
            raise ValueError("options are for python = …")
        return self


class CallingSettings(Table):
    """tasks.NAME.calling: the bounds of one question with tools."""

    form: Literal["auto", "native", "schema"] = "auto"
    """How tools are called: in OpenAI's form, or by answers held to a JSON schema; auto asks what the engine can."""
    steps: int = Field(default=8, ge=1, le=100)
    """Most answers of the model."""
    calls: int = Field(default=16, ge=1, le=1000)
    """Most calls of tools."""
    faults: int = Field(default=3, ge=1, le=20)
    """Failed calls in a row after which it ends."""
    seconds: float = Field(default=300.0, gt=0.0)
    max_tokens: int = Field(default=512, ge=16)
    """Of one answer of the model."""
