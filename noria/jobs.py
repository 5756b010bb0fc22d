"""What trainers are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noria.settings import EncoderRecipe, WeightRecipe


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """All that a trainer is told; `plan` lists numbers of rows of `features/features.parquet`, step by step.

    With `kind = "dpo"` row 2n is what was preferred over row 2n+1. Checkpoints go to `state`, every so many steps or
    after some time; `stop` is asked after each measurement of the `validation` rows, with the step and their loss.
    """

    model: Path
    features: Path
    plan: Sequence[Sequence[int]]
    start: Path | None
    recipe: WeightRecipe
    out: Path
    validation: Sequence[int] = ()
    state: Path | None = None
    checkpoint_steps: int | None = None
    stop: Callable[[int, float], bool] | None = None


@dataclass(frozen=True, slots=True)
class HeadJob:
    """All that a trainer of heads is told; `model` is the encoder's folder, rows lie in `features/features.parquet`."""

    model: Path
    features: Path
    recipe: EncoderRecipe
    several: bool
    out: Path
