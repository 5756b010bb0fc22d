"""Tables of the data plane."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from noria.settings.base import Table, Url


class LimitSettings(Table):
    """What one key, or all callers of one task, may use; without a number there is no limit.

    A minute's allowance may be spent at once and then comes back evenly. Days are those of UTC.
    """

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Prompt and completion together, as the engine counts them."""
    streams: int | None = Field(default=None, ge=1)
    """Requests that are being answered at the same time."""
    tokens_per_day: int | None = Field(default=None, ge=1)
    cost_per_day: float | None = Field(default=None, gt=0.0)
    """In the currency of the engines' prices."""


class GatewaySettings(Table):
    """[gateway]: the data plane as a whole. `limits` hold for every key that has none of its own."""

    workers: int = Field(default=1, ge=1, le=32)
    body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    messages: int = Field(default=512, ge=1)
    max_tokens: int = Field(default=8192, ge=1)
    choices: int = Field(default=8, ge=1)
    """The largest `n`."""
    deadline: float = Field(default=600.0, gt=0.0)
    """Seconds for a request, tries and answer together."""
    log_full: Literal["refuse", "drop"] = "refuse"
    """When the disk takes no record: refuse the traffic, or drop the record and count it."""
    limits: LimitSettings = LimitSettings()
    otlp: Url | None = None
    """Address of an OpenTelemetry collector (OTLP over HTTP); without it no spans are made."""
    content_in_spans: bool = False
    file_bytes: int = Field(default=200 * 1000 * 1000, ge=1024)
    """The largest file that is taken."""
    files_bytes: int = Field(default=2 * 1000 * 1000 * 1000, ge=1024)
    """Bytes of all files of one key."""
    batch_lines: int = Field(default=50_000, ge=1)
    batch_inflight: int = Field(default=2, ge=1, le=256)
    """A batch's line is asked only while fewer requests than this are in flight, those of clients included."""
