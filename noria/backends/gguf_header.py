"""The head of a GGUF file: what it declares of a model, read without the weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from noria.errors import Invalid
from noria.formats import GgufReader


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a GGUF file: its sizes with the fastest first, its type in ggml's words, and its bytes."""

    shape: tuple[int, ...]
    kind: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file declares: its scalar metadata, its quantization and the byte where its last tensor ends."""

    fields: Mapping[str, str | float | bool]
    quantization: str
    end: int
    parameters: int
    tensors: Mapping[str, Tensor]


def header_of(path: Path, hint: str) -> Header:
    """Read the head of a file; raises Invalid with this hint for anything else than a GGUF file."""
    try:
        with path.open("rb") as file:
            return read_header(file)
    except ValueError as error:
        raise Invalid(f"'{path.name}' is not a GGUF file: {error}", hint) from error


def read_header(file: BinaryIO) -> Header:
    """Read the head of a GGUF file, version 2 or 3, little-endian; raises ValueError for anything else.

    The layout is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The gguf package's own reader
    takes seconds and 160 MB for a vocabulary of 49,152, since it makes an array of each token.
    """
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

    reader = GgufReader(file)
    fields = {key: value for key, value in reader.pairs() if value is not None}
    end, types, found = 0, Counter[str](), dict[str, Tensor]()
    for _ in range(reader.tensors):
        name = reader.text()
        shape = tuple(reader.number("<Q") for _ in range(reader.number("<I")))
        elements = math.prod(shape)
        kind = GGMLQuantizationType(reader.number("<I"))
        block, block_bytes = GGML_QUANT_SIZES[kind]
        found[name] = Tensor(shape, kind.name, elements // block * block_bytes)
        end = max(end, reader.number("<Q") + found[name].bytes)
        types[kind.name] += elements
    step = int(fields.get("general.alignment", 32))
    start = -(-file.tell() // step) * step
    names = {kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType}
    most = types.most_common(1)[0][0] if types else "unknown"
    return Header(fields, names.get(int(fields.get("general.file_type", -1)), most), start + end, types.total(), found)
