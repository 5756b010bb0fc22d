"""The metadata and tokenizer of a Hugging Face folder as a GGUF file without weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noria.errors import Invalid

_HINT = "convert the folder with llama.cpp's convert_hf_to_gguf.py, and quantize that"
_NORMAL, _CONTROL, _USER = 1, 3, 4
"""Kinds of tokens, as llama.cpp numbers them (`llama_token_type`)."""


def write_head(folder: Path, out: Path) -> None:
    """Write a GGUF file that has all of a plain Llama but its weights: shape, vocabulary, merges, chat template.

    For folders with a byte-level BPE tokenizer (tokenizer.json). No path of the folder goes into the file. Raises
    Invalid for another architecture or tokenizer: a file whose engine cuts text otherwise than the model learned
    would answer, and worse.
    """
    from gguf import GGUFType, GGUFWriter

    config = _json(folder / "config.json")
    _check(folder.name, config)
    writer = GGUFWriter(out, "llama")
    writer.add_type(GGUFType.MODEL)
    heads, width = config["num_attention_heads"], config["hidden_size"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    head = config.get("head_dim") or width // heads
    if head != width // heads:
        writer.add_key_length(head)
        writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(_rope(config).get("rope_theta", config.get("rope_theta", 10000.0))))
    _tokenizer(folder, config, writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _check(name: str, config: Mapping[str, Any]) -> None:
    found = config.get("architectures") or ["none"]
    if found != ["LlamaForCausalLM"]:
        raise Invalid(f"'{name}' is of the architecture '{found[0]}', not LlamaForCausalLM", _HINT)
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise Invalid(f"'{name}' has biases, which a plain Llama does not have", _HINT)
    kind = _rope(config).get("rope_type", _rope(config).get("type", "default"))
    if kind != "default":
        raise Invalid(f"'{name}' scales its positions ('{kind}'), which is not supported here", _HINT)


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def _tokenizer(folder: Path, config: Mapping[str, Any], writer: Any) -> None:
    told, more = _json(folder / "tokenizer.json"), _json(folder / "tokenizer_config.json")
    model = told["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise Invalid(f"the tokenizer of '{folder.name}' is not byte-level BPE", _HINT)
    tokens = [f"[PAD{number}]" for number in range(config["vocab_size"])]
    kinds = [_USER] * len(tokens)
    for text, number in model["vocab"].items():
        tokens[number], kinds[number] = text, _NORMAL
    # A token past the vocabulary has no embedding: nothing can be said with it.
    for each in (each for each in told.get("added_tokens", ()) if each["id"] < len(tokens)):
        tokens[each["id"]], kinds[each["id"]] = each["content"], _CONTROL if each["special"] else _USER
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_rule(folder.name, told.get("pre_tokenizer")))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in model["merges"]])
    for word in ("bos", "eos", "pad", "unk"):
        if (number := _number(more.get(f"{word}_token"), tokens)) is not None:
            getattr(writer, f"add_{word}_token_id")(number)
    writer.add_add_bos_token(bool(more.get("add_bos_token", False)))
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.is_file() else more.get("chat_template")
    if isinstance(text, str):
        writer.add_chat_template(text)


def _rule(name: str, pre: Any) -> str:
    """llama.cpp's name of how text is cut before byte-pair encoding (llama-vocab.cpp)."""
    steps = [pre] if pre and pre.get("type") != "Sequence" else (pre or {}).get("pretokenizers", [])
    shapes = [(each["type"], each.get("individual_digits"), each.get("add_prefix_space")) for each in steps]
    if shapes == [("ByteLevel", None, False)]:
        return "gpt-2"
    if shapes == [("Digits", True, None), ("ByteLevel", None, False)]:
        return "smollm"
    raise Invalid(f"the tokenizer of '{name}' cuts text in a way that is not known here", _HINT)


def _number(token: object, tokens: Sequence[str]) -> int | None:
    text = token.get("content") if isinstance(token, dict) else token
    return tokens.index(text) if isinstance(text, str) and text in tokens else None


def _json(file: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Invalid(
            f"'{file.parent.name}' has no readable '{file.name}'", "name a whole Hugging Face folder"
        ) from error
    return told
