"""Trains heads on encoders, in a child process whose memory goes when it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pydantic import JsonValue

from noria.backends.child import last_lines, stop
from noria.backends.encoder import single_threaded
from noria.backends.encoder_job import WorkerJob
from noria.backends.scratch import temporary
from noria.errors import Invalid, Unavailable
from noria.ports import Progress
from noria.types import HeadJob

LABEL = "training"
GRACE = 2.0
"""Seconds that an interrupted worker has to end by itself."""


class EncoderTrainer:
    """Port `HeadTrainer`: logistic regression on vectors, and with torch the tuning of upper layers."""

    def train(self, job: HeadJob, progress: Progress) -> dict[str, JsonValue]:
        """Write `head.safetensors`, `labels.json`, `probes.json`, `loss.json` and, where tuned, `encoder.safetensors`.

        Returns what was measured: `seconds` (all), `training_seconds`, `steps`, `tokens`, `peak_mb` (MiB, of the
        child), `first_loss`, `last_loss` and `losses` (nats a row, of at most 200 steps), `l2`, `temperature`,
        `validation_loss` and `validation_accuracy` (of rows held out group by group), `labels` (rows by class),
        `probes`, `trained_parameters`. The same job writes the same bytes. Raises Invalid where it cannot succeed,
        Unavailable when the worker was killed or a package is missing.
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
            progress.update(LABEL, line["step"], line["total"], line.get("note", ""))

        return _run(wanted, heard)


def _run(job: WorkerJob, heard: Callable[[dict[str, Any]], None]) -> dict[str, JsonValue]:
    with temporary("noria-worker.") as folder:
        file, log = folder / "job.json", folder / "log"
        file.write_text(job.model_dump_json())
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "noria.backends.encoder_worker", str(file), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                # Threads of torch that spin while they wait make tuning crawl when something else needs the cores.
                env=single_threaded(
                    HF_HUB_OFFLINE="1", PYTHONWARNINGS="ignore", PYTHONHASHSEED="0", GOMP_SPINCOUNT="1000"
                ),
                start_new_session=True,
            )
        last: dict[str, Any] = {}
        try:
            assert process.stdout is not None
            with process.stdout as lines:
                for text in lines:
                    # A killed worker may leave half a line.
                    with suppress(json.JSONDecodeError):
                        last = json.loads(text)
                    if "step" in last:
                        heard(last)
            status = process.wait()
        finally:
            stop(process, GRACE)
        if status == 0 and "result" in last:
            return dict(last["result"])
        if "error" in last:
            kind = Unavailable if last["code"] == Unavailable.code else Invalid
            raise kind(last["error"], last["hint"])
        if status < 0:
            raise Unavailable(f"the training process was killed by signal {-status}", "most often memory ran out")
        hint = last_lines(log, 8) or "it said nothing"
        raise Invalid(f"the training process failed with status {status}", hint, where="training")
