"""A served GGUF file as a Hugging Face folder, so that training starts from the very weights that serve."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.backends.scratch import temporary
from noria.errors import Invalid

_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def folder_of(gguf: Path, cache: Path) -> Path:
    """Where `unpack` puts this file's content: `cache/<first 16 digits of its SHA-256>`; raises Invalid."""
    if not gguf.is_file():
        raise Invalid(f"there is no model file '{gguf.name}'", "give a GGUF file or a known model")
    with gguf.open("rb") as file:
        return cache / hashlib.file_digest(file, "sha256").hexdigest()[:16]


def unpack(gguf: Path, cache: Path) -> Path:
    """Write model, tokenizer and chat template of a GGUF of the llama architecture; returns the folder.

    Weights are dequantized to float32. The folder appears under its name when it is complete and is never written
    again. Takes about 1.2 GB of memory for 135 million parameters: call it in a process of its own. Raises Invalid
    for another architecture and for anything in the file that a plain Llama does not have.
    """
    folder = folder_of(gguf, cache)
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with temporary(f"{folder.name}.", cache) as scratch:
        reader = _read(gguf)
        _weights(gguf, reader, scratch)
        _tokenizer(gguf, reader, scratch)
        _publish(scratch, folder)
    return folder


def _publish(scratch: Path, folder: Path) -> None:
    scratch.chmod(0o755)
    try:
        scratch.rename(folder)
    except OSError:
        # Another process was faster; what it wrote is the same.
        if not folder.is_dir():
            raise


def _read(gguf: Path) -> Any:
    from gguf import GGUFReader

    try:
        return GGUFReader(gguf)
    except ValueError as error:
        raise Invalid(f"'{gguf.name}' is not a GGUF file: {error}", "give a GGUF file or a known model") from error


def _weights(gguf: Path, reader: Any, out: Path) -> None:
    from safetensors.numpy import save_file

    config, tensors = _dequantized(gguf, reader)
    config.save_pretrained(out)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)


def load(gguf: Path) -> Any:
    """The model of a GGUF file as Transformers' own on the processor, dequantized to float32; raises as `unpack`."""
    import torch
    from transformers import AutoModelForCausalLM

    config, tensors = _dequantized(gguf, _read(gguf))
    with torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    # What was float32 already is a view of the file, and must not be written to.
    state = {name: torch.from_numpy(np.require(values, requirements="W")) for name, values in tensors.items()}
    causal.load_state_dict(state, strict=False, assign=True)
    causal.tie_weights()
    # Rotary frequencies are no weights: they are computed when the model is made, and on "meta" they were not.
    causal.model.rotary_emb = type(causal.model.rotary_emb)(config)
    return causal.eval()


def _dequantized(gguf: Path, reader: Any) -> tuple[Any, dict[str, NDArray[np.float32]]]:
    from gguf import dequantize

    config = _config(gguf.name, reader.fields, reader.tensors)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    tensors: dict[str, NDArray[np.float32]] = {}
    for tensor in reader.tensors:
        name = hugging_face_name(tensor.name)
        if name is None:
            raise Invalid(f"'{gguf.name}' has a tensor '{tensor.name}' that a plain Llama does not have", _ADVICE)
        values = dequantize(tensor.data, tensor.tensor_type)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            values = _unpermute(values, heads if name.endswith("q_proj.weight") else kv_heads)
        tensors[name] = np.ascontiguousarray(values, dtype=np.float32)
    return config, tensors


_ADVICE = "only plain models of the llama architecture can be trained; take another base"


def _config(file: str, fields: Mapping[str, Any], tensors: Any) -> Any:
    def number(key: str, default: float | None = None) -> Any:
        if (field := fields.get(f"llama.{key}")) is not None:
            return field.contents()
        if default is None:
            raise Invalid(f"'{file}' does not say 'llama.{key}'", "the file is damaged; fetch it again")
        return default

    architecture = fields["general.architecture"].contents() if "general.architecture" in fields else "none"
    if architecture != "llama":
        raise Invalid(f"'{file}' has the architecture '{architecture}', not llama", _ADVICE)
    if scaled := [name for name in fields if name.startswith(("llama.rope.scaling", "llama.expert"))]:
        raise Invalid(f"'{file}' uses '{scaled[0]}', which is not supported in training", _ADVICE)
    width, heads = number("embedding_length"), number("attention.head_count")
    embedding = next((each for each in tensors if each.name == "token_embd.weight"), None)
    if embedding is None:
        raise Invalid(f"'{file}' holds no token embedding", "the file is damaged; fetch it again")
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=int(embedding.shape[1]),
        hidden_size=width,
        intermediate_size=number("feed_forward_length"),
        num_hidden_layers=number("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=number("attention.head_count_kv", heads),
        head_dim=number("attention.key_length", width // heads),
        max_position_embeddings=number("context_length"),
        rms_norm_eps=number("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": number("rope.freq_base", 10000.0)},
        tie_word_embeddings=all(each.name != "output.weight" for each in tensors),
        dtype="float32",
        **{
            f"{ours}_token_id": field.contents()
            for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
            if (field := fields.get(f"tokenizer.ggml.{theirs}_token_id")) is not None
        },
    )


def hugging_face_name(name: str) -> str | None:
    """Transformers' name of a tensor of the llama architecture; None for one that a plain Llama does not have."""
    if name in _OUTER:
        return _OUTER[name]
    head, _, rest = name.partition(".")
    layer, _, part = rest.partition(".")
    if head != "blk" or part not in _LAYER:
        return None
    return f"model.layers.{layer}.{_LAYER[part]}"


def names(layers: int, untied: bool) -> list[str]:
    """The tensors of a plain Llama in a GGUF file, in their usual order."""
    outer = [name for name in _OUTER if untied or name != "output.weight"]
    return [*outer, *(f"blk.{layer}.{part}" for layer in range(layers) for part in _LAYER)]


def _unpermute(weights: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo llama.cpp's order of query and key rows: it interleaves the two halves that rotate together."""
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def permute(weights: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Order query and key rows as llama.cpp does: the two halves that rotate together interleave."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_tokenizer(gguf: Path, out: Path) -> None:
    """Write the tokenizer of a GGUF file, with its chat template, in Hugging Face's layout; raises as `unpack`."""
    _tokenizer(gguf, _read(gguf), out)


def _tokenizer(gguf: Path, reader: Any, out: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model, split = reader.fields.get("tokenizer.ggml.model"), reader.fields.get("tokenizer.ggml.pre")
    if model is not None and model.contents() == "gpt2":
        name = split.contents() if split is not None else "none"
        # transformers 5.23 takes every such tokenizer for GPT-2's: the engine would see other tokens than are learned.
        tokenizer.backend_tokenizer.pre_tokenizer = _pre_tokenizer(gguf.name, name)
    tokenizer.save_pretrained(out)


_LONE_DIGITS = frozenset({"smollm", "starcoder", "refact", "codeshell"})
_PLAIN = frozenset({"gpt-2", "phi-2", "mpt", "olmo"})


def _pre_tokenizer(file: str, name: str) -> Any:
    """How text is cut before byte-pair encoding, by llama.cpp's name for it (`tokenizer.ggml.pre`, llama-vocab.cpp)."""
    from tokenizers import pre_tokenizers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in _PLAIN:
        return words
    if name in _LONE_DIGITS:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    raise Invalid(f"'{file}' cuts its text by the rule '{name}', which is not supported in training", _ADVICE)
