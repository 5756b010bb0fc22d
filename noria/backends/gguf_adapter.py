"""PEFT's LoRA adapters as GGUF files, which llama.cpp loads beside the base model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.backends.gguf_weights import permute
from noria.errors import Invalid

_PREFIX = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.([a-z_]+\.[a-z_]+)\.lora_([AB])\.weight")
_MODULES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_REFUSED = (
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "fan_in_fan_out",
    "lora_bias",
    "trainable_token_indices",
)


def convert(adapter: Path, out: Path, *, heads: int, kv_heads: int) -> int:
    """Write the PEFT adapter in the folder `adapter` to the file `out`; returns the number of tensors.

    For base models of the llama architecture with `heads` attention heads and `kv_heads` key-value heads. Tensors
    stay float32. No local path goes into the file. Raises Invalid for every kind of adapter that llama.cpp would
    load and then apply wrongly: DoRA, retrained modules, ranks by layer, trained biases, unknown tensors.
    """
    from gguf import GGUFType, GGUFWriter, Keys
    from safetensors.numpy import load_file

    config = json.loads((adapter / "adapter_config.json").read_text())
    _check(config)
    tensors = load_file(adapter / "adapter_model.safetensors")
    named = {_gguf_name(name): _in_order(name, tensors[name], heads, kv_heads) for name in sorted(tensors)}
    if alone := [name for name in named if _partner(name) not in named]:
        raise Invalid(f"the adapter has '{alone[0]}' but not its other half", "the adapter is damaged; train again")
    writer = GGUFWriter(out, "llama")
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, _alpha(config))
    for name, values in named.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return len(named)


def _check(config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise Invalid(f"the adapter is of PEFT's type '{config.get('peft_type')}'", "only LORA can be served as GGUF")
    if found := next((name for name in _REFUSED if config.get(name)), None):
        raise Invalid(f"the adapter uses '{found}', which llama.cpp cannot apply", "train a plain LoRA")
    if config.get("bias", "none") != "none":
        raise Invalid(f"the adapter trains biases ('{config['bias']}')", 'train with bias = "none"')


def _alpha(config: Mapping[str, Any]) -> float:
    """The alpha that makes llama.cpp's factor alpha / rank equal to PEFT's own.

    Rank-stabilised LoRA (Kalajdzievski 2023, arXiv 2312.03732) scales by alpha / sqrt(rank) instead.
    """
    alpha, rank = float(config["lora_alpha"]), int(config["r"])
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def _gguf_name(name: str) -> str:
    found = _PREFIX.fullmatch(name)
    if found is None or found[2] not in _MODULES:
        raise Invalid(f"the adapter has a tensor '{name}' that has no place in a GGUF adapter", "train a plain LoRA")
    return f"blk.{found[1]}.{_MODULES[found[2]]}.weight.lora_{found[3].lower()}"


def _partner(name: str) -> str:
    return name[:-1] + ("b" if name.endswith("a") else "a")


def _in_order(name: str, values: NDArray[Any], heads: int, kv_heads: int) -> NDArray[np.float32]:
    if name.endswith("q_proj.lora_B.weight"):
        values = permute(values, heads)
    elif name.endswith("k_proj.lora_B.weight"):
        values = permute(values, kv_heads)
    return np.ascontiguousarray(values, dtype=np.float32)
