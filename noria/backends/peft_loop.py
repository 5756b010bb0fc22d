"""The training loop: one optimiser step a batch, in packs, over one process or several, from where it was left."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from noria.backends.peft_job import Row, WorkerJob
from noria.backends.peft_losses import Loss
from noria.backends.peft_meter import Course, Meter
from noria.backends.peft_model import Learner
from noria.backends.peft_packs import Pack, packed
from noria.backends.peft_ranks import Ranks
from noria.backends.peft_state import checkpoint
from noria.backends.worker import Say
from noria.errors import Invalid

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

WARM_UP = 0.06
"""Share of the steps in which the learning rate rises."""
MEASUREMENTS = 10
"""Of the validation rows in a run."""
CHECKPOINT_SECONDS = 60.0
CLIP = 1.0
"""Longest gradient; a longer one is scaled to it."""


def learning_rate(step: int, total: int, peak: float) -> float:
    """Rate of the step (from 0): a linear rise from nothing, then half a cosine down towards it."""
    rise = max(1, round(WARM_UP * total))
    if step < rise:
        return peak * step / rise
    return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, total - rise))))


@dataclass(slots=True)
class Loop:
    """Trains `learner` on `rows` as `job.plan` says; `run` returns the course."""

    job: WorkerJob
    learner: Learner
    loss: Loss
    rows: Mapping[int, Row]
    ranks: Ranks
    say: Say
    _best: dict[str, Tensor] | None = None
    _written: float = field(default_factory=time.monotonic)

    def run(self) -> Course:
        """All steps that are not done yet, until the plan ends, nothing is gained any more or a stop is wanted.

        The best weights are put back where validation rows are measured. Raises Invalid for a loss that is no number.
        """
        import torch

        trained, recipe, total = self.learner.trained, self.job.recipe, len(self.job.plan)
        optimizer = torch.optim.AdamW(trained.values(), lr=0.0, weight_decay=0.0)
        keep = checkpoint(self.job)
        course, self._best = keep.read(trained, optimizer) if keep else (Course(), None)
        meter = Meter(total, self.say, course)
        peak = recipe.learning_rate
        for step in range(len(course.losses), total):
            if self._over(course):
                break
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, total, peak)
            loss, wanted = self._step(step, optimizer)
            numbers = self.job.plan[step]
            meter.add(loss, optimizer.param_groups[0]["lr"], sum(len(self.rows[each].tokens) for each in numbers))
            if self.job.validation and self._due(step + 1, total):
                self._validate(meter)
            if keep and step + 1 < total and self.ranks.number == 0 and self._late(step + 1):
                keep.write(trained, optimizer, self._best, course)
                self._written = time.monotonic()
            if wanted:
                break
        if self._best is not None:
            with torch.no_grad():
                for name, each in trained.items():
                    each.copy_(self._best[name])
        return course

    def _step(self, step: int, optimizer: Optimizer) -> tuple[float, bool]:
        """One optimiser step; the batch's loss and whether a stop is wanted."""
        import torch

        numbers, device = self.job.plan[step], self.learner.device
        # Dropout draws the same after a kill, since nothing of earlier steps is in the generator.
        torch.manual_seed(self.job.recipe.seed + step * self.ranks.count + self.ranks.number)
        self.learner.wrapped.train()
        weight, total = self.loss.weight(numbers), 0.0
        for pack, counts in self._passes(numbers):
            with self.learner.computing():
                part = self.loss.total(pack) * counts / weight
            part.backward()
            total += part.item()
        stop = self.job.stop is not None and self.ranks.number == 0 and self.job.stop.exists()
        total, wanted = self.ranks.told(total, float(stop))
        if not math.isfinite(total):
            raise Invalid(
                f"the loss of step {step + 1} is not a number, so nothing was learned",
                f"take a smaller learning_rate than {self.job.recipe.learning_rate}",
            )
        trained = list(self.learner.trained.values())
        for each in trained:
            if each.grad is None:
                each.grad = torch.zeros_like(each, device=device)
        self.ranks.add_up([each.grad for each in trained if each.grad is not None])
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return total, wanted > 0

    def _passes(self, numbers: Sequence[int]) -> list[tuple[Pack, int]]:
        """This process's packs of a batch, each with 1; with 0 what it computes only because another process must."""
        if not self.ranks.sharded:
            return [(pack, 1) for pack in self._share(numbers, self.ranks.number)]
        shares = [self._share(numbers, number) for number in range(self.ranks.count)]
        mine = shares[self.ranks.number]
        spare = min((pack for share in shares for pack in share), key=lambda pack: len(pack.tokens))
        more = max(map(len, shares)) - len(mine)
        return [*((pack, 1) for pack in mine), *[(spare, 0)] * more]

    def _share(self, numbers: Sequence[int], rank: int) -> list[Pack]:
        """A process's part of a batch in packs; long and short groups are dealt out evenly."""
        groups = sorted(self.loss.groups(numbers), key=lambda group: sum(len(self.rows[each].tokens) for each in group))
        return packed(self.rows, groups[rank :: self.ranks.count], self.learner.at_once)

    def _validate(self, meter: Meter) -> None:
        import torch

        self.learner.wrapped.eval()
        total = 0.0
        with torch.no_grad():
            for pack, counts in self._passes(self.job.validation):
                with self.learner.computing():
                    total += self.loss.total(pack).item() * counts
        [whole] = self.ranks.told(total)
        meter.measured(whole / self.loss.weight(self.job.validation))
        if meter.course.since_best() == 0:
            self._best = {name: each.detach().clone() for name, each in self.learner.trained.items()}

    def _due(self, step: int, total: int) -> bool:
        """Whether to measure after this step: ten times a run, and at its end."""
        return step == total or step % max(1, total // MEASUREMENTS) == 0

    def _over(self, course: Course) -> bool:
        return course.since_best() >= self.job.recipe.patience

    def _late(self, step: int) -> bool:
        if self.job.checkpoint_steps is not None:
            return step % self.job.checkpoint_steps == 0
        return time.monotonic() - self._written > CHECKPOINT_SECONDS
