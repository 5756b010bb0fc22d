"""Recipe `dpo`: a low-rank adapter learns from what people preferred (Rafailov et al. 2023, arXiv 2305.18290).

Its rows are the dataset's preference pairs: corrections over what they correct, liked answers over disliked ones. It
goes on from the champion's adapter where there is one, and that is the reference too.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from noria import prompts
from noria.errors import Invalid
from noria.ports import Tokenizer
from noria.stage import Work
from noria.training import plan, weights
from noria.training.recipes.lora import check, observes
from noria.types import Message

__all__ = ["check", "make", "observes"]

SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.int8()))])
"""Rows 2n and 2n+1 are the preferred and the other answer to the same prompt."""


def make(work: Work) -> Mapping[str, JsonValue]:
    """Train on the pairs that fit into the recipe's `max_length`; raises Invalid where there are too few."""
    folder = weights.dataset_of(work)
    pairs = pq.read_table(folder / "pairs.parquet").to_pylist() if folder else []
    tokenizer = work.platform.tokenizer(work.platform.model(work.task.base))
    rows = [(pair, tokens) for pair in pairs if (tokens := _tokens(pair, work, tokenizer)) is not None]
    if not rows:
        raise Invalid(
            f"'{work.name}' has no preference pairs to learn from",
            "gather feedback: corrections, or thumbs up and down on answers to the same question",
        )
    planned = [
        plan.Row(2 * number, sum(len(each["input_ids"]) for each in both), True, False)
        for number, (_, both) in enumerate(rows)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        flat = [each for _, both in rows for each in both]
        pq.write_table(pa.Table.from_pylist(flat, schema=SCHEMA), Path(scratch) / "features.parquet")
        return weights.learn(work, Path(scratch), planned, [pair["conversation"] for pair, _ in rows], paired=True)


def _tokens(pair: Mapping[str, Any], work: Work, tokenizer: Tokenizer) -> list[dict[str, list[int]]] | None:
    """Both answers with their prompt as rows; None where one is too long."""
    messages = [Message.model_validate(message) for message in json.loads(pair["messages"])]
    prompt = tokenizer.prompt(prompts.render(work.task.system, messages, pair["context"]))
    rows = []
    for name in ("chosen", "rejected"):
        answer = tokenizer.answer(prompts.answer_part(pair[name]))
        if len(prompt) + len(answer) > work.task.recipe.max_length:
            return None
        rows.append({"input_ids": prompt + answer, "loss_mask": [0] * len(prompt) + [1] * len(answer)})
    return rows
