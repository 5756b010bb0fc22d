"""A whole trained model as a GGUF file, in the form of the file that its training began from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noria.backends import gguf_quantize, gguf_weights
from noria.errors import Invalid

FILE = "model.gguf"
"""Name of a whole model in an adapter's folder."""
_BLOCKS = "llama.block_count"


def write(base: Path, tensors: Mapping[str, Any], out: Path, precision: str) -> None:
    """Write the tensors, by their Hugging Face names, with all metadata and the tokenizer of the GGUF file `base`.

    `base` may be without weights (`gguf_folder`). Matrices get the precision (a kind of `gguf_quantize.PLAIN`), as
    `gguf_quantize.type_name` says. A model that has lost layers is written with so many as it has. Raises Invalid for
    a tensor of the base that is missing.
    """
    from gguf import GGUFReader, GGUFWriter

    reader = GGUFReader(base)
    writer = GGUFWriter(out, "llama")
    writer.add_file_type(gguf_quantize.file_type(precision))
    writer.add_quantization_version(2)
    layers = _layers(tensors)
    gguf_quantize.copy_metadata(reader, writer, {_BLOCKS: layers})
    config = _heads(reader)
    for name in _names(reader, layers, "lm_head.weight" in tensors):
        theirs = gguf_weights.hugging_face_name(name)
        if theirs is None or theirs not in tensors:
            raise Invalid(f"the trained model has no '{name}'", "this is a defect of noria")
        values = tensors[theirs].detach().float().cpu().numpy()
        if theirs.endswith(("q_proj.weight", "k_proj.weight")):
            values = gguf_weights.permute(values, config[theirs.endswith("k_proj.weight")])
        data, named = gguf_quantize.encoded(values, gguf_quantize.type_name(name, values.shape, precision))
        writer.add_tensor(name, data, raw_dtype=named)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _layers(tensors: Mapping[str, Any]) -> int:
    """Number of layers that tensors with these Hugging Face names belong to."""
    return 1 + max((int(name.split(".")[2]) for name in tensors if name.startswith("model.layers.")), default=-1)


def _names(reader: Any, layers: int, untied: bool) -> list[str]:
    """The base's tensors in its order, without those of layers that are gone; a base without weights has them all."""
    names = [tensor.name for tensor in reader.tensors] or gguf_weights.names(layers, untied)
    return [name for name in names if not name.startswith("blk.") or int(name.split(".")[1]) < layers]


def _heads(reader: Any) -> tuple[int, int]:
    heads = int(reader.fields["llama.attention.head_count"].contents())
    shared = reader.fields.get("llama.attention.head_count_kv")
    return heads, int(shared.contents()) if shared is not None else heads
