"""Duplicates on a real engine: clusters keep one, facts are kept, doing it twice changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from noria.backends.spark import session
from noria.datasets.dedupe import near, similar, without
from noria.types import digest_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RULE = "You may return it within 30 days of receipt, unwashed"
PROSE = " ".join(f"word{n}" for n in range(80))


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    with session("embedded") as opened:
        yield opened


def kept(
    spark: SparkSession, rows: Sequence[tuple[str, str]], folder: Path, columns: Mapping[str, tuple[str, ...]]
) -> list[tuple[str, str]]:
    ids = [digest_of([source, text, number]) for number, (source, text) in enumerate(rows)]
    table = pa.table(
        {
            "id": ids,
            "source": [source for source, _ in rows],
            "text": [text for _, text in rows],
            "fields": [json.dumps(dict(zip("qa", text.partition("|")[::2], strict=True))) for _, text in rows],
        }
    )
    documents = spark.createDataFrame(table)
    losers = near(spark, documents, columns, folder)
    left = without(documents, losers).toArrow().sort_by("id").to_pylist()
    return [(row["source"], row["text"]) for row in left]


@pytest.mark.slow
def test_one_of_each_cluster_stays(spark: SparkSession, tmp_path: Path) -> None:
    rows = [("a", f"{PROSE} {'extra ' * n}end") for n in range(1, 6)] + [("a", "Something else entirely is said here")]
    rows += [("b", f"{PROSE} extra end")]
    left = kept(spark, rows, tmp_path, {})
    assert sorted(source for source, _ in left) == ["a", "a", "b"]
    assert ("a", "Something else entirely is said here") in left
    assert sorted(kept(spark, left, tmp_path, {})) == sorted(left)


@pytest.mark.slow
def test_question_and_answer_must_both_be_alike(spark: SparkSession, tmp_path: Path) -> None:
    answer = "Print the label from your orders and put it on the box before Friday, please"
    rows = [("a", f"How do I return it|{answer}"), ("a", f"how do I return it?|{answer}!"), ("a", f"Label|{answer}")]
    assert len(kept(spark, rows, tmp_path, {"a": ("q", "a")})) == 2


@pytest.mark.slow
def test_ten_answers_repeated_a_hundred_times_are_ten(spark: SparkSession, tmp_path: Path) -> None:
    texts = [
        f"My device number {n} makes a strange noise when it starts, which is {word}"
        for n, word in enumerate("abcdefghij")
    ]
    rows = [("a", text + "." * (turn % 3)) for turn in range(100) for text in texts]
    assert len(kept(spark, rows, tmp_path, {})) == 10


@pytest.mark.parametrize(
    ("left", "right", "alike"),
    [
        (RULE, RULE.replace("30", "40"), False),
        (RULE, RULE.upper().replace(",", ""), True),
        (f"{PROSE} page 1 of this text", f"{PROSE} page 2 of this text", True),
        ("Yes", "yes!", True),
        ("Yes", "No", False),
        ("?", "!", False),
        ("我的订单在哪里呢今天", "我的订单在哪里呢明天", False),
    ],
)  # fmt: skip
def test_when_two_texts_are_alike(left: str, right: str, alike: bool) -> None:
    assert similar((left,), (right,)) is alike
