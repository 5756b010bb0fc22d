"""GGUF files at a lower precision: by the gguf package's own quantizers, or by a `llama-quantize` that is there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from noria.errors import Invalid, NotFound, Unavailable

PLAIN: Final = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""Kinds that need no program beside noria."""
K_QUANTS: Final = ("q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k")
"""Kinds that llama.cpp's own program makes; their rows are divided into blocks of 256 values."""
PROGRAM: Final = "llama-quantize"
ORIGINAL: Final = frozenset({"F32", "F16", "BF16", "Q8_0"})
"""Types of tensors that hold the weights as they were trained, or all but so."""
_ANEW = ("general.architecture", "general.file_type", "general.quantization_version")
_BLOCK = 32
"""Values that the simple quantizations scale together; a row must be a multiple of it."""
_SECONDS = 3600.0
"""Most that the program may take."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """What became of a file: `fallbacks` are matrices that could not have the type that was asked for."""

    file: Path
    kind: str
    tensors: int
    fallbacks: tuple[str, ...]


def type_name(tensor: str, shape: tuple[int, ...], kind: str) -> str:
    """The type (as ggml names it) that a tensor of this name and shape (rows last) gets in a file of this kind.

    Vectors, norms and the routers of experts stay float32. For kinds of 4 and 5 bits the embeddings and the output
    stay at Q8_0: they are where words are kept apart. A row that is no multiple of 32 values stays at F16. This is
    llama.cpp's rule for models whose width is no multiple of 256 (for others it takes Q6_K, which nothing in Python
    writes): Q8_0, Q4_0 and Q4_1 were compared with `llama_model_quantize` and equal it byte by byte.
    """
    name = kind.upper()
    if len(shape) < 2 or not tensor.endswith("weight") or tensor.endswith(("_norm.weight", "ffn_gate_inp.weight")):
        return "F32"
    if name in ("F32", "F16", "BF16"):
        return name
    if shape[-1] % _BLOCK:
        return "F16"
    return "Q8_0" if tensor in ("token_embd.weight", "output.weight") and name != "Q8_0" else name


def encoded(values: Any, type_: str) -> tuple[Any, Any]:
    """An array of float32 as a GGUF file holds it, with the type to name; None for those that say it themselves."""
    import numpy as np
    from gguf import GGMLQuantizationType, quantize

    if type_ == "F32":
        return np.ascontiguousarray(values, dtype=np.float32), None
    if type_ == "F16":
        return np.ascontiguousarray(values, dtype=np.float16), None
    kind = GGMLQuantizationType[type_]
    return quantize(np.ascontiguousarray(values, dtype=np.float32), kind), kind


def file_type(kind: str) -> Any:
    """What `general.file_type` says of this kind."""
    from gguf import LlamaFileType

    name = kind.upper()
    return LlamaFileType[f"{'ALL' if name == 'F32' else 'MOSTLY'}_{name}"]


def copy_metadata(reader: Any, writer: Any, instead: Mapping[str, int] | None = None) -> None:
    """Write every field of the file that is read but those that a writer says anew, some with other values."""
    from gguf import GGUFValueType

    new = instead or {}
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in _ANEW:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(key, new.get(key, field.contents()), kind, sub_type=inner)


def check(kind: str) -> None:
    """Raise Invalid for a kind that no GGUF file has here."""
    if kind not in PLAIN + K_QUANTS:
        raise Invalid(f"there is no GGUF kind '{kind}'", f"one of {', '.join(PLAIN + K_QUANTS)}")


def lossy(source: Path) -> str | None:
    """The type of most weights where it is one that has lost already; None for a file of original weights."""
    from gguf import GGUFReader

    sizes: dict[str, int] = {}
    for tensor in GGUFReader(source).tensors:
        if len(tensor.shape) > 1:
            sizes[tensor.tensor_type.name] = sizes.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    most = max(sizes, key=lambda name: sizes[name]) if sizes else "F32"
    return None if most in ORIGINAL else most


def quantize(source: Path, out: Path, kind: str, program: Path | None = None) -> Quantized:
    """Write the model `source` to `out` at another precision, with its metadata and tokenizer.

    Takes memory for one tensor at a time beside the file. K-quants need `program`. Raises Invalid for an unknown
    kind and for a file that is no model, NotFound and Unavailable for a program that is not there or fails.
    """
    check(kind)
    if kind in K_QUANTS:
        return _by_program(source, out, kind, find_program(program))
    from gguf import GGUFReader, GGUFWriter, dequantize

    try:
        reader = GGUFReader(source)
    except ValueError as error:
        raise Invalid(f"'{source.name}' is not a GGUF file: {error}", "give a GGUF file or a known model") from error
    writer = GGUFWriter(out, reader.fields["general.architecture"].contents())
    writer.add_file_type(file_type(kind))
    writer.add_quantization_version(2)
    copy_metadata(reader, writer)
    types, shapes = {}, {}
    for tensor in reader.tensors:
        shape = tuple(int(each) for each in reversed(tensor.shape))
        types[tensor.name], shapes[tensor.name] = type_name(tensor.name, shape, kind), shape
        if len(shape) < 2 and tensor.tensor_type.name not in ORIGINAL:
            # Integers and other things that are no weights go over as they are.
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        values, named = encoded(dequantize(tensor.data, tensor.tensor_type).reshape(shape), types[tensor.name])
        writer.add_tensor(tensor.name, values, raw_dtype=named)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Quantized(out, kind, len(types), _fallen(types, shapes, kind))


def _fallen(types: dict[str, str], shapes: dict[str, tuple[int, ...]], kind: str) -> tuple[str, ...]:
    if kind in ("f32", "f16", "bf16"):
        return ()
    return tuple(name for name, type_ in types.items() if type_ == "F16" and shapes[name][-1] % _BLOCK)


def find_program(named: Path | None) -> Path:
    """llama.cpp's `llama-quantize`: the one that is named, or the first on PATH; raises NotFound, Unavailable."""
    if named is not None:
        if not (named.is_file() and os.access(named, os.X_OK)):
            raise NotFound(f"'{named}' is no program", f"name a {PROGRAM} that can be run")
        return named.resolve()
    found = shutil.which(PROGRAM)
    if found is None:
        raise Unavailable(
            f"K-quants are made by llama.cpp's {PROGRAM}, and none is on PATH",
            f"install llama.cpp and name it: --program /path/to/{PROGRAM}; or take one of {', '.join(PLAIN[3:])}",
        )
    return Path(found)


def _by_program(source: Path, out: Path, kind: str, program: Path) -> Quantized:
    # Whether a file that has lost already may lose again was asked before.
    command = [str(program), "--allow-requantize", str(source), str(out), kind.upper()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"'{program.name}' did not make '{kind}': {error}", "try it by hand") from error
    if done.returncode or not out.is_file():
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        out.unlink(missing_ok=True)
        raise Unavailable(
            f"'{program.name}' ended with status {done.returncode}: {said[-1] if said else 'it said nothing'}",
            f"it was asked for {kind.upper()}",
        )
    return _told(out, kind)


def _told(out: Path, kind: str) -> Quantized:
    """What a program has made: matrices that are of no K type fell back, as rows that 256 does not divide do."""
    from gguf import GGUFReader

    tensors = GGUFReader(out).tensors
    fallen = tuple(
        each.name for each in tensors if len(each.shape) > 1 and not each.tensor_type.name.endswith("_K")
        and each.tensor_type.name not in ("F32",)
    )  # fmt: skip
    return Quantized(out, kind, len(tensors), fallen)
