"""Several processes that train one model: each takes a share of every batch, and their gradients are added up."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from noria.backends.peft_job import WorkerJob
from noria.settings import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's number among `count`; each holds all weights, or a part of the frozen ones (`sharded`)."""

    number: int = 0
    count: int = 1
    sharded: bool = False

    def add_up(self, values: Sequence[Tensor]) -> None:
        """Sum over all processes, in place; in one message, since there are many small gradients."""
        import torch
        from torch.distributed import all_reduce

        if self.count == 1 or not values:
            return
        flat = torch.cat([each.reshape(-1).to(values[0].dtype) for each in values])
        all_reduce(flat)
        for each, part in zip(values, flat.split([each.numel() for each in values]), strict=True):
            each.copy_(part.view_as(each))

    def told(self, *numbers: float) -> list[float]:
        """Sums over all processes; each must ask."""
        import torch

        if self.count == 1:
            return list(numbers)
        where = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        sums = torch.tensor(numbers, dtype=torch.float64, device=where)
        torch.distributed.all_reduce(sums)
        return [float(each) for each in sums.tolist()]


@contextmanager
def joined(job: WorkerJob) -> Iterator[Ranks]:
    """The group of processes that torchrun started for this job; alone where it has one rank.

    gloo connects processors, NCCL devices. Each process takes an equal part of the processor's cores.
    """
    import torch

    if job.ranks == 1:
        yield Ranks()
        return
    number, count = int(environment("RANK") or 0), int(environment("WORLD_SIZE") or 1)
    if job.device == "cuda":
        torch.cuda.set_device(number)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    torch.distributed.init_process_group("nccl" if job.device == "cuda" else "gloo")
    try:
        yield Ranks(number, count, job.sharded)
    finally:
        torch.distributed.destroy_process_group()


def spread(core: Any, device: torch.device) -> None:
    """Let each process hold a part of the frozen weights of a model's layers, gathered while a layer computes (FSDP).

    What is trained stays whole in each, as do embeddings. From now on all processes must go through the model equally
    often.
    """
    from torch.distributed import get_world_size
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (get_world_size(),))
    for layer in core.layers:
        trained = {each for each in layer.parameters() if each.requires_grad}
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    # The model owns nothing here: it lets its layers share streams and fetch ahead.
    fully_shard(core, mesh=mesh, reshard_after_forward=True, ignored_params=set(core.parameters()))


def launch(file: str, job: WorkerJob) -> int:
    """Run the job's ranks with torchrun, in this process; returns the exit status. Their ends follow this one's."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    command = ["--standalone", f"--nproc-per-node={job.ranks}", "-m", "noria.backends.peft_worker"]
    try:
        main([*command, file, str(os.getpid())])
    except ChildFailedError as error:
        sys.stderr.write(str(error))
        return 1
    return 0
