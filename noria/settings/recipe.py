"""tasks.NAME.recipe: how a candidate is made. One table for each kind of recipe, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from noria.settings.base import Table


class RecipeSettings(Table):
    """What every recipe has."""

    kind: str
    max_length: int = Field(default=384, ge=32)
    """Tokens of a row; the context is shortened first."""
    seed: int = 7


class WeightRecipe(RecipeSettings):
    """What the recipes have that change weights step by step."""

    epochs: float = Field(default=1.0, gt=0.0, le=100.0)
    """Passes over rows that the start of the training has not seen."""
    batch: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0.0, lt=1.0)
    start: Literal["champion", "base"] = "champion"
    """Go on from the champion's adapter, replaying known rows, or begin from the base."""
    replay: float = Field(default=0.5, ge=0.0, le=4.0)
    """Known rows per new row when going on from a champion."""
    correction_epochs: float = Field(default=8.0, gt=0.0, le=100.0)
    """Passes over rows that came from corrections: facts need repetition."""


class LoraRecipe(WeightRecipe):
    """kind = "lora": low-rank adapters beside frozen weights (Hu et al. 2021)."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1)
    layers: int | None = Field(default=None, ge=1)
    """The uppermost layers that are adapted; all without it. Fewer learn faster and less."""


class WordingRecipe(RecipeSettings):
    """What the recipes have that look for words and change no weights."""

    max_length: int = Field(default=1024, ge=32)
    """Tokens of the whole prompt with its answer, for all but the longest twentieth of the rows."""
    trials: int = Field(default=8, ge=1, le=256)
    """Most wordings that are tried."""
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Share of the training rows that they are tried on; the sealed rows stay sealed."""
    rows: int = Field(default=48, ge=4, le=10_000)
    """Most rows that they are tried on."""


class FewShotRecipe(WordingRecipe):
    """kind = "few-shot": the best examples stand in the prompt (Brown et al. 2020); no weights change."""

    kind: Literal["few-shot"] = "few-shot"
    shots: int = Field(default=4, ge=1, le=32)
    """Most examples in the prompt."""


class PromptRecipe(WordingRecipe):
    """kind = "prompt": the best system prompt of several; no weights change."""

    kind: Literal["prompt"] = "prompt"
    systems: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """System prompts to try."""
    proposals: int = Field(default=0, ge=0, le=64)
    """System prompts that the task's engine is asked for, given training rows (Zhou et al. 2022)."""


TABLES: dict[str, type[RecipeSettings]] = {"lora": LoraRecipe, "few-shot": FewShotRecipe, "prompt": PromptRecipe}
"""By kind."""


def _kind(table: Any) -> str:
    """The tag of a table; one without a kind is a LoRA."""
    return str(table.get("kind", "lora") if isinstance(table, dict) else table.kind)


Recipe = Annotated[
    Annotated[LoraRecipe, Tag("lora")]
    | Annotated[FewShotRecipe, Tag("few-shot")]
    | Annotated[PromptRecipe, Tag("prompt")],
    Discriminator(_kind),
]
