from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from tiny_llama import tiny_model

from noria.backends import model_files
from noria.errors import Invalid


def folder(
    root: Path, tensors: dict[str, tuple[str, list[int]]], file: str = "model.safetensors", **config: Any
) -> Path:
    """A folder whose safetensors file has a head and no data."""
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = {"F32": 4, "BF16": 2, "I32": 4, "U8": 1}[dtype]
        for each in shape:
            size *= each
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    written = json.dumps(head).encode()
    root.mkdir(exist_ok=True)
    (root / file).write_bytes(struct.pack("<Q", len(written)) + written)
    (root / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return root


TENSORS: dict[str, tuple[str, list[int]]] = {
    "model.embed_tokens.weight": ("BF16", [100, 16]),
    "model.norm.weight": ("BF16", [16]),
}


def test_exact_sizes_from_the_heads_of_safetensors(tmp_path: Path) -> None:
    found = model_files.read(folder(tmp_path, TENSORS))
    assert (found.bytes, found.parameters, found.kind, found.table) == (3232, 1616, "bf16", 3200)
    assert found.config["model_type"] == "llama"
    assert model_files.read(folder(tmp_path, {"a": ("F32", [10])})).kind == "fp32"


def test_the_index_says_which_files_count(tmp_path: Path) -> None:
    folder(tmp_path, TENSORS, "model-00001-of-00002.safetensors")
    folder(tmp_path, {"b": ("BF16", [8])}, "model-00002-of-00002.safetensors")
    folder(tmp_path, {"c": ("BF16", [999])}, "model-old.safetensors")
    names = {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert model_files.read(tmp_path).parameters == 1624
    # Half a download says nothing of the size.
    (tmp_path / names["y"]).unlink()
    assert model_files.read(tmp_path).bytes == 0
    index.write_text("[]")
    with pytest.raises(Invalid, match=r"index\.json"):
        model_files.read(tmp_path)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ({"quant_method": "awq"}, "awq"), ({"quant_method": "gptq"}, "gptq"), ({"quant_method": "fbgemm_fp8"}, "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
    ],
)  # fmt: skip
def test_a_quantized_checkpoint_says_how(tmp_path: Path, method: dict[str, Any], kind: str) -> None:
    assert model_files.read(folder(tmp_path, TENSORS, quantization_config=method)).kind == kind


def test_a_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    tiny_model(path)
    found = model_files.read(path)
    assert found.fields is not None
    assert found.fields["general.architecture"] == "llama"
    assert found.vocabulary > 0
    # All but the head of the file are tensors, each padded to 32 bytes at the most.
    assert found.bytes < path.stat().st_size
    assert found.parameters > found.vocabulary
    assert sum(found.types.values()) + found.table == found.bytes


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"no config\.json"):
        model_files.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(Invalid, match="no JSON"):
        model_files.read(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(Invalid, match="no object"):
        model_files.read(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    for content in (b"\xff" * 64, b"\x02" + bytes(7) + b"[]", b"\x08" + bytes(7) + b'{"a":{}}', b""):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(Invalid, match="not a safetensors"):
            model_files.read(tmp_path)
    (tmp_path / "no.gguf").write_text("nothing")
    with pytest.raises(Invalid, match="not a GGUF"):
        model_files.read(tmp_path / "no.gguf")
