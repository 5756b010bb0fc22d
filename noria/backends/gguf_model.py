"""A whole trained model as a GGUF file, in the form of the file that its training began from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noria.backends import gguf_weights
from noria.errors import Invalid

FILE = "model.gguf"
"""Name of a whole model in an adapter's folder."""
_SKIPPED = ("general.architecture", "general.file_type", "general.quantization_version")
_BLOCK = 32
"""Values that the simple quantizations scale together; a row must be a multiple of it."""


def write(base: Path, tensors: Mapping[str, Any], out: Path, precision: str) -> None:
    """Write the tensors, by their Hugging Face names, with all metadata and the tokenizer of the GGUF file `base`.

    Matrices get the precision (f32, f16, q8_0, q4_1, q4_0); embeddings and output q8_0 where it is less, which costs
    little and keeps words apart; vectors stay float32. Raises Invalid for a tensor of the base that is missing.
    """
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType

    reader = GGUFReader(base)
    writer = GGUFWriter(out, "llama")
    name = precision.upper()
    writer.add_file_type(LlamaFileType[f"{'ALL' if name == 'F32' else 'MOSTLY'}_{name}"])
    writer.add_quantization_version(2)
    _metadata(reader, writer)
    config = _heads(reader)
    for tensor in reader.tensors:
        theirs = gguf_weights.hugging_face_name(tensor.name)
        if theirs is None or theirs not in tensors:
            raise Invalid(f"the trained model has no '{tensor.name}'", "this is a defect of noria")
        values = tensors[theirs].float().cpu().numpy()
        if theirs.endswith(("q_proj.weight", "k_proj.weight")):
            values = gguf_weights.permute(values, config[theirs.endswith("k_proj.weight")])
        outer = tensor.name in ("token_embd.weight", "output.weight")
        kind = "Q8_0" if outer and name.startswith("Q4") else name
        _add(writer, tensor.name, values, GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _metadata(reader: Any, writer: Any) -> None:
    from gguf import GGUFValueType

    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in _SKIPPED:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, sub_type=inner)


def _heads(reader: Any) -> tuple[int, int]:
    heads = int(reader.fields["llama.attention.head_count"].contents())
    shared = reader.fields.get("llama.attention.head_count_kv")
    return heads, int(shared.contents()) if shared is not None else heads


def _add(writer: Any, name: str, values: Any, kind: Any) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType, quantize

    if values.ndim < 2 or kind == GGMLQuantizationType.F32:
        writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
    elif kind == GGMLQuantizationType.F16 or values.shape[-1] % _BLOCK:
        writer.add_tensor(name, values.astype(np.float16))
    else:
        writer.add_tensor(name, quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
