"""Examples, a small tokenizer of their words, and a platform that has nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.backends.chat_tokenizer import ChatTokenizer
from noria.backends.folder_lake import FolderLake
from noria.datasets.rows import write_examples, write_times
from noria.ports import Platform
from noria.settings import load
from noria.stage import Work
from noria.types import Artifact, Example, Message, digest_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = datetime(2026, 1, 1, tzinfo=UTC)
TOML = """
[project]
name = "shop"
[engines.local]
kind = "llamacpp"
model = "none"
[[sources]]
name = "faq"
kind = "csv"
path = "faq.csv"
[tasks.help-desk]
sources = ["faq"]
base = "none"
engine = "local"
system = "Be kind."
recipe = { kind = "lora", max_length = 110 }
"""
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


class Quiet:
    """Port `Progress` that tells nobody."""

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        pass


def tokenizer_in(folder: Path) -> ChatTokenizer:
    """A tokenizer whose tokens are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab={**letters, "<end>": len(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, "eos_token": "<end>"}))
    return ChatTokenizer(folder)


def example(number: int, context: str | None = None) -> Example:
    question, answer = f"q {number}?", "a" * (number % 30)
    return Example(
        id=digest_of(["example", number]), origin="source:faq", slice="task", conversation=f"c{number}",
        messages=(Message(role="user", content=question),), context=context, target=answer, split="train",
        document="d" * 16,
    )  # fmt: skip


def platform_in(
    root: Path, spark: Callable[[], AbstractContextManager[SparkSession]] | None = None, **more: Any
) -> Platform:
    (root / "noria.toml").write_text(TOML)
    tokenizer = tokenizer_in(root / "tokenizer")
    used: dict[str, Any] = {
        "settings": load(root / "noria.toml"), "lake": FolderLake(root / "lake"), "spark": spark,
        "model": Path, "tokenizer": lambda model: tokenizer, **more,
    }  # fmt: skip
    parts: dict[str, Any] = {part.name: used.get(part.name) for part in fields(Platform)}
    return Platform(**parts)


def work_on(platform: Platform, examples: Sequence[Example], timed: int = 0) -> Work:
    """Features of these examples are to be made; the first `timed` of them were said a day after the other."""
    folder = platform.lake.scratch("dataset")
    write_examples(examples, folder / "train.parquet")
    write_times(
        {each.id: START + timedelta(days=n) for n, each in enumerate(examples[:timed])}, folder / "times.parquet"
    )
    ref = platform.lake.commit(folder, "dataset", "help-desk")
    out = platform.lake.scratch("features")
    inputs = {"dataset": Artifact(ref=ref, parents=(), run_key="0" * 16)}
    name, task = platform.settings.task(None)
    return Work(platform, name, task, "cycle", inputs, None, out, Quiet())


@contextmanager
def given(spark: SparkSession) -> Iterator[SparkSession]:
    """A session that is there already."""
    yield spark
