"""Whether a training can succeed on this machine: what is known of it before it starts."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from noria.backends.gguf_header import Header, header_of, read_header
from noria.backends.machine import free_memory
from noria.errors import Invalid, Unavailable
from noria.settings import FullRecipe, LowRankRecipe, QloraRecipe, WeightRecipe

GIB = 2**30
OVERHEAD = 0.6 * GIB
"""Of a process with torch and transformers."""


@dataclass(frozen=True, slots=True)
class Device:
    """What `[runtime] device` means here: processors or CUDA devices, and how many processes train together."""

    kind: Literal["cpu", "cuda"]
    count: int = 1
    sharded: bool = False
    """Whether each process holds a part of the layers' frozen weights only."""


def device_of(text: str, sharded: bool = False) -> Device:
    """`auto`, `cpu`, `cuda`, or so many of one kind: `cuda:4`, `cpu:2`; raises Invalid for more than there are."""
    kind, _, number = text.partition(":")
    if sharded and int(number or 1) == 1:
        raise Invalid(
            f"sharded = true spreads weights over several processes, and device = '{text}' is one",
            'name several in [runtime], such as device = "cuda:4", or take sharded away',
        )
    there = cuda_devices()
    if kind == "auto":
        return Device("cuda" if there else "cpu")
    count = int(number or 1)
    if kind == "cpu":
        return Device("cpu", count, sharded)
    if count > there:
        raise Invalid(
            f"the device '{text}' is not there: this machine has {there or 'no'} CUDA device{'s' * (there != 1)}",
            'set device = "auto" in [runtime]' + ("" if there else ", and install torch with CUDA for one"),
        )
    return Device("cuda", count, sharded)


def cuda_devices() -> int:
    """CUDA devices that the installed torch can use; its slow import is left to the child."""
    try:
        if "+cpu" in importlib.metadata.version("torch"):
            return 0
        library = ctypes.CDLL("libcuda.so.1")
    except (importlib.metadata.PackageNotFoundError, OSError):
        return 0
    count = ctypes.c_int()
    found = library.cuInit(0) == 0 and library.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if found else 0


def check(model: Path, recipe: WeightRecipe, device: Device) -> None:
    """Raise Invalid for a recipe that cannot be carried out on the device.

    That is: `qlora` without one or without bitsandbytes, a recipe whose weights cannot be spread where they should be,
    rows longer than the base model reads, and a base that does not fit into the memory that is free now.
    """
    if device.sharded and isinstance(recipe, FullRecipe | QloraRecipe):
        raise Invalid(
            f"sharded = true spreads the frozen weights of recipes 'lora' and 'dpo', and this one is '{recipe.kind}'",
            "take one of these, or sharded out of [runtime]",
        )
    if isinstance(recipe, QloraRecipe):
        _check_four_bit(recipe, device)
    header = header_of(model, "give a GGUF file or a known model")
    context = int(header.fields.get("llama.context_length", 0))
    if context and recipe.max_length > context:
        raise Invalid(
            f"max_length {recipe.max_length} is more than the {context} tokens that '{model.name}' reads",
            f"set max_length = {context} or less in the recipe",
        )
    if device.kind == "cpu":
        # Each process holds all, while it loads at least.
        needed, free = device.count * memory(header, recipe), free_memory()
        if free is not None and needed > free:
            raise Invalid(
                f"training '{model.name}' as '{recipe.kind}' needs about {needed / GIB:.1f} GiB of memory, "
                f"{free / GIB:.1f} GiB are free",
                "take a smaller base, fewer layers, or a machine with more memory",
            )


def _check_four_bit(recipe: QloraRecipe, device: Device) -> None:
    if device.kind == "cpu" and recipe.on_cpu == "refuse":
        raise Invalid(
            "'qlora' needs a CUDA device: on a processor 4-bit weights are slower and save nothing in training",
            'set on_cpu = "lora" in the recipe to train as lora here, or kind = "lora"',
        )
    if device.kind == "cuda" and importlib.util.find_spec("bitsandbytes") is None:
        raise Unavailable("'qlora' needs bitsandbytes, which is not installed", "pip install 'noria[train]'")


def memory(header: Header, recipe: WeightRecipe) -> int:
    """Bytes that a training takes on a processor, roughly: weights in float32, Adam's state and what is computed.

    The factors were fitted on the packaged model, where `lora` on all layers took 2,679 MiB at its highest; it gives
    some more than that, and more still where few layers are adapted.
    """
    from noria.backends.peft_model import MICRO_TOKENS

    weights = 4 * header.parameters
    width, layers, feed, words = (
        int(header.fields.get(f"llama.{name}", 0))
        for name in ("embedding_length", "block_count", "feed_forward_length", "vocab_size")
    )
    # Of each token a layer keeps some sixteen vectors of its width and seven of its feed-forward part, and the loss of
    # a learned one three of the vocabulary, all float32. Where fewer layers are trained, more tokens are computed at
    # once.
    activations = MICRO_TOKENS * layers * 4 * (16 * width + 7 * feed) + MICRO_TOKENS // 2 * 4 * 3 * words
    if isinstance(recipe, FullRecipe):
        # Gradients, two moments and, with validation, the best state.
        return int(OVERHEAD + (4 + (recipe.validation > 0)) * weights + activations)
    states = 4 * 4 * _adapter(header, recipe) if isinstance(recipe, LowRankRecipe) else 0
    return int(OVERHEAD + weights + states + activations)


def _adapter(header: Header, recipe: LowRankRecipe) -> int:
    """Parameters of the recipe's adapter, at the most."""
    width = int(header.fields.get("llama.embedding_length", 0))
    feed = int(header.fields.get("llama.feed_forward_length", 0))
    layers = int(header.fields.get("llama.block_count", 0))
    inner = [feed if module in ("gate_proj", "up_proj", "down_proj") else width for module in recipe.modules]
    return min(layers, recipe.layers or layers) * recipe.rank * sum(width + each for each in inner)


def check_disk(model: Path, recipe: WeightRecipe, out: Path) -> None:
    """Raise Unavailable where what will be written cannot have room beside `out`."""
    with model.open("rb") as file:
        header = read_header(file)
    size = 4 * header.parameters if isinstance(recipe, FullRecipe) else 0
    if isinstance(recipe, LowRankRecipe):
        # PEFT's file, the GGUF beside it, and a checkpoint with both moments.
        size = 5 * 4 * _adapter(header, recipe)
    place = next(folder for folder in (out, *out.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if size > free:
        raise Unavailable(
            f"the disk is full: the training writes about {size / 2**20:.0f} MB, {free / 2**20:.0f} MB are free",
            "free some space, then: noria run",
        )
