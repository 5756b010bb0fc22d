"""Table of the checks of training rows for poisoning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from noria.settings.base import Share, Table


class PoisoningSettings(Table):
    """tasks.NAME.poisoning: what is done with rows that look planted; the checks are heuristics and miss some."""

    action: Literal["flag", "drop", "block", "off"] = "flag"
    """Note them, leave them out, or stop the cycle where they are more than `limit`."""
    limit: Share = 0.01
    """Share of suspect rows that `block` bears."""
    flood: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """Most share of the rows of traffic that are one text said over again, or come from one user."""
    trusted: str | None = None
    """JSONL of rows with question and answer that somebody has vouched for: noria data sign FILE. Only with it are
    trigger phrases searched for."""
