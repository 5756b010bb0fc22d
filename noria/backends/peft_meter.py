"""What is measured while a training runs, and its picture."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, Field, JsonValue

from noria.backends import machine
from noria.backends.energy import EnergyMeter
from noria.backends.worker import Say


class Course(BaseModel):
    """How a training has gone so far; kept in checkpoints. Lists have one entry a step, but for `validation`."""

    losses: list[float] = Field(default_factory=list)
    rates: list[float] = Field(default_factory=list)
    """Learning rates."""
    tokens_per_s: list[float] = Field(default_factory=list)
    memory_mb: list[float] = Field(default_factory=list)
    joules: list[float] = Field(default_factory=list)
    """Used so far; empty where nothing counts it."""
    validation: list[tuple[int, float]] = Field(default_factory=list)
    """Steps and the loss of the validation rows after them."""
    tokens: int = 0
    seconds: float = 0.0

    @property
    def best(self) -> tuple[int, float] | None:
        """The step after which the validation rows had the least loss."""
        return min(self.validation, key=lambda pair: pair[1]) if self.validation else None

    def since_best(self) -> int:
        """Measurements after the best one."""
        best = self.best
        return len(self.validation) - 1 - self.validation.index(best) if best else 0


class Meter:
    """Adds to a course and tells the launcher."""

    def __init__(self, total: int, say: Say, course: Course) -> None:
        """`total` steps are planned; `course` is what an earlier process did of them."""
        self.total = total
        self.course = course
        self._say = say
        self._joules = EnergyMeter()
        self._before = course.joules[-1] if course.joules else 0.0
        self._last = time.monotonic()

    def add(self, loss: float, rate: float, tokens: int) -> None:
        """Note a finished step: nats a token, learning rate, tokens without padding."""
        course, now = self.course, time.monotonic()
        seconds, self._last = max(1e-9, now - self._last), now
        course.losses.append(round(loss, 6))
        course.rates.append(round(rate, 10))
        course.tokens += tokens
        course.seconds += seconds
        course.tokens_per_s.append(round(tokens / seconds, 1))
        course.memory_mb.append(peak_mb())
        line: dict[str, JsonValue] = {
            "step": len(course.losses),
            "total": self.total,
            "loss": course.losses[-1],
            "learning_rate": course.rates[-1],
            "tokens_per_s": self.rate(),
            "peak_mb": course.memory_mb[-1],
            "joules": None,
        }
        if (used := self._joules.joules()) is not None:
            course.joules.append(round(self._before + used, 3))
            line["joules"] = course.joules[-1]
        if course.validation:
            line["validation_loss"] = course.validation[-1][1]
        self._say(line)

    def measured(self, loss: float) -> None:
        """Note the loss of the validation rows after the steps so far."""
        step = len(self.course.losses)
        self.course.validation.append((step, round(loss, 6)))
        self._say({"validated": step, "loss": round(loss, 6)})
        self._last = time.monotonic()

    def rate(self) -> float:
        """Tokens a second since the beginning, padding not counted."""
        return round(self.course.tokens / max(1e-9, self.course.seconds), 1)


def peak_mb() -> float:
    """Highest memory of this process so far, in MiB: of the device where it computes on one, else resident."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return machine.peak_mb()


def picture(course: Course, file: Path) -> None:
    """Loss by step with a running mean over a tenth of the steps, the validation's loss, and the learning rate."""
    from matplotlib.figure import Figure

    losses = course.losses
    steps, width = range(1, len(losses) + 1), max(1, len(losses) // 10)
    smooth = [sum(part) / len(part) for end in steps if (part := losses[max(0, end - width) : end])]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="tab:blue", alpha=0.35, linewidth=1, label="each step")
    axes.plot(steps, smooth, color="tab:blue", linewidth=2, label=f"mean of {width} steps")
    if course.validation:
        _validation(axes, course.validation)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    right = axes.twinx()
    right.plot(steps, course.rates, color="tab:gray", linewidth=1, linestyle=":", label="learning rate")
    right.set_ylabel("learning rate")
    right.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=4)
    figure.savefig(file, dpi=100, metadata={"Software": None})


def _validation(axes: object, measured: Sequence[tuple[int, float]]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    axes.plot(*zip(*measured, strict=True), color="tab:orange", marker="o", markersize=3, label="validation")
    best = min(measured, key=lambda pair: pair[1])
    axes.axvline(best[0], color="tab:orange", linewidth=1, alpha=0.5)


def curves(course: Course) -> Mapping[str, Sequence[float]]:
    """By name, for where experiments are shown; one value a step."""
    found: dict[str, Sequence[float]] = {
        "learning_rate": course.rates,
        "tokens_per_s": course.tokens_per_s,
        "memory_mb": course.memory_mb,
        "joules": course.joules,
    }
    return {name: values for name, values in found.items() if values}
