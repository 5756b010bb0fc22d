"""What a model's own files say of its shape and of its exact size: config.json, safetensors, GGUF."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from noria.backends.gguf_header import header_of
from noria.errors import Invalid

_LARGEST_HEADER: Final = 2**28


@dataclass(frozen=True, slots=True)
class Files:
    """A model as it lies on disk.

    `config` is its config.json, of a GGUF file its metadata in `fields`; `bytes` is the size of all tensors (0 where no
    weights lie there), `parameters` their values, `table` the bytes of the embeddings, `kind` the precision, `types`
    the bytes of each GGUF type, without the embeddings.
    """

    config: Mapping[str, JsonValue]
    bytes: int
    parameters: int
    kind: str
    fields: Mapping[str, str | float | bool] | None = None
    vocabulary: int = 0
    tied: bool = False
    table: int = 0
    types: Mapping[str, int] = field(default_factory=dict)


def read(path: Path) -> Files:
    """A GGUF file or a folder with a config.json; raises Invalid for anything else."""
    return _gguf(path) if path.is_file() else _folder(path)


def _gguf(path: Path) -> Files:
    header = header_of(path, "a .gguf file, or a folder with a config.json")
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None:
        raise Invalid(f"'{path.name}' has no embeddings: it is no language model", "name the model's own file")
    types = Counter[str]()
    for name, each in header.tensors.items():
        types[each.kind] += each.bytes if name != "token_embd.weight" else 0
    return Files(
        config={},
        bytes=sum(each.bytes for each in header.tensors.values()),
        parameters=header.parameters,
        kind=header.quantization,
        fields=header.fields,
        vocabulary=embedding.shape[-1],
        tied="output.weight" not in header.tensors,
        table=embedding.bytes,
        types=types,
    )


def _folder(folder: Path) -> Files:
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError as error:
        raise Invalid(
            f"'{folder}' has no config.json", "a model's folder as the hub has it, or a .gguf file"
        ) from error
    except ValueError as error:
        raise Invalid(f"'{folder}/config.json' is no JSON: {error}", "download it again") from error
    if not isinstance(config, dict):
        raise Invalid(f"'{folder}/config.json' is no object", "download it again")
    tensors = {name: each for file in _weights(folder) for name, each in _safetensors(file)}
    return Files(
        config=config,
        bytes=sum(size for size, _, _ in tensors.values()),
        parameters=sum(values for _, values, _ in tensors.values()),
        kind=_kind(config, {dtype for _, _, dtype in tensors.values()}),
        table=max((size for name, (size, _, _) in tensors.items() if name.endswith(_TABLES)), default=0),
    )


_TABLES: Final = ("embed_tokens.weight", "word_embeddings.weight")


def _weights(folder: Path) -> list[Path]:
    """The safetensors files that the index names, or all; adapters and copies in other folders are left out."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            named = sorted({*json.loads(index.read_text())["weight_map"].values()})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise Invalid(f"'{index}' cannot be read: {error}", "download it again") from error
        # Only what is there counts: a half downloaded model is told by its config alone.
        files = [folder / name for name in named]
        return files if all(file.is_file() for file in files) else []
    return sorted(folder.glob("model*.safetensors"))


def _safetensors(file: Path) -> Iterator[tuple[str, tuple[int, int, str]]]:
    """Bytes, values and type of each tensor, from the head of the file (https://github.com/huggingface/safetensors)."""
    try:
        with file.open("rb") as opened:
            length = struct.unpack("<Q", opened.read(8))[0]
            if length > _LARGEST_HEADER:
                raise ValueError(f"a head of {length:,} bytes")
            head = json.loads(opened.read(length))
        for name, each in head.items():
            if name != "__metadata__":
                begin, end = each["data_offsets"]
                yield name, (end - begin, math.prod(each["shape"]), str(each["dtype"]))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"'{file.name}' is not a safetensors file", "download it again") from error


def _kind(config: Mapping[str, JsonValue], types: set[str]) -> str:
    method = config.get("quantization_config")
    if isinstance(method, dict):
        name = str(method.get("quant_method", ""))
        if name == "bitsandbytes":
            return "int8" if method.get("load_in_8bit") else "nf4"
        return {"fbgemm_fp8": "fp8"}.get(name, name)
    return "fp32" if types == {"F32"} else "bf16"
