"""Trains with transformers and PEFT in a child process, whose memory goes when it ends; several with torchrun."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from noria.backends import gguf_weights, peft_fit, worker
from noria.backends.peft_job import WorkerJob
from noria.backends.scratch import temporary
from noria.ports import Progress
from noria.settings import WeightRecipe
from noria.types import TrainingJob

LABEL = "training"


class PeftTrainer:
    """Port `Trainer` for GGUF models of the llama architecture; `cache` keeps what was unpacked of them.

    `device` and `sharded` are those of `[runtime]`.
    """

    def __init__(self, cache: Path, device: str = "auto", sharded: bool = False) -> None:
        self._cache = cache
        self._device, self._sharded = device, sharded

    def tokenizer(self, model: Path) -> Path:
        """Folder of the model's own tokenizer, in Hugging Face's layout, unpacked once.

        The first call for a model takes about 20 s and half a gigabyte of disk for 135 million parameters: the
        weights are unpacked along with it. Raises Invalid for a file that cannot be trained, Unavailable.
        """
        folder = gguf_weights.folder_of(model, self._cache)
        if not folder.is_dir():
            self._run(WorkerJob(mode="unpack", model=model, cache=self._cache), lambda line: None)
        return folder

    def check(self, model: Path, recipe: WeightRecipe) -> None:
        """Raise Invalid for what this machine cannot train, before anything takes time; see `peft_fit.check`."""
        peft_fit.check(model, recipe, peft_fit.device_of(self._device, self._sharded))

    def train(self, job: TrainingJob, progress: Progress) -> dict[str, JsonValue]:
        """Write what serves, `loss.json`, `loss.png` and `probes.json` to `job.out`.

        What serves is `adapter.gguf` beside PEFT's own files, or `model.gguf`. With `job.state` a training that was
        killed goes on where its last checkpoint is, to the same product; what it kept is removed in the end.

        Returns what was measured: `seconds` (all), `training_seconds`, `steps`, `planned_steps`, `tokens` (padding not
        counted), `tokens_per_s`, `peak_mb` (MiB, of the child or the device), `joules` (None where nothing counts
        them), `first_loss`, `last_loss` and `losses` (nats per learned token, or per pair), `curves` by step, `probes`,
        `trained_parameters`; with validation rows `validation` ([step, loss] pairs), `best_step` and
        `validation_loss`. Raises Invalid where the same job cannot succeed, Unavailable when the worker was killed,
        the disk is full or a package is missing.
        """
        device = peft_fit.device_of(self._device, self._sharded)
        peft_fit.check(job.model, job.recipe, device)
        peft_fit.check_disk(job.model, job.recipe, job.out)
        progress.update(LABEL, 0, len(job.plan), "loading the model")
        with temporary("noria-stop.") as folder:
            told = WorkerJob.model_validate(
                {
                    "mode": "train",
                    "model": job.model,
                    "cache": self._cache,
                    "features": job.features / "features.parquet",
                    "plan": tuple(tuple(step) for step in job.plan),
                    "validation": tuple(job.validation),
                    "start": job.start,
                    "recipe": job.recipe,
                    "out": job.out,
                    "state": job.state,
                    "checkpoint_steps": job.checkpoint_steps,
                    "stop": folder / "stop",
                    "device": device.kind,
                    "ranks": device.count,
                    "sharded": device.sharded,
                }
            )

            def heard(line: dict[str, Any]) -> None:
                if "validated" in line and job.stop is not None and job.stop(line["validated"], line["loss"]):
                    (folder / "stop").touch()
                if "step" in line:
                    progress.update(LABEL, line["step"], line["total"], _note(line))

            measured = self._run(told, heard)
        if job.state is not None:
            shutil.rmtree(job.state, ignore_errors=True)
        return measured

    def _run(self, job: WorkerJob, heard: Callable[[dict[str, Any]], None]) -> dict[str, JsonValue]:
        return worker.run("noria.backends.peft_worker", job, heard, "training")


def _note(line: dict[str, Any]) -> str:
    """What stands beside the bar: what is known, and nothing that is not."""
    told = [
        f"loss {line['loss']:.3f}",
        *([f"validation {line['validation_loss']:.3f}"] if "validation_loss" in line else []),
        f"rate {line['learning_rate']:.1e}",
        f"{line['tokens_per_s']:.0f} tokens/s",
        f"{line['peak_mb']:.0f} MB",
        *([f"{line['joules'] / 3600:.2f} Wh"] if line["joules"] is not None else []),
    ]
    return ", ".join(told)
