"""Checkpoints: all that a training needs to go on as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from noria.backends.peft_job import WorkerJob
from noria.backends.peft_meter import Course

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer

FILE = "checkpoint.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(slots=True)
class Checkpoint:
    """The training's state after a step.

    Weights, both of Adam's moments, the best weights so far and the course. The learning rate follows from the step,
    and the random generator is seeded anew at each step, so neither needs to be kept. Written to one file in the folder
    in one move: a kill at any time leaves the one before. None of it holds a pickle.
    """

    folder: Path
    job: str
    """Digest of what is trained; a checkpoint of something else does not count."""

    def write(
        self,
        trained: dict[str, Parameter],
        optimizer: Optimizer,
        best: dict[str, Tensor] | None,
        course: Course,
    ) -> None:
        """Write the state after so many steps as the course has; raises OSError where it cannot be written."""
        from safetensors.torch import save

        tensors: dict[str, Tensor] = {}
        for name, each in trained.items():
            tensors[f"weight/{name}"] = each.detach()
            for moment in _MOMENTS:
                tensors[f"{moment}/{name}"] = optimizer.state[each][moment]
            if best is not None:
                tensors[f"best/{name}"] = best[name]
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{FILE}.part"
        with part.open("wb") as file:
            file.write(save(tensors, metadata={"job": self.job, "course": course.model_dump_json()}))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / FILE)

    def read(self, trained: dict[str, Parameter], optimizer: Optimizer) -> tuple[Course, dict[str, Tensor] | None]:
        """Put the kept state into weights and optimiser; returns course and best weights, a new course without one."""
        import torch
        from safetensors import safe_open

        if not (self.folder / FILE).is_file():
            return Course(), None
        with safe_open(self.folder / FILE, framework="pt") as kept:
            told = kept.metadata()
            if told["job"] != self.job:
                return Course(), None
            course = Course.model_validate_json(told["course"])
            best: dict[str, Tensor] = {}
            for name, each in trained.items():
                with torch.no_grad():
                    each.copy_(kept.get_tensor(f"weight/{name}"))
                moments = {moment: kept.get_tensor(f"{moment}/{name}").to(each.device) for moment in _MOMENTS}
                optimizer.state[each] = {"step": torch.tensor(float(len(course.losses))), **moments}
                if f"best/{name}" in kept.keys():  # noqa: SIM118 - it is no mapping
                    best[name] = kept.get_tensor(f"best/{name}")
        return course, best or None


def checkpoint(job: WorkerJob) -> Checkpoint | None:
    """Where the job keeps its state; None where it keeps none."""
    if job.state is None:
        return None
    # Folders and ranks do not change what is trained.
    same = job.model_dump_json(include={"plan", "validation", "recipe", "device"})
    digest = hashlib.sha256(same.encode())
    for file in (job.features, *(sorted(job.start.iterdir()) if job.start else ()), job.model):
        if file is not None:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return Checkpoint(job.state, digest.hexdigest())


def loss_json(course: Course) -> str:
    """The part of a course that is the same whenever the same is trained."""
    told = {
        "steps": list(range(1, len(course.losses) + 1)),
        "loss": course.losses,
        "learning_rate": course.rates,
        "validation": [{"step": step, "loss": loss} for step, loss in course.validation],
    }
    return json.dumps(told, sort_keys=True) + "\n"
