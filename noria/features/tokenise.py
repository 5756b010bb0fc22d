"""The stage `features`: training examples become token ids, with a mask that says what is learned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from noria import prompts
from noria.errors import Invalid
from noria.features import encode
from noria.ports import Tokenizer
from noria.stage import Look, Work
from noria.types import Message

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("origin", pa.string()),
        ("slice", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("attention_mask", pa.list_(pa.int8())),
        ("loss_mask", pa.list_(pa.int8())),
        ("tokens", pa.int32()),
    ]
)
"""One row an example; the three lists have the length `tokens`. In `loss_mask` 1 marks answer, terminator and end."""


def params(look: Look) -> JsonValue:
    """What changes the tokens: the tokenizer, the prompt definition and the longest row."""
    if look.task.recipe.kind == "encoder":
        return encode.params(look)
    tokenizer = look.platform.tokenizer(look.platform.model(look.task.base))
    return {
        "tokenizer": tokenizer.digest,
        "prompt": prompts.definition(look.task.system),
        "max_length": look.task.recipe.max_length,
    }


def work(work: Work) -> Mapping[str, JsonValue]:
    """Write `features.parquet`; rows longer than the recipe's `max_length` are left out and counted."""
    if work.task.recipe.kind == "encoder":
        return encode.work(work)
    tokenizer = work.platform.tokenizer(work.platform.model(work.task.base))
    examples = pq.read_table(work.folder("dataset") / "train.parquet").to_pylist()
    rows = [row(example, work.task.system, tokenizer) for example in examples]
    kept = [each for each in rows if each["tokens"] <= work.task.recipe.max_length]
    if not kept:
        raise Invalid(
            f"no training row of '{work.name}' fits into {work.task.recipe.max_length} tokens",
            f"raise max_length in {work.platform.settings.place('tasks', work.name, 'recipe')}",
        )
    pq.write_table(pa.Table.from_pylist(kept, schema=SCHEMA), work.out / "features.parquet")
    tokens = sum(each["tokens"] for each in kept)
    learned = sum(sum(each["loss_mask"]) for each in kept)
    return {"rows": len(kept), "too_long": len(rows) - len(kept), "tokens": tokens, "learned": learned}


def row(example: Mapping[str, str], system: str | None, tokenizer: Tokenizer) -> dict[str, Any]:
    """A row of `train.parquet` as a row of the features."""
    messages = [Message.model_validate(message) for message in json.loads(example["messages"])]
    prompt = tokenizer.prompt(prompts.render(system, messages, example["context"]))
    answer = tokenizer.answer(prompts.answer_part(example["target"]))
    length = len(prompt) + len(answer)
    return {
        "id": example["id"],
        "origin": example["origin"],
        "slice": example["slice"],
        "input_ids": prompt + answer,
        "attention_mask": [1] * length,
        "loss_mask": [0] * len(prompt) + [1] * len(answer),
        "tokens": length,
    }
