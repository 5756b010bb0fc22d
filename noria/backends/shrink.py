"""Shrinking models and measuring what was lost, each in a child process (`shrink_worker`)."""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue

from noria.backends import worker
from noria.backends.shrink_job import BitsJob, MergeJob, PruneJob, ScoreJob
from noria.ports import Progress

_LABELS = {"score": "measuring", "prune": "pruning", "merge": "writing the model", "bits": "quantizing"}


def run(job: ScoreJob | PruneJob | MergeJob | BitsJob, progress: Progress) -> dict[str, Any]:
    """Do a job; returns what the worker says of it. Raises Invalid, Unavailable."""
    label = _LABELS[job.mode]
    progress.update(label, 0, 1, "opening the model")

    def heard(line: dict[str, JsonValue]) -> None:
        if isinstance(line.get("step"), int):
            progress.update(label, int(str(line["step"])), int(str(line["total"])), str(line.get("note", "")))

    return dict(worker.run("noria.backends.shrink_worker", job, heard, "shrinking"))
