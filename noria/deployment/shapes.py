"""The shape of a model: every matrix it holds and what a token leaves in its cache, from its config.json.

Sizes are in parameters or in values; `memory_plan` turns them into bytes. Pure: files are read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import JsonValue

from noria.errors import Invalid

Role = Literal["embedding", "output", "position", "q", "k", "v", "qkv", "o", "gate", "up", "down", "router", "dense"]
ENCODERS: Final = ("bert", "xlm-roberta", "roberta")
_TIED: Final = ("gemma", "gemma2", "gemma3", "gemma3_text")
"""Families whose output is the embedding unless their config says otherwise."""
_QKV_BIAS: Final = ("qwen2", "qwen2_moe")
_QK_NORM: Final = ("qwen3", "qwen3_moe", "gemma3", "gemma3_text")
_EVERY: Final = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6}
"""Of these families each so many-th layer sees all, the others a window."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """`count` equal matrices of `rows` outputs and `columns` inputs; `expert` where a router chooses among them."""

    role: Role
    rows: int
    columns: int
    count: int
    expert: bool = False

    @property
    def values(self) -> int:
        """Parameters of all of them."""
        return self.rows * self.columns * self.count


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's widths. `vectors` counts the parameters of norms and biases; `latent` is MLA's cache per layer."""

    family: str
    layers: int
    hidden: int
    inner: int
    """Width of the widest feed-forward that one token goes through."""
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    context: int
    matrices: tuple[Matrix, ...]
    vectors: int
    tied: bool = True
    window: int | None = None
    windowed: int = 0
    """Layers that see only the last `window` tokens."""
    latent: int | None = None
    experts: int = 0
    chosen: int = 0
    """Experts that one token goes through."""
    beside: int = 0
    """Parameters that text does not go through, such as a vision tower."""

    @property
    def encoder(self) -> bool:
        """Whether it reads only: no cache, no next token."""
        return self.family in ENCODERS

    @property
    def parameters(self) -> int:
        """All parameters; of a mixture, those of all experts: every one of them lies in memory."""
        return sum(each.values for each in self.matrices) + self.vectors + self.beside

    @property
    def active(self) -> int:
        """Parameters that one token is multiplied with: without the embedding table and the experts not chosen."""
        values = 0.0
        for each in self.matrices:
            if each.role in ("embedding", "position") and not (self.tied and each.role == "embedding"):
                continue
            values += each.values * (self.chosen / self.experts if each.expert else 1.0)
        return round(values) + self.vectors

    @property
    def cached(self) -> int:
        """Values that a token leaves in the cache of one layer: keys and values of each key-value head (GQA)."""
        if self.encoder:
            return 0
        return self.latent if self.latent is not None else 2 * self.kv_heads * self.head


def of_config(config: Mapping[str, JsonValue]) -> Shape:
    """The shape that a `config.json` describes; raises Invalid where a width is missing or is no number.

    Families that are not known are counted like Llama: gated feed-forward, grouped-query attention, no biases.
    """
    inner = config.get("text_config")
    if isinstance(inner, dict):
        config = {**{key: value for key, value in config.items() if key != "text_config"}, **inner}
    read = _Config(config)
    family = str(config.get("model_type", "llama"))
    return _encoder(read, family) if family in ENCODERS else _decoder(read, family)


class _Config:
    """Numbers of a config.json by name."""

    def __init__(self, values: Mapping[str, JsonValue]) -> None:
        self.values = values

    def whole(self, name: str, default: int | None = None) -> int:
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise Invalid(f"config.json: '{name}' is {value!r}, not a whole number", "take the model's own config.json")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        return value if isinstance(value, bool) else default


def _encoder(read: _Config, family: str) -> Shape:
    hidden, inner, layers = read.whole("hidden_size"), read.whole("intermediate_size"), read.whole("num_hidden_layers")
    vocabulary, positions = read.whole("vocab_size"), read.whole("max_position_embeddings", 512)
    heads = read.whole("num_attention_heads")
    labels = read.whole("num_labels", 0)
    matrices = [
        Matrix("embedding", vocabulary, hidden, 1),
        Matrix("position", positions + read.whole("type_vocab_size", 2), hidden, 1),
        *(Matrix(role, hidden, hidden, layers) for role in _SQUARE),
        Matrix("up", inner, hidden, layers),
        Matrix("down", hidden, inner, layers),
        # The pooler; a classifier of the RoBERTa family has a dense layer in its place.
        Matrix("dense", hidden, hidden, 1),
    ]
    if labels:
        matrices.append(Matrix("dense", labels, hidden, 1))
    vectors = 2 * hidden + layers * (9 * hidden + inner) + hidden + labels
    # RoBERTa's positions begin after its padding token's.
    context = positions - 2 if family != "bert" else positions
    return Shape(family, layers, hidden, inner, heads, heads, hidden // heads, vocabulary, context,
                 tuple(matrices), vectors)  # fmt: skip


_SQUARE: Final[tuple[Role, ...]] = ("q", "k", "v", "o")


def _decoder(read: _Config, family: str) -> Shape:
    hidden, layers, heads = (read.whole(name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    kv_heads = read.whole("num_key_value_heads", heads)
    if not heads or not kv_heads or not layers:
        raise Invalid("config.json: a model has at least one layer and one head", "take the model's own config.json")
    head = read.whole("head_dim", hidden // heads)
    vocabulary, context = read.whole("vocab_size"), read.whole("max_position_embeddings", 8192)
    tied = read.flag("tie_word_embeddings", family in _TIED)
    matrices = [Matrix("embedding", vocabulary, hidden, 1)]
    if not tied:
        matrices.append(Matrix("output", vocabulary, hidden, 1))
    latent, width = None, head
    if read.values.get("kv_lora_rank") is not None:
        found, latent = _latent(read, hidden, heads, layers)
        matrices += found
        width = 0
    else:
        matrices += _attention(family, hidden, heads, kv_heads, head, layers)
    matrices += _forward(read, hidden, layers)
    experts, chosen = _experts(read)
    window, windowed = _window(read, family, layers)
    return Shape(
        family, layers, hidden, _widest(read), heads, kv_heads, head, vocabulary, context, tuple(matrices),
        _vectors(read, family, hidden, layers, (heads, kv_heads, width)), tied, window, windowed, latent, experts,
        chosen, read.whole("beside_parameters", 0),
    )  # fmt: skip


def _attention(family: str, hidden: int, heads: int, kv_heads: int, head: int, layers: int) -> list[Matrix]:
    output = Matrix("o", hidden, heads * head, layers)
    if family == "phi3":
        return [Matrix("qkv", (heads + 2 * kv_heads) * head, hidden, layers), output]
    return [
        Matrix("q", heads * head, hidden, layers),
        Matrix("k", kv_heads * head, hidden, layers),
        Matrix("v", kv_heads * head, hidden, layers),
        output,
    ]


def _latent(read: _Config, hidden: int, heads: int, layers: int) -> tuple[list[Matrix], int]:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): one compressed vector and one rotary key a token."""
    rank, rotary = read.whole("kv_lora_rank"), read.whole("qk_rope_head_dim")
    plain, value = read.whole("qk_nope_head_dim"), read.whole("v_head_dim")
    compressed = read.values.get("q_lora_rank")
    query = heads * (plain + rotary)
    matrices = [
        Matrix("k", rank + rotary, hidden, layers),
        Matrix("v", heads * (plain + value), rank, layers),
        Matrix("o", hidden, heads * value, layers),
    ]
    if compressed is None:
        matrices.append(Matrix("q", query, hidden, layers))
    else:
        low = read.whole("q_lora_rank")
        matrices += [Matrix("q", low, hidden, layers), Matrix("q", query, low, layers)]
    return matrices, rank + rotary


def _experts(read: _Config) -> tuple[int, int]:
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        if read.values.get(name):
            return read.whole(name), read.whole("num_experts_per_tok", 1)
    return 0, 0


def _widest(read: _Config) -> int:
    _, chosen = _experts(read)
    if not chosen:
        return read.whole("intermediate_size")
    return chosen * read.whole("moe_intermediate_size", read.whole("intermediate_size", 0))


def _forward(read: _Config, hidden: int, layers: int) -> Iterator[Matrix]:
    """Feed-forward of each layer: gated, and where there are experts one for each and those that all tokens share."""
    experts, _ = _experts(read)
    dense = min(layers, read.whole("first_k_dense_replace", 0)) if experts else layers
    inner = read.whole("intermediate_size")
    if dense:
        yield from _gated(hidden, inner, dense, False)
    if not experts:
        return
    width, mixed = read.whole("moe_intermediate_size", inner), layers - dense
    yield from _gated(hidden, width, mixed * experts, True)
    yield Matrix("router", experts, hidden, mixed)
    if shared := read.whole("n_shared_experts", 0):
        yield from _gated(hidden, width * shared, mixed, False)


def _gated(hidden: int, inner: int, count: int, expert: bool) -> Iterator[Matrix]:
    yield Matrix("gate", inner, hidden, count, expert)
    yield Matrix("up", inner, hidden, count, expert)
    yield Matrix("down", hidden, inner, count, expert)


def _vectors(read: _Config, family: str, hidden: int, layers: int, heads: tuple[int, int, int]) -> int:
    queries, pairs, head = heads
    # Gemma 2 and 3 norm what comes out of attention and feed-forward too.
    layer = (4 if family in _EVERY else 2) * hidden
    if family in _QKV_BIAS or read.flag("attention_bias"):
        layer += (queries + 2 * pairs) * head
    if family in _QK_NORM:
        layer += 2 * head
    if read.values.get("kv_lora_rank") is not None:
        layer += read.whole("kv_lora_rank") + read.whole("q_lora_rank", 0)
    return layers * layer + hidden


def _window(read: _Config, family: str, layers: int) -> tuple[int | None, int]:
    """The sliding window and how many layers have it; Qwen's configs name one that is switched off."""
    if read.values.get("sliding_window") is None or read.values.get("use_sliding_window") is False:
        return None, 0
    window = read.whole("sliding_window")
    if isinstance(kinds := read.values.get("layer_types"), list):
        return window, sum(kind == "sliding_attention" for kind in kinds)
    every = read.whole("sliding_window_pattern", _EVERY.get(family, 0))
    return window, layers - layers // every if every else layers


_GGUF: Final = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
    "sliding_window": "attention.sliding_window",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "kv_lora_rank": "attention.kv_lora_rank",
    "q_lora_rank": "attention.q_lora_rank",
    "qk_rope_head_dim": "rope.dimension_count",
    "n_shared_experts": "expert_shared_count",
    "first_k_dense_replace": "leading_dense_block_count",
}
_FAMILIES: Final = {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "deepseek2": "deepseek_v2"}


def config_of_gguf(fields: Mapping[str, str | float | bool], vocabulary: int, tied: bool) -> dict[str, JsonValue]:
    """What a config.json would say, from the metadata of a GGUF file; raises Invalid without an architecture.

    `vocabulary` is the number of rows of `token_embd.weight`, which not every file states.
    """
    kind = str(fields.get("general.architecture", ""))
    if not kind:
        raise Invalid("the GGUF file names no architecture", "download it again")
    config: dict[str, JsonValue] = {"model_type": _FAMILIES.get(kind, kind), "tie_word_embeddings": tied}
    for name, key in _GGUF.items():
        value = fields.get(f"{kind}.{key}")
        # Zero stands for "has none" in some files.
        if value is not None and (value or name == "intermediate_size"):
            config[name] = int(value)
    if "kv_lora_rank" in config:
        rotary = config.get("qk_rope_head_dim")
        query, width = (fields.get(f"{kind}.attention.{each}_mla") for each in ("key_length", "value_length"))
        if isinstance(rotary, int) and query is not None and width is not None:
            config |= {"qk_nope_head_dim": int(query) - rotary, "v_head_dim": int(width)}
    elif kind not in _SLIDING:
        # llama.cpp caches all tokens of other families, window or not.
        config.pop("sliding_window", None)
    return {**config, "vocab_size": vocabulary}


_SLIDING: Final = ("gemma2", "gemma3")
