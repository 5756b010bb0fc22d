"""What the launcher tells the training process, and the rows that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from noria.errors import Invalid
from noria.settings import DpoRecipe, FullRecipe, LoraRecipe, QloraRecipe

IGNORED = -100
"""Label of a position that is not learned."""


class WorkerJob(BaseModel):
    """`features` is the Parquet file, `cache` where models are unpacked, `stop` a file whose being there ends it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["unpack", "train"]
    model: Path
    cache: Path
    features: Path | None = None
    plan: tuple[tuple[int, ...], ...] = ()
    validation: tuple[int, ...] = ()
    start: Path | None = None
    recipe: LoraRecipe | QloraRecipe | FullRecipe | DpoRecipe = Field(default=LoraRecipe(), discriminator="kind")
    out: Path | None = None
    state: Path | None = None
    checkpoint_steps: int | None = None
    stop: Path | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    ranks: int = 1
    sharded: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids of one example and, of the same length, its labels (`IGNORED` where nothing is learned)."""

    tokens: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def learned(self) -> list[int]:
        """Places whose token is learned; the first one has nothing before it to be predicted from."""
        return [place for place, label in enumerate(self.labels) if place and label != IGNORED]


def read_rows(features: Path, plan: Sequence[Sequence[int]]) -> dict[int, Row]:
    """The rows of `features.parquet` that the plan uses, by number; raises Invalid for a plan that does not fit."""
    import pyarrow.parquet as pq

    columns = ["input_ids", "loss_mask"]
    table = pq.read_table(features, columns=columns)
    wanted = sorted({number for step in plan for number in step})
    if not all(plan) or wanted[0] < 0 or wanted[-1] >= table.num_rows:
        raise Invalid(
            f"the plan does not fit '{features.name}', which has {table.num_rows} rows", "make the features again"
        )
    rows = {}
    for number, row in zip(wanted, table.take(wanted).to_pylist(), strict=True):
        tokens, mask = tuple(row["input_ids"]), row["loss_mask"]
        if len(mask) != len(tokens) or not any(mask[1:]):
            raise Invalid(f"row {number} of '{features.name}' has nothing to learn", "make the features again")
        rows[number] = Row(tokens, tuple(t if m else IGNORED for t, m in zip(tokens, mask, strict=True)))
    return rows


def check_lengths(rows: dict[int, Row], context: int) -> None:
    """Raise Invalid for a row that is longer than what the base model was made for."""
    number, row = max(rows.items(), key=lambda item: len(item[1].tokens))
    if len(row.tokens) > context:
        raise Invalid(
            f"row {number} has {len(row.tokens)} tokens, the base model reads {context}",
            f"set max_length = {context} or less in the recipe",
        )
