"""What the launcher tells the process that shrinks models and measures what was lost."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from noria.messages import Message

BITS = ("bnb-int8", "bnb-nf4", "bnb-fp4")
"""Kinds that bitsandbytes makes."""
CALIBRATED = ("awq", "gptq")
"""Kinds that llm-compressor makes, on a GPU."""


class Strict(BaseModel):
    """Frozen; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TextRow(Strict):
    """A conversation with its answer, or plain `text`."""

    messages: tuple[Message, ...] = ()
    answer: str = ""
    text: str = ""


class ScoreJob(Strict):
    """Distributions of several models on the same rows. A model is a GGUF file or a Hugging Face folder.

    Of the first, which is the source, greedy continuations of `length` tokens are made; `out` gets the logits of each
    model along them as `logits-N.npy` (float32, positions x vocabulary) and the negative log-likelihoods of the rows'
    own answers as `nll-N.npy` (nats a token). Folders write `answers` answers of at most `most` tokens, too.
    """

    mode: Literal["score"] = "score"
    models: tuple[Path, ...]
    rows: tuple[TextRow, ...]
    out: Path
    length: int = 32
    answers: int = 6
    most: int = 64


class PruneJob(Strict):
    """Weights or layers taken away; `out` gets the model as a Hugging Face folder and the GGUF file `file`.

    `rows` calibrate. `sparsity` is a share in (0, 1); `pattern` 2:4 leaves two of each four neighbours of a row.
    """

    mode: Literal["prune"] = "prune"
    model: Path
    method: Literal["magnitude", "wanda", "layers"]
    sparsity: float = 0.5
    pattern: Literal["", "2:4"] = ""
    drop: int = 0
    rows: tuple[TextRow, ...]
    out: Path
    file: Path
    kind: str = "f16"


class MergeJob(Strict):
    """A PEFT adapter added into its base; `out` gets a folder, `file` a GGUF file, where they are given."""

    mode: Literal["merge"] = "merge"
    model: Path
    adapter: Path | None = None
    out: Path | None = None
    file: Path | None = None
    kind: str = "f32"


class BitsJob(Strict):
    """A Hugging Face folder at 8 or 4 bits, by bitsandbytes, or by llm-compressor with calibration `rows`."""

    mode: Literal["bits"] = "bits"
    model: Path
    kind: str
    rows: tuple[TextRow, ...] = ()
    cache: Path
    out: Path


ShrinkJob = ScoreJob | PruneJob | MergeJob | BitsJob
