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


class EncoderRecipe(RecipeSettings):
    """kind = "encoder": a head on an encoder's vectors names the class; seconds on a processor."""

    kind: Literal["encoder"] = "encoder"
    l2: float | None = Field(default=None, gt=0.0, le=100.0)
    """Weight of the penalty on the head's weights; chosen by cross-validation without it."""
    balance: bool = True
    """Whether rare classes count as much as frequent ones."""
    layers: int = Field(default=0, ge=0)
    """Upper layers of the encoder that are tuned with the head; 0 leaves it as it is."""
    epochs: int = Field(default=20, ge=1, le=1000)
    """Most passes over the rows where layers are tuned."""
    batch: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0.0, lt=1.0)
    validation: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of the conversations that say when tuning has to stop and how sure the head may be."""
    patience: int = Field(default=3, ge=1)
    """Passes without a better validation after which tuning stops."""


class FewShotRecipe(RecipeSettings):
    """kind = "few-shot": the best examples stand in the prompt; no weights change."""

    kind: Literal["few-shot"] = "few-shot"
    shots: int = Field(default=4, ge=1, le=32)
    """Most examples in the prompt."""


TABLES: dict[str, type[RecipeSettings]] = {"lora": LoraRecipe, "encoder": EncoderRecipe, "few-shot": FewShotRecipe}
"""By kind."""


def _kind(table: Any) -> str:
    """The tag of a table; one without a kind is a LoRA."""
    return str(table.get("kind", "lora") if isinstance(table, dict) else table.kind)


Recipe = Annotated[
    Annotated[LoraRecipe, Tag("lora")]
    | Annotated[EncoderRecipe, Tag("encoder")]
    | Annotated[FewShotRecipe, Tag("few-shot")],
    Discriminator(_kind),
]
