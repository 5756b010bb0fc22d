"""Trains heads on encoders, in a child process whose memory goes when it ends."""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue

from noria.backends import worker
from noria.backends.encoder import ONE_THREAD
from noria.backends.encoder_job import WorkerJob
from noria.ports import Progress
from noria.types import HeadJob

LABEL = "training"


class EncoderTrainer:
    """Port `HeadTrainer`: logistic regression on vectors, and with torch the tuning of upper layers."""

    def train(self, job: HeadJob, progress: Progress) -> dict[str, JsonValue]:
        """Write `head.safetensors`, `labels.json`, `probes.json`, `loss.json` and, where tuned, `encoder.safetensors`.

        Returns what was measured: `seconds` (all), `training_seconds`, `steps`, `tokens`, `peak_mb` (MiB, of the
        child), `first_loss`, `last_loss` and `losses` (nats a row, of at most 200 steps), `l2`, `temperature`,
        `validation_loss` and `validation_accuracy` (of rows held out group by group), `labels` (rows by class),
        `probes`, `trained_parameters`. The same job writes the same bytes. Raises Invalid where it cannot succeed,
        Unavailable when the worker was killed, the disk is full or a package is missing.
        """
        progress.update(LABEL, 0, 1, "loading the encoder")
        wanted = WorkerJob(
            model=job.model,
            features=job.features / "features.parquet",
            recipe=job.recipe,
            several=job.several,
            out=job.out,
        )

        def heard(line: dict[str, Any]) -> None:
            if "step" in line:
                progress.update(LABEL, line["step"], line["total"], line.get("note", ""))

        return worker.run("noria.backends.encoder_worker", wanted, heard, "training", ONE_THREAD)
