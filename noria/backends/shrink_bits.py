"""Hugging Face folders at 8 and 4 bits: bitsandbytes anywhere, AWQ and GPTQ by llm-compressor on a GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from noria.backends import gguf_weights
from noria.backends.shrink_job import BITS, CALIBRATED, BitsJob
from noria.backends.shrink_model import read_rows, write_tokenizer
from noria.errors import Invalid, Unavailable

SCHEME = "W4A16_ASYM"
"""Weights of 4 bits in groups of 128 with a zero point, activations of 16: llm-compressor's name for it."""


def check(kind: str, cuda: bool) -> None:
    """Raise Invalid or Unavailable for a kind that cannot be made on this machine."""
    if kind in BITS and importlib.util.find_spec("bitsandbytes") is None:
        raise Unavailable(f"'{kind}' needs bitsandbytes, which is not installed", "pip install 'noria[train]'")
    if kind not in CALIBRATED:
        return
    if not cuda:
        raise Invalid(
            f"'{kind}' is calibrated layer by layer on a CUDA device, and this machine has none that torch can use",
            "q4_0 or q8_0 here; on a GPU: pip install llmcompressor, then the same command",
        )
    if importlib.util.find_spec("llmcompressor") is None:
        raise Unavailable(f"'{kind}' needs llm-compressor, which is not installed", "pip install llmcompressor")


def make(job: BitsJob) -> dict[str, JsonValue]:
    """Quantize as the job says; a GGUF file is unpacked first. Raises Invalid where no map became smaller."""
    folder = gguf_weights.unpack(job.model, job.cache) if job.model.is_file() else job.model
    causal = _calibrated(job, folder) if job.kind in CALIBRATED else _bits(job.kind, folder)
    causal.config._name_or_path = ""
    causal.save_pretrained(job.out)
    write_tokenizer(folder, job.out)
    return {"maps": _small_maps(causal), "memory_mb": round(causal.get_memory_footprint() / 1e6, 1)}


def _bits(kind: str, folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if kind == "bnb-int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=kind.removeprefix("bnb-"), bnb_4bit_compute_dtype=torch.bfloat16
        )
    causal = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, device_map={"": _device()})
    if not _small_maps(causal):
        raise Invalid(f"no linear map of '{folder.name}' was quantized", "this is a defect of noria")
    return causal


def _small_maps(causal: Any) -> int:
    import torch

    return sum(
        isinstance(module, torch.nn.Linear) and type(module) is not torch.nn.Linear for module in causal.modules()
    )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _calibrated(job: BitsJob, folder: Path) -> Any:
    """AWQ (Lin et al. 2023, arXiv 2306.00978) or GPTQ (Frantar et al. 2022, arXiv 2210.17323)."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    if job.kind == "awq":
        from llmcompressor.modifiers.awq import AWQModifier as Modifier
    else:
        from llmcompressor.modifiers.quantization import GPTQModifier as Modifier
    rows = [[*row.prompt, *row.answer] for row in read_rows(folder, job.rows)]
    causal = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", device_map=_device())
    scheme = SCHEME if job.kind == "awq" else "W4A16"
    data = Dataset.from_list([{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows])
    oneshot(
        model=causal,
        dataset=data,
        recipe=[Modifier(targets=["Linear"], scheme=scheme, ignore=["lm_head"])],
        num_calibration_samples=len(rows),
    )
    return causal
