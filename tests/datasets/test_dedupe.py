"""Duplicates on a real engine: clusters keep one, facts are kept, doing it twice changes nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from noria.backends.spark import session
from noria.datasets import dedupe
from noria.datasets.dedupe import SIMILAR, near, similar, without
from noria.datasets.shingles import jaccard, word_shingles
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


def planted(similarity: float, count: int) -> list[tuple[str, str, float]]:
    """Pairs of texts that differ in some words, and the similarity that each pair has."""
    draw = random.Random(int(similarity * 100))
    made = []
    for _ in range(count):
        words = [f"w{draw.randrange(50_000)}" for _ in range(100)]
        edits = max(1, round(len(words) * (1 - similarity) / (3 * (1 + similarity))))
        other = list(words)
        for place in draw.sample(range(len(words)), edits):
            other[place] = f"v{draw.randrange(50_000)}"
        left, right = " ".join(words), " ".join(other)
        made.append((left, right, jaccard(word_shingles(left), word_shingles(right))))
    return made


@pytest.mark.slow
def test_planted_pairs_are_found_and_others_are_left_alone(spark: SparkSession, tmp_path: Path) -> None:
    close = [pair for at in (0.82, 0.86, 0.9, 0.95) for pair in planted(at, 250) if pair[2] >= 0.8]
    related = planted(0.5, 300)
    assert len(close) > 900
    assert all(pair[2] < SIMILAR for pair in related)
    texts = [text for pair in (*close, *related) for text in pair[:2]]
    left = {text for _, text in kept(spark, [("a", text) for text in texts], tmp_path, {})}
    assert sum(not (one in left and other in left) for one, other, _ in close) >= 0.99 * len(close)
    assert all(one in left or other in left for one, other, _ in close)
    assert all(one in left and other in left for one, other, _ in related)


@pytest.mark.slow
def test_a_flood_of_one_template_leaves_one_of_each_of_its_texts(spark: SparkSession, tmp_path: Path) -> None:
    form = " ".join(f"line{n} of the form that all letters share" for n in range(25))
    draw = random.Random(2)
    own = [" ".join(f"name{draw.randrange(10**6)}" for _ in range(60)) for _ in range(300)]
    letters = [f"{form} {text}{end}" for text in own for end in ("", ".", " !", " indeed")]
    pair = [word_shingles(letter) for letter in (letters[0], letters[4])]
    assert 0.3 < jaccard(*pair) < SIMILAR
    left = kept(spark, [("a", letter) for letter in letters], tmp_path, {})
    assert len(left) == len(own)


@pytest.mark.slow
def test_how_rows_and_pairs_are_spread_changes_nothing(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = planted(0.75, 150)
    rows = pa.table(
        {
            "id": [digest_of([side, number]) for number in range(150) for side in "ab"],
            "source": ["a"] * 300,
            "text": [text for pair in pairs for text in pair[:2]],
            "fields": ["{}"] * 300,
        }
    )
    found = []
    for number, parts in enumerate((1, 7)):
        folder = tmp_path / f"{number}"
        (folder / "in").mkdir(parents=True)
        for part in range(parts):
            places = list(range(part, 300, parts))[:: -1 if parts > 1 else 1]
            pq.write_table(rows.take(places), folder / "in" / f"{part}.parquet")
        losers = near(spark, spark.read.parquet(str(folder / "in")), {}, folder / "scratch")
        found.append(sorted(losers.toArrow()["id"].to_pylist()))
        monkeypatch.setattr(dedupe, "PAIRS", 40)
    assert found[0] == found[1]
    assert 100 < len(found[0]) <= 150


@pytest.mark.slow
def test_nothing_and_empty_texts(spark: SparkSession, tmp_path: Path) -> None:
    schema = "id string, source string, text string, fields string"
    assert near(spark, spark.createDataFrame([], schema), {}, tmp_path / "none").isEmpty()
    assert len(kept(spark, [("a", ""), ("a", ""), ("a", "?")], tmp_path / "empty", {})) == 2


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
