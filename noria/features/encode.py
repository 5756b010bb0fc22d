"""Training examples for an encoder: token ids of the text alone, by the encoder's own tokenizer, with their classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from noria import prompts
from noria.errors import Invalid
from noria.ports import Tokenizer
from noria.stage import Look, Work
from noria.types import Message, digest_of

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("origin", pa.string()),
        ("slice", pa.string()),
        ("group", pa.string()),
        ("text", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("attention_mask", pa.list_(pa.int8())),
        ("tokens", pa.int32()),
        ("target", pa.string()),
    ]
)
"""One row an example, in order of ids; both lists have the length `tokens`. Rows of a `group` are never parted."""


def params(look: Look) -> JsonValue:
    """What changes the rows: the tokenizer and the longest row. There is no prompt around the text."""
    tokenizer = look.platform.tokenizer(look.platform.model(look.task.base))
    return {"kind": "encoder", "tokenizer": tokenizer.digest, "max_length": look.task.recipe.max_length}


def work(work: Work) -> Mapping[str, JsonValue]:
    """Write `features.parquet`; rows longer than the recipe's `max_length` are left out and counted."""
    tokenizer = work.platform.tokenizer(work.platform.model(work.task.base))
    examples = pq.read_table(work.folder("dataset") / "train.parquet").to_pylist()
    rows = [row(example, tokenizer) for example in examples]
    longest = work.task.recipe.max_length
    kept = sorted((each for each in rows if each["tokens"] <= longest), key=lambda each: str(each["id"]))
    if not kept:
        raise Invalid(
            f"no training row of '{work.name}' fits into {longest} tokens",
            f"raise max_length in {work.platform.settings.place('tasks', work.name, 'recipe')}",
        )
    pq.write_table(pa.Table.from_pylist(kept, schema=SCHEMA), work.out / "features.parquet")
    return {"rows": len(kept), "too_long": len(rows) - len(kept), "tokens": sum(each["tokens"] for each in kept)}


def row(example: Mapping[str, str], tokenizer: Tokenizer) -> dict[str, Any]:
    """A row of `train.parquet` as a row of the features."""
    messages = [Message.model_validate(message) for message in json.loads(example["messages"])]
    ids = tokenizer.prompt(messages)
    return {
        "id": example["id"],
        "origin": example["origin"],
        "slice": example["slice"],
        "group": digest_of([example["origin"], example["conversation"]]),
        "text": prompts.plain(messages),
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "tokens": len(ids),
        "target": example["target"],
    }
