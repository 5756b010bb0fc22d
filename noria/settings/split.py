"""Tables of a task's rows: how many a user may give, what is made up, how they are split."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from noria.settings.base import Name, Share, Table


class SplitSettings(Table):
    """tasks.NAME.split: which rows are sealed for tests. Near-duplicate questions are never parted."""

    test_share: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Share of what is new that is sealed; the task's own `test_share` without it."""
    by: tuple[Literal["conversation", "user"], ...] = ("conversation",)
    """Rows that share one of these lie on one side."""
    after: date | Literal["newest"] | None = None
    """Rows with a time are sealed by it: from this day (UTC) on, or the newest `test_share` of what is new. With a day
    no training row is newer. Rows without a time are drawn by chance."""
    looks: int = Field(default=100, ge=1)
    """Most reports on one set of sealed rows: each verdict tells a little of them to the next candidate. Fresh rows are
    put aside from four fifths on, and take over at the end."""
    benchmarks: tuple[str, ...] = ()
    """Files (JSONL, Parquet or text; patterns from the project's folder) that no training row may repeat."""


class FeedbackSettings(Table):
    """tasks.NAME.feedback: how much of the training rows one user can give."""

    thumbs_per_user: int = Field(default=3, ge=0)
    """Most liked answers of one user, so that no flood of votes buys the model."""
    user_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Most share of the rows of traffic that the feedback of one user may make up, ten rows being free."""


class SyntheticSettings(Table):
    """tasks.NAME.synthetic: questions to the documents of a source that an engine makes up, for training only."""

    source: Name
    engine: Name
    per_document: int = Field(default=2, ge=1, le=10)
    documents: int = Field(default=200, ge=1)
    """Most documents that are asked about, those with the smallest ids."""
    max_share: Share = 0.5
    """Most share of the training rows that may be made up."""
