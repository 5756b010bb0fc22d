"""GGUF adapters: what is written, and what is refused before an engine would apply it wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from noria.backends import gguf_adapter
from noria.errors import Invalid

RANK, WIDTH, HEADS, KV_HEADS, HEAD = 4, 32, 4, 2, 8
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "bias": "none", "modules_to_save": None}


def peft_folder(folder: Path, modules: dict[str, int], **config: object) -> dict[str, NDArray[np.float32]]:
    """Write a PEFT adapter of one layer; `modules` maps a module to its output width."""
    random = np.random.default_rng(5)
    tensors = {}
    for module, width in modules.items():
        for half, shape in (("A", (RANK, WIDTH)), ("B", (width, RANK))):
            name = f"base_model.model.model.layers.0.{module}.lora_{half}.weight"
            tensors[name] = random.standard_normal(shape).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return tensors


def converted(folder: Path) -> gguf.GGUFReader:
    gguf_adapter.convert(folder, folder / "a.gguf", heads=HEADS, kv_heads=KV_HEADS)
    return gguf.GGUFReader(folder / "a.gguf")


def test_all_seven_projections_are_written_under_the_names_of_llama_cpp(tmp_path: Path) -> None:
    attention = {"self_attn.q_proj": 32, "self_attn.k_proj": 16, "self_attn.v_proj": 16, "self_attn.o_proj": 32}
    peft_folder(tmp_path, {**attention, "mlp.gate_proj": 48, "mlp.up_proj": 48, "mlp.down_proj": 32})
    reader = converted(tmp_path)
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    assert {tensor.name for tensor in reader.tensors} == {
        f"blk.0.{name}.weight.lora_{half}" for name in names for half in "ab"
    }
    told = {name: reader.fields[name].contents() for name in reader.fields if not name.startswith("GGUF.")}
    assert told == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
    }


@pytest.mark.parametrize(("module", "name", "heads"), [("q_proj", "attn_q", HEADS), ("k_proj", "attn_k", KV_HEADS)])
def test_rows_that_rotate_together_stand_side_by_side(tmp_path: Path, module: str, name: str, heads: int) -> None:
    full = f"self_attn.{module}"
    tensors = peft_folder(tmp_path, {full: heads * HEAD})
    written = {tensor.name: tensor.data for tensor in converted(tmp_path).tensors}
    ours = tensors[f"base_model.model.model.layers.0.{full}.lora_B.weight"]
    theirs = written[f"blk.0.{name}.weight.lora_b"]
    for head in range(heads):
        for pair in range(HEAD // 2):
            first = head * HEAD + pair
            assert np.array_equal(theirs[head * HEAD + 2 * pair], ours[first])
            assert np.array_equal(theirs[head * HEAD + 2 * pair + 1], ours[first + HEAD // 2])
    first_half = tensors[f"base_model.model.model.layers.0.{full}.lora_A.weight"]
    assert np.array_equal(written[f"blk.0.{name}.weight.lora_a"], first_half)


def test_other_rows_keep_their_order(tmp_path: Path) -> None:
    tensors = peft_folder(tmp_path, {"self_attn.v_proj": 16})
    written = {tensor.name: tensor.data for tensor in converted(tmp_path).tensors}
    ours = tensors["base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"]
    assert np.array_equal(written["blk.0.attn_v.weight.lora_b"], ours)


def test_rank_stabilised_scaling_survives(tmp_path: Path) -> None:
    peft_folder(tmp_path, {"mlp.up_proj": 48}, use_rslora=True)
    alpha = converted(tmp_path).fields["adapter.lora.alpha"].contents()
    assert alpha / RANK == pytest.approx(8 / RANK**0.5)


def test_the_same_adapter_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    written = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        peft_folder(folder, {"mlp.up_proj": 48}, base_model_name_or_path=str(folder))
        converted(folder)
        written.append((folder / "a.gguf").read_bytes())
    assert written[0] == written[1]
    assert str(tmp_path).encode() not in written[0]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern"),
        ({"bias": "all"}, "all"),
        ({"peft_type": "IA3"}, "IA3"),
    ],
)
def test_what_llama_cpp_cannot_apply_is_refused(tmp_path: Path, wrong: dict[str, object], named: str) -> None:
    peft_folder(tmp_path, {"mlp.up_proj": 48}, **wrong)
    with pytest.raises(Invalid, match=f"'{named}'") as caught:
        converted(tmp_path)
    assert caught.value.hint
    assert not (tmp_path / "a.gguf").exists()


def test_a_tensor_without_a_place_is_refused(tmp_path: Path) -> None:
    peft_folder(tmp_path, {"mlp.router_proj": 48})
    with pytest.raises(Invalid, match="router_proj"):
        converted(tmp_path)


def test_half_an_adapter_is_refused(tmp_path: Path) -> None:
    tensors = peft_folder(tmp_path, {"mlp.up_proj": 48})
    tensors.popitem()
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(Invalid, match="other half"):
        converted(tmp_path)
