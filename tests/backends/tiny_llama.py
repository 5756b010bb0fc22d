"""A tiny model of the llama architecture and rows for it, for the tests of training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WIDTH, HEADS, KV_HEADS, FEED, LAYERS = 64, 4, 2, 128, 2
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PROMPT, ANSWER = 24, 16
"""Tokens of a row's prompt and of its learned answer."""


class Heard:
    """A `Progress` that notes what it is told."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, float, float, str]] = []

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        self.updates.append((label, done, total, note))


def tiny_model(
    path: Path,
    *,
    architecture: str = "llama",
    split: str = "gpt-2",
    extra: str = "",
    layers: int = LAYERS,
    context: int = 512,
) -> Path:
    """A random model whose tokens are the 256 bytes, one merge and ChatML's two marks."""
    random = np.random.default_rng(11)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + n) for n, byte in enumerate(others)}}
    tokens = [letters[byte] for byte in range(256)] + ["th", "<|im_start|>", "<|im_end|>"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 257 + [3, 3])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(258)
    writer.add_pad_token_id(258)
    writer.add_chat_template(TEMPLATE)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * 1.5 / WIDTH**0.5).astype(np.float32))

    embedding = random.standard_normal((len(tokens), WIDTH)) * 3 / WIDTH**0.5
    # llama.cpp shows no probability of a token that begins a character without ending it, so none may be likely.
    embedding[128:256] = 0
    writer.add_tensor("token_embd.weight", embedding.astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(WIDTH, np.float32))
        for name, rows in (("attn_q", WIDTH), ("attn_k", WIDTH // 2), ("attn_v", WIDTH // 2), ("attn_output", WIDTH)):
            add(f"blk.{layer}.{name}.weight", rows, WIDTH)
        for name, rows, columns in (("gate", FEED, WIDTH), ("up", FEED, WIDTH), ("down", WIDTH, FEED)):
            add(f"blk.{layer}.ffn_{name}.weight", rows, columns)
    if extra:
        add(extra, 4, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_features(folder: Path, lengths: Sequence[int]) -> Path:
    """Random rows of these lengths, the last `ANSWER` tokens learned."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(2)
    rows = [
        {
            "id": f"{number:016x}",
            "input_ids": random.integers(0, 128, length).tolist(),
            "loss_mask": [0] * (length - ANSWER) + [1] * ANSWER,
        }
        for number, length in enumerate(lengths)
    ]
    types = [("id", pa.string()), ("input_ids", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.int8()))]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(types)), folder / "features.parquet")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
