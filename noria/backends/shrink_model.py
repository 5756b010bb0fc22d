"""Models in the process that shrinks: opened from a GGUF file or a folder, and written as both."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from noria.backends import gguf_folder, gguf_model, gguf_weights
from noria.backends.chat_tokenizer import ChatTokenizer
from noria.backends.scratch import temporary
from noria.backends.shrink_job import TextRow
from noria.errors import Invalid

LONGEST = 512
"""Tokens of a row that are read."""
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


class Read:
    """A row as token ids: its `prompt`, and its own `answer` (for plain text all that follows the first part)."""

    def __init__(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        self.prompt = list(prompt)
        self.answer = list(answer)


def quiet() -> None:
    """Make the libraries of this process silent and their results repeatable."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)


def opened(model: Path) -> Any:
    """A model on the processor in float32, or as its folder's quantization says; raises Invalid."""
    import torch
    from transformers import AutoModelForCausalLM

    if model.is_file():
        return gguf_weights.load(model)
    if not (model / "config.json").is_file():
        raise Invalid(f"'{model.name}' is no Hugging Face folder: it has no config.json", "name a whole one")
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa").eval()


def write_tokenizer(model: Path, out: Path) -> None:
    """Write a model's tokenizer and chat template into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    if model.is_file():
        gguf_weights.write_tokenizer(model, out)
        return
    for name in _TOKENIZER:
        if (model / name).is_file():
            shutil.copyfile(model / name, out / name)


def read_rows(model: Path, rows: Sequence[TextRow]) -> list[Read]:
    """The rows as the model's own tokenizer and chat template make them, cut after `LONGEST` tokens."""
    with temporary("noria-tokenizer.") as folder:
        write_tokenizer(model, folder)
        tokenizer = ChatTokenizer(folder)
    found = []
    for row in rows:
        if row.text:
            tokens = tokenizer.answer(row.text)[:-1][:LONGEST]
            start = min(32, len(tokens) // 2)
            found.append(Read(tokens[:start], tokens[start:]))
        else:
            prompt = tokenizer.prompt(row.messages)[:LONGEST]
            found.append(Read(prompt, tokenizer.answer(row.answer)[: LONGEST - len(prompt)] if row.answer else ()))
    return [each for each in found if each.prompt]


def write(causal: Any, source: Path, out: Path | None, file: Path | None, kind: str) -> None:
    """Write a model as a folder with the source's tokenizer, and as a GGUF file of this kind; no path goes in."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        causal.config._name_or_path = ""
        causal.save_pretrained(out)
        write_tokenizer(source, out)
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: each.detach() for name, each in causal.named_parameters()}
    if source.is_file():
        gguf_model.write(source, tensors, file, kind)
        return
    with temporary("noria-head.") as folder:
        gguf_folder.write_head(source, folder / "head.gguf")
        gguf_model.write(folder / "head.gguf", tensors, file, kind)
