"""What the training of a head is given and what it makes, in the child process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from noria.backends.encoder_fit import Checked, Fitted
from noria.settings import EncoderRecipe


class WorkerJob(BaseModel):
    """What the launcher tells this process; `features` is the Parquet file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path
    features: Path
    recipe: EncoderRecipe
    several: bool
    out: Path


@dataclass(frozen=True, slots=True)
class Texts:
    """The rows of the features: token ids, wanted labels, groups and what the ids say."""

    ids: list[list[int]]
    targets: list[tuple[str, ...]]
    groups: list[str]
    said: list[str]


@dataclass(frozen=True, slots=True)
class Made:
    """A trained head with what held-out rows said of it; `tuned` are tensors of the encoder's that changed."""

    fitted: Fitted
    checked: Checked
    tuned: dict[str, Any]
    note: dict[str, JsonValue]
