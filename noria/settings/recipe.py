"""tasks.NAME.recipe: how a candidate is made. One table for each kind of recipe, told apart by `kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from noria.settings.base import Table

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROJECTIONS: tuple[Projection, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear maps of a layer of the llama architecture."""


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
    """Rows of an optimiser step, over all devices; what does not fit into memory at once is accumulated."""
    learning_rate: float = Field(default=1e-3, gt=0.0, lt=1.0)
    start: Literal["champion", "base"] = "champion"
    """Go on from the champion's adapter, replaying known rows, or begin from the base."""
    replay: float = Field(default=0.5, ge=0.0, le=4.0)
    """Known rows per new row when going on from a champion."""
    correction_epochs: float = Field(default=8.0, gt=0.0, le=100.0)
    """Passes over rows that came from corrections: facts need repetition."""
    validation: float = Field(default=0.0, ge=0.0, le=0.5)
    """Share of the training conversations that are not learned but measured ten times a run; the best state is kept."""
    patience: int = Field(default=3, ge=1)
    """Measurements in a row without a gain after which the training ends early."""


class LowRankRecipe(WeightRecipe):
    """What the recipes have that train low-rank adapters beside frozen weights (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    modules: tuple[Projection, ...] = Field(default=PROJECTIONS, min_length=1)
    """The linear maps that are adapted."""
    layers: int | None = Field(default=None, ge=1)
    """The uppermost layers that are adapted; all without it. Fewer learn faster and less."""


class LoraRecipe(LowRankRecipe):
    """kind = "lora": low-rank adapters beside the base in full precision."""

    kind: Literal["lora"] = "lora"


BOOKLET: Mapping[str, JsonValue] = {
    "rank": 8,
    "alpha": 16,
    "dropout": 0.1,
    "modules": ["q_proj", "v_proj"],
    "batch": 4,
    "learning_rate": 2e-4,
    "epochs": 3,
    "max_length": 512,
}
"""The life-cycle booklet's own settings of QLoRA; one row per device four times over is a batch of four here."""


class QloraRecipe(LowRankRecipe):
    """kind = "qlora": low-rank adapters beside the base in 4-bit NormalFloat (Dettmers et al. 2023, arXiv 2305.14314).

    Weights are stored as NF4, with the scales quantised once more, and computed with in bfloat16.
    """

    kind: Literal["qlora"] = "qlora"
    preset: Literal["booklet"] | None = None
    """Settings by name, beneath those that stand beside it."""
    on_cpu: Literal["refuse", "lora"] = "refuse"
    """Without a CUDA device, where 4-bit weights save nothing: do nothing, or train as `lora` does."""

    @model_validator(mode="before")
    @classmethod
    def _beneath(cls, table: Any) -> Any:
        if isinstance(table, dict) and table.get("preset") == "booklet":
            return {**BOOKLET, **table}
        return table


class FullRecipe(WeightRecipe):
    """kind = "full": every weight is trained; the product is a model in the base's place."""

    kind: Literal["full"] = "full"
    learning_rate: float = Field(default=5e-5, gt=0.0, lt=1.0)
    precision: Literal["f32", "f16", "q8_0", "q4_1", "q4_0"] = "q8_0"
    """How the trained weights are stored and served."""


class DpoRecipe(LowRankRecipe):
    """kind = "dpo": a low-rank adapter learns what people preferred over what (Rafailov et al. 2023, arXiv 2305.18290).

    Its rows are the pairs that corrections and thumbs gave; the reference is the model that training starts from.
    """

    kind: Literal["dpo"] = "dpo"
    learning_rate: float = Field(default=1e-4, gt=0.0, lt=1.0)
    beta: float = Field(default=0.1, gt=0.0, le=10.0)
    """How dear it is to leave the reference: the coefficient of the divergence from it."""


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


TABLES: dict[str, type[RecipeSettings]] = {
    "lora": LoraRecipe,
    "qlora": QloraRecipe,
    "full": FullRecipe,
    "dpo": DpoRecipe,
    "encoder": EncoderRecipe,
    "few-shot": FewShotRecipe,
    "prompt": PromptRecipe,
}
"""By kind."""


def _kind(table: Any) -> str:
    """The tag of a table; one without a kind is a LoRA."""
    return str(table.get("kind", "lora") if isinstance(table, dict) else table.kind)


Recipe = Annotated[
    Annotated[LoraRecipe, Tag("lora")]
    | Annotated[QloraRecipe, Tag("qlora")]
    | Annotated[FullRecipe, Tag("full")]
    | Annotated[DpoRecipe, Tag("dpo")]
    | Annotated[EncoderRecipe, Tag("encoder")]
    | Annotated[FewShotRecipe, Tag("few-shot")]
    | Annotated[PromptRecipe, Tag("prompt")],
    Discriminator(_kind),
]
