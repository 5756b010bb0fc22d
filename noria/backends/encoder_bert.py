"""Encoders of the BERT and RoBERTa families in numpy: what a text means, without the weight of torch.

Devlin et al. 2019 and Liu et al. 2019, in the layout of Hugging Face's `model.safetensors`. Texts of a batch are laid
end to end, so that nothing is padded; only attention goes text by text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from noria.errors import Invalid, Unavailable

Array = NDArray[np.float32]
Weights = Mapping[str, Array]
FAMILIES: Final = {"bert": 0, "camembert": 1, "roberta": 1, "xlm-roberta": 1}
"""Model types with the same layers; 1 where positions are counted from after the padding token's id."""
WEIGHTS: Final = "model.safetensors"
_ACTIVATIONS: Final = ("gelu", "relu", "gelu_new", "gelu_pytorch_tanh")


@dataclass(frozen=True, slots=True)
class Shape:
    """What of an encoder's `config.json` its layers need. `longest` is the most tokens of a text."""

    layers: int
    heads: int
    width: int
    longest: int
    first: int
    """Number of the first position."""
    epsilon: float
    activation: str
    labels: tuple[str, ...]
    """Of a classifier's own head, in its order; empty for a plain encoder."""


def shape_of(folder: Path) -> Shape:
    """Read `config.json`; raises Invalid for a model that is no encoder of these families."""
    try:
        config = json.loads((folder / "config.json").read_text())
        kind = str(config["model_type"])
        offset = FAMILIES[kind] * (int(config.get("pad_token_id") or 0) + 1) if kind in FAMILIES else 0
        activation = str(config.get("hidden_act", "gelu"))
        if kind not in FAMILIES or activation not in _ACTIVATIONS:
            raise Invalid(
                f"'{folder.name}' is a model of type '{kind}' ({activation}), not an encoder that noria runs",
                f"one of: {', '.join(FAMILIES)}",
            )
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise Invalid(f"'{folder.name}' has relative positions", "use an encoder with absolute ones")
        architecture = (config.get("architectures") or [""])[0]
        # Hugging Face writes two labels into every config, heads or not.
        named = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
        labels = tuple(str(named[key]) for key in sorted(named, key=int))
        return Shape(
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            width=int(config["hidden_size"]),
            longest=int(config["max_position_embeddings"]) - offset,
            first=offset,
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
            activation=activation,
            labels=labels if architecture.endswith("ForSequenceClassification") else (),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise Invalid(f"'{folder.name}' is not the folder of an encoder: {error}", "it needs config.json") from error


def read_weights(folder: Path) -> dict[str, Array]:
    """Tensors by their name without the model's prefix, as float32; raises Invalid where there are none to be had."""
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ModuleNotFoundError as error:
        raise Unavailable("encoders need safetensors", "pip install 'noria[encoder]'") from error
    file = folder / WEIGHTS
    if not file.is_file():
        pickled = any(folder.glob("*.bin"))
        raise Invalid(
            f"'{folder.name}' has no '{WEIGHTS}'",
            "its weights are pickled, which can run code: convert them to safetensors" if pickled else "is it whole?",
        )
    try:
        found = load_file(file)
    except (SafetensorError, OSError) as error:
        raise Invalid(f"'{folder.name}/{WEIGHTS}' cannot be read: {error}", "download it again") from error
    return {_bare(name): np.asarray(value, np.float32) for name, value in found.items()}


def _bare(name: str) -> str:
    for prefix in ("bert.", "roberta."):
        name = name.removeprefix(prefix)
    return name


@dataclass(frozen=True, slots=True)
class Bert:
    """The layers of one encoder. Weights are shared between encoders that differ in upper layers only."""

    shape: Shape
    weights: Weights

    def hidden(self, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> Array:
        """Last hidden states, shape (sum of the lengths, width), of texts as token ids, one after the other.

        `types` are token types of pairs. Raises Invalid for a text longer than the model's positions.
        """
        lengths = [len(text) for text in texts]
        if max(lengths) > self.shape.longest:
            raise Invalid(
                f"a text of {max(lengths)} tokens exceeds the {self.shape.longest} that the encoder reads",
                "shorten the text",
            )
        ids = np.concatenate([np.asarray(text, np.int64) for text in texts])
        places = np.concatenate([np.arange(length) for length in lengths]) + self.shape.first
        state = self._of("embeddings.word_embeddings.weight")[ids]
        state = state + self._of("embeddings.position_embeddings.weight")[places]
        kinds = np.concatenate([np.asarray(each, np.int64) for each in types]) if types else np.zeros_like(ids)
        state = state + self._of("embeddings.token_type_embeddings.weight")[kinds]
        state = self._norm(state, "embeddings.LayerNorm")
        for layer in range(self.shape.layers):
            state = self._layer(state, f"encoder.layer.{layer}", lengths)
        return state

    def _layer(self, state: Array, name: str, lengths: Sequence[int]) -> Array:
        mixed = self._attend(state, f"{name}.attention.self", lengths)
        state = self._norm(
            state + self._linear(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm"
        )
        inner = activate(self._linear(state, f"{name}.intermediate.dense"), self.shape.activation)
        return self._norm(state + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _attend(self, state: Array, name: str, lengths: Sequence[int]) -> Array:
        heads, size = self.shape.heads, self.shape.width // self.shape.heads
        query, key, value = (self._linear(state, f"{name}.{part}") for part in ("query", "key", "value"))
        query *= np.float32(1 / math.sqrt(size))
        out = np.empty_like(query)
        start = 0
        for length in lengths:
            part = slice(start, start + length)
            # (heads, length, size)
            q, k, v = (each[part].reshape(length, heads, size).swapaxes(0, 1) for each in (query, key, value))
            scores = q @ k.swapaxes(1, 2)
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            out[part] = (scores @ v).swapaxes(0, 1).reshape(length, -1)
            start += length
        return out

    def _linear(self, state: Array, name: str) -> Array:
        result: Array = state @ self._of(f"{name}.weight").T
        result += self._of(f"{name}.bias")
        return result

    def _norm(self, state: Array, name: str) -> Array:
        centred = state - state.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        centred /= np.sqrt(variance + np.float32(self.shape.epsilon))
        return np.asarray(centred * self._of(f"{name}.weight") + self._of(f"{name}.bias"), np.float32)

    def _of(self, name: str) -> Array:
        try:
            return self.weights[name]
        except KeyError:
            raise Invalid(f"the encoder has no tensor '{name}'", "is it whole, and of the type it says?") from None


def activate(state: Array, name: str) -> Array:
    """The activation between the two linear layers; in place."""
    if name == "relu":
        return np.maximum(state, 0, out=state)
    if name == "gelu":
        half = erf(state * np.float32(1 / math.sqrt(2)))
    else:
        half = np.tanh(np.float32(math.sqrt(2 / math.pi)) * (state + np.float32(0.044715) * state**3))
    half += 1
    state *= half
    state *= np.float32(0.5)
    return state


def erf(x: Array) -> Array:
    """The error function to 1.5e-7 (Abramowitz and Stegun, formula 7.1.26), which is what float32 holds."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * size)
    terms = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    total = np.zeros_like(t)
    for term in terms:
        total += np.float32(term)
        total *= t
    np.square(size, out=size)
    np.negative(size, out=size)
    total *= np.exp(size, out=size)
    return np.asarray(np.copysign(1 - total, x), np.float32)
