"""What a trial of a search is worth by a metric: its answers to training rows that it did not learn."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow.parquet as pq

from noria.evaluation import metrics
from noria.evaluation.answers import Examiner
from noria.evaluation.report import candidate
from noria.stage import Work
from noria.types import Example, Ref


def score(work: Work, adapter: Ref, ids: Sequence[str], metric: str) -> float:
    """The metric's value on these rows of `train.parquet` with this adapter; raises what engines raise."""
    found = metrics.find(metric)
    wanted = set(ids)
    table = pq.read_table(work.folder("dataset") / "train.parquet").to_pylist()
    rows = [
        Example.model_validate({**row, "messages": json.loads(row["messages"])}) for row in table if row["id"] in wanted
    ]
    log = work.platform.settings.state / "logs" / "study.log"
    with Examiner(work.platform, work.task, [adapter], log) as examiner:
        answered = examiner.answered(
            candidate(work, adapter), rows, work.progress, "validation", likelihood="logprob" in found.reads
        )
    return found.value(answered)


def rises(metric: str) -> bool:
    """Whether more of the metric is better."""
    return metrics.find(metric).higher_is_better
