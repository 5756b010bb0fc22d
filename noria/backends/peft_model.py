"""The model that is trained: the base as it serves, and what of it may change."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria import adapters
from noria.backends import gguf_model, gguf_weights
from noria.backends.peft_job import WorkerJob
from noria.backends.peft_ranks import spread
from noria.errors import Invalid
from noria.settings import FullRecipe, LowRankRecipe, QloraRecipe, WeightRecipe

if TYPE_CHECKING:
    import torch
    from torch.nn import Parameter

MICRO_TOKENS = 600
"""Tokens that go through all layers at once on a processor; a step's batch is cut into parts of this size to bound
memory. Where fewer layers are trained, each part holds more."""
DEVICE_TOKENS = 4096
"""The same on a CUDA device."""


@dataclass(frozen=True, slots=True)
class Learner:
    """`wrapped` is PEFT's model, or the plain one where all weights are trained; `causal` the model inside."""

    wrapped: Any
    causal: Any
    first: int
    """The lowest layer that is computed anew in every step; those below it are not trained."""
    device: torch.device
    half: torch.dtype | None
    """The type that is computed with beside float32, where the hardware gains by it."""
    folder: str
    """Name of the unpacked base."""

    @property
    def trained(self) -> dict[str, Parameter]:
        """What changes, by name."""
        return {name: each for name, each in self.wrapped.named_parameters() if each.requires_grad}

    @property
    def at_once(self) -> int:
        """Tokens of a pack."""
        most = DEVICE_TOKENS if self.device.type == "cuda" else MICRO_TOKENS
        layers = self.causal.config.num_hidden_layers
        return int(most * layers // (layers - self.first))

    def computing(self) -> Any:
        """The context in which the model runs: mixed precision where the hardware gains by it."""
        import torch

        return torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None)


def load(job: WorkerJob, number: int = 0) -> Learner:
    """The model of a job on its device, of which this process has number `number`; raises Invalid."""
    import torch

    device = torch.device(f"cuda:{number}" if job.device == "cuda" else "cpu")
    folder, recipe, half = gguf_weights.unpack(job.model, job.cache), job.recipe, _half(device)
    if isinstance(recipe, FullRecipe):
        if job.start is not None:
            folder = gguf_weights.unpack(job.start / gguf_model.FILE, job.cache)
        causal = _base(folder, device, torch.float32)
        causal.requires_grad_(True)
        return Learner(causal, causal, 0, device, half, folder.name)
    assert isinstance(recipe, LowRankRecipe)
    if isinstance(recipe, QloraRecipe) and device.type == "cuda":
        causal = four_bit(folder, device)
    else:
        place = torch.device("cpu") if job.sharded else device
        causal = _base(folder, place, half if half and device.type == "cuda" else torch.float32)
    layers = adapted_layers(recipe, causal.config.num_hidden_layers)
    wrapped = _adapted(causal, recipe, layers, job.start)
    if job.sharded:
        spread(causal.model, device)
        wrapped.to(device)
    # States of lower layers are kept by the process that met the row: where weights are spread, all must compute.
    first = 0 if job.sharded else layers.start
    return Learner(wrapped, wrapped.get_base_model(), first, device, half, folder.name)


def adapted_layers(recipe: LowRankRecipe, layers: int) -> range:
    """Numbers of the layers that get an adapter: the uppermost ones, or all where the recipe names no number."""
    return range(max(0, layers - (recipe.layers or layers)), layers)


def prepare(seed: int, device: str) -> None:
    """Make this process deterministic and quiet."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if device == "cpu":
        torch.set_num_threads(_cores())
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(seed)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _half(device: torch.device) -> torch.dtype | None:
    """bfloat16 where it is fast: on GPUs from Ampere on, with AVX-512; with AVX2 it is 30 times slower."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else None


def _base(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").to(device)


def four_bit(folder: Path, device: torch.device) -> Any:
    """The base with its linear maps in NF4, their scales quantised again, computed with in bfloat16.

    Raises Invalid where a map of a layer has no 4-bit weights after all: training it would not be QLoRA.
    """
    import torch
    from bitsandbytes.nn.modules import Linear4bit
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )
    causal = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, device_map={"": device}, attn_implementation="sdpa"
    )
    check_four_bit(causal, Linear4bit)
    return prepare_model_for_kbit_training(causal, use_gradient_checkpointing=False)


def check_four_bit(causal: Any, kind: type[Any]) -> None:
    """Raise Invalid unless every linear map of every layer is of this kind and holds NF4."""
    import torch

    for name, module in causal.model.layers.named_modules():
        plain = not isinstance(module, kind) or getattr(module.weight, "quant_type", "") != "nf4"
        if isinstance(module, torch.nn.Linear) and plain:
            raise Invalid(
                f"the recipe is 'qlora', but 'layers.{name}' has no 4-bit weights", 'take kind = "lora" instead'
            )


def _adapted(base: Any, recipe: LowRankRecipe, layers: range, start: Path | None) -> Any:
    from peft import LoraConfig, PeftModel, get_peft_model

    if start is None:
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            target_modules=list(recipe.modules),
            task_type="CAUSAL_LM",
            layers_to_transform=list(layers),
        )
        return get_peft_model(base, config)
    model = PeftModel.from_pretrained(base, start, is_trainable=True)
    config = model.peft_config["default"]
    found = config.r, config.lora_alpha, config.layers_to_transform, sorted(config.target_modules)
    if found != (recipe.rank, recipe.alpha, list(layers), sorted(recipe.modules)):
        raise Invalid(
            f"the adapter to go on from has rank {config.r}, alpha {config.lora_alpha}, "
            f"{len(config.layers_to_transform)} layers and {len(config.target_modules)} modules; "
            f"the recipe wants {recipe.rank}, {recipe.alpha}, {len(layers)} and {len(recipe.modules)}",
            'set start = "base" in the recipe, or the old values',
        )
    return model


def save(learner: Learner, recipe: WeightRecipe, model: Path, out: Path) -> None:
    """Write what serves: PEFT's own two files and `adapter.gguf`, or `model.gguf`; the same bytes everywhere."""
    from noria.backends import gguf_adapter

    out.mkdir(parents=True, exist_ok=True)
    config = learner.causal.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if isinstance(recipe, FullRecipe):
        tensors = {name: each.detach() for name, each in learner.causal.named_parameters()}
        gguf_model.write(model, tensors, out / gguf_model.FILE, recipe.precision)
        adapters.mark(out, "model")
        return
    learner.wrapped.peft_config["default"].base_model_name_or_path = learner.folder
    learner.wrapped.save_pretrained(out, save_embedding_layers=False)
    # A generated model card with place-holders tells nobody anything.
    (out / "README.md").unlink(missing_ok=True)
    (out / "adapter_model.safetensors").chmod(0o644)
    peft = json.loads((out / "adapter_config.json").read_text())
    peft["target_modules"] = sorted(peft["target_modules"])
    peft["inference_mode"] = True
    (out / "adapter_config.json").write_text(json.dumps(peft, indent=2, sort_keys=True) + "\n")
    gguf_adapter.convert(out, out / "adapter.gguf", heads=heads, kv_heads=kv_heads)
