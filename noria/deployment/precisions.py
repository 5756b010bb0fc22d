"""How many bytes the weights of a model take in each precision, matrix by matrix as the formats really store them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from noria.deployment.shapes import Matrix, Shape
from noria.errors import Invalid
from noria.settings import known

Form = Literal["hf", "gguf"]


@dataclass(frozen=True, slots=True)
class Precision:
    """A way to store weights. `bits` is what its name promises for each parameter; the formats keep more."""

    name: str
    form: Form
    bits: float
    compute: float = 0.0
    """Least CUDA compute capability on which vLLM computes it."""
    what: str = ""


ALL: Final = (
    Precision("fp32", "hf", 32, what="float32"),
    Precision("bf16", "hf", 16, what="bfloat16; float16 where the card has no bfloat16"),
    Precision("fp8", "hf", 8, 8.9, "FP8 (E4M3), linear layers"),
    Precision("int8", "hf", 8, 7.5, "bitsandbytes LLM.int8()"),
    Precision("nf4", "hf", 4, 7.0, "bitsandbytes 4-bit, blocks of 64"),
    Precision("awq", "hf", 4, 7.5, "AWQ, groups of 128"),
    Precision("gptq", "hf", 4, 6.0, "GPTQ, groups of 128"),
    Precision("Q8_0", "gguf", 8),
    Precision("Q6_K", "gguf", 6),
    Precision("Q5_K_M", "gguf", 5),
    Precision("Q4_K_M", "gguf", 4),
    Precision("Q4_1", "gguf", 4),
    Precision("Q4_0", "gguf", 4),
)
"""From large to small within each form."""
QUALITY: Final = (
    "fp32",
    "bf16",
    "Q8_0",
    "fp8",
    "int8",
    "Q6_K",
    "Q5_K_M",
    "awq",
    "Q4_K_M",
    "gptq",
    "nf4",
    "Q4_1",
    "Q4_0",
)
"""Best first, as a rule of thumb; `noria bench` measures it for a model."""
GGUF_BITS: Final = {
    "F32": 32.0, "F16": 16.0, "Q8_0": 34 / 4, "Q4_0": 18 / 4, "Q4_1": 20 / 4, "Q5_0": 22 / 4, "Q5_1": 24 / 4,
    "Q4_K": 144 / 32, "Q5_K": 176 / 32, "Q6_K": 210 / 32,
}  # fmt: skip
"""Bits per weight of llama.cpp's block types: bytes of a block of 32 (256 for the K types), scales included."""
REPACKED: Final = ("Q4_0", "Q4_K")
"""Types that llama.cpp repacks on x86 with AVX2; the embedding table, which is looked up, is left as it is."""
_FALLBACK: Final = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_LINEAR_BYTES: Final = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    # A float32 scale for each block of 64.
    "nf4": 0.5 + 4 / 64,
    # A half-precision scale and a 4-bit zero for each group of 128.
    "awq": 0.5 + 2.5 / 128,
    "gptq": 0.5 + 2.5 / 128,
}


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of a model's weights; `read` of them for one token, `fallback` is the share K types cannot hold.

    Of `repacked` llama.cpp makes a second copy on a processor, in the order in which its vector units want it.
    """

    bytes: float
    read: float
    fallback: float = 0.0
    repacked: float = 0.0


def precision(name: str) -> Precision:
    """The precision of this name, in any case; raises Invalid with the nearest name."""
    for each in ALL:
        if each.name.lower() == name.lower():
            return each
    also = {"fp16": "bf16", "f16": "bf16", "float32": "fp32", "bfloat16": "bf16", "float16": "bf16", "4bit": "nf4"}
    if name.lower() in also:
        return precision(also[name.lower()])
    raise Invalid(f"'{name}' is no precision", known(name, [each.name for each in ALL]))


def nominal(shape: Shape, kind: Precision) -> float:
    """Bytes if every parameter took the bits of the name: what tables of memory usually print."""
    return shape.parameters * kind.bits / 8


def weights(shape: Shape, kind: Precision) -> Weights:
    """Bytes of every matrix as this precision stores it; embeddings, output, norms and routers stay larger."""
    total = read = fallen = repacked = 0.0
    for each in shape.matrices:
        size, fell, copied = (
            _gguf(each, kind.name, shape) if kind.form == "gguf" else (_hugging_face(each, kind.name), 0.0, 0.0)
        )
        total += size
        fallen += fell
        repacked += copied
        table = each.role == "position" or (each.role == "embedding" and not shape.tied)
        if not table:
            read += size * (shape.chosen / shape.experts if each.expert else 1.0)
    vector = shape.vectors * (4.0 if kind.form == "gguf" or kind.name == "fp32" else 2.0)
    # GGUF files of a language model leave the other towers to a file of their own.
    beside = 0.0 if kind.form == "gguf" else shape.beside * (4.0 if kind.name == "fp32" else 2.0)
    return Weights(total + vector + beside, read + vector, fallen / total, repacked)


def _hugging_face(matrix: Matrix, name: str) -> float:
    """Linear layers alone are quantized; rounding to groups is left out."""
    if name == "fp32":
        return 4.0 * matrix.values
    if matrix.role in ("embedding", "position", "output", "router"):
        return 2.0 * matrix.values
    size = _LINEAR_BYTES[name] * matrix.values
    if name == "gptq":
        size += 4.0 * matrix.columns * matrix.count
    if name in ("int8", "fp8"):
        size += 4.0 * matrix.rows * matrix.count
    return size


def _gguf(matrix: Matrix, name: str, shape: Shape) -> tuple[float, float, float]:
    """Bytes, those of them in a larger type because 256 does not divide the rows' length, and those repacked."""
    if matrix.role == "router":
        return 4.0 * matrix.values, 0.0, 0.0
    size = fell = repacked = 0.0
    better = _more_bits(shape.layers) / shape.layers
    for share, kind in ((better, _kind(matrix, name, shape, True)), (1 - better, _kind(matrix, name, shape, False))):
        stored = kind if matrix.columns % 256 == 0 else _FALLBACK.get(kind, kind)
        stored = stored if matrix.columns % 32 == 0 else "F16"
        part = share * matrix.values * GGUF_BITS[stored] / 8
        size += part
        fell += part if stored != kind else 0.0
        repacked += part if stored in REPACKED and matrix.role != "embedding" else 0.0
    return size, fell, repacked


def _more_bits(layers: int) -> int:
    """Layers whose values and down projections the M mixtures keep larger: outer eighths, each third between."""
    eighth = layers // 8
    return sum(n < eighth or n >= 7 * layers // 8 or (n - eighth) % 3 == 2 for n in range(layers))


def _kind(matrix: Matrix, name: str, shape: Shape, better: bool) -> str:
    """The type that llama.cpp's quantizer gives a matrix (llama_tensor_get_type), before rows that do not fit.

    https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp
    """
    if name == "Q8_0":
        return "Q8_0"
    if matrix.role == "output" or (matrix.role == "embedding" and shape.tied):
        return "Q6_K"
    mixed = name in ("Q4_K_M", "Q5_K_M")
    base = name.removesuffix("_M")
    if mixed:
        special = _mixed(matrix, base, shape, better)
    elif shape.experts == 8 and matrix.role in ("k", "v"):
        special = "Q8_0"
    else:
        special = None
    return special or base


def _mixed(matrix: Matrix, base: str, shape: Shape, better: bool) -> str | None:
    """Of Q4_K_M and Q5_K_M: what is not of the base type."""
    if shape.experts == 8 and matrix.role in ("k", "v"):
        return "Q8_0"
    if shape.experts == 8 and matrix.role == "o":
        return "Q5_K"
    if matrix.role == "qkv":
        return "Q5_K" if base == "Q4_K" else "Q6_K"
    if matrix.role in ("v", "down") and better:
        return "Q6_K"
    # What llama.cpp calls a 70B: eight queries share its values, so these are few and matter more.
    if matrix.role == "v" and shape.layers == 80 and shape.family == "llama" and base == "Q4_K":
        return "Q5_K"
    return None
