"""Token ids of examples: the same rows and bytes here and on the data engine, and the tokens that serving sends."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from feature_rows import START, example, given, platform_in, tokenizer_in, work_on

from noria import prompts
from noria.backends.spark import session
from noria.errors import Invalid
from noria.features import tokenise

if TYPE_CHECKING:
    from noria.ports import Platform

SERVER = """
import sys
sys.modules["noria"] = None
from pysail.spark import SparkConnectServer
server = SparkConnectServer("127.0.0.1", 0)
server.start(background=True)
print(server.listening_address[1], flush=True)
sys.stdin.read()
server.stop()
"""


def made(platform: Platform, rows: int, engine_rows: int, timed: int = 0) -> tuple[dict[str, object], Path]:
    work = work_on(platform, [example(n, "context" if n % 3 else None) for n in range(rows)], timed)
    return dict(tokenise.work(work, engine_rows=engine_rows)), work.out / "features.parquet"


def test_rows_say_what_is_learned_where_they_come_from_and_when(tmp_path: Path) -> None:
    counts, file = made(platform_in(tmp_path), 40, 1000, timed=3)
    table = pq.read_table(file)
    assert table.schema.equals(tokenise.SCHEMA)
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert counts["rows"] == len(rows)
    assert counts["too_long"] == 40 - len(rows) > 0
    assert counts["tokens"] == sum(row["tokens"] for row in rows)
    assert counts["learned"] == sum(sum(row["loss_mask"]) for row in rows)
    for row in rows:
        assert len(row["input_ids"]) == len(row["attention_mask"]) == len(row["loss_mask"]) == row["tokens"] <= 110
        assert row["attention_mask"] == [1] * row["tokens"]
        assert row["split"] == "train"
        assert row["document"] == "d" * 16
    assert {row["id"]: row["at"] for row in rows}[example(0).id] == START
    assert sum(row["at"] is not None for row in rows) <= 3


def test_training_learns_the_tokens_that_serving_sends(tmp_path: Path) -> None:
    platform = platform_in(tmp_path)
    tokenizer, (_, task) = platform.tokenizer(tmp_path), platform.settings.task(None)
    examples = [example(n, "[Answer] no\n#### ü" if n % 2 else None) for n in range(10)]
    work = work_on(platform, examples)
    tokenise.work(work)
    found = {row["id"]: row for row in pq.read_table(work.out / "features.parquet").to_pylist()}
    for each in examples:
        if each.id in found:
            served = tokenizer.prompt(prompts.render(task.system, each.messages, each.context))
            answer = tokenizer.answer(prompts.answer_part(each.target))
            assert found[each.id]["input_ids"] == served + answer
            assert found[each.id]["loss_mask"] == [0] * len(served) + [1] * len(answer)


def test_the_tokenizer_is_part_of_the_version(tmp_path: Path) -> None:
    one, other = tokenizer_in(tmp_path / "a"), tokenizer_in(tmp_path / "b")
    assert one.digest == other.digest
    assert tokenise.version(one.digest, "p") != tokenise.version("other", "p")
    assert tokenise.version(one.digest, "p") != tokenise.version(one.digest, "q")


def test_rows_that_are_all_too_long_are_refused(tmp_path: Path) -> None:
    work = work_on(platform_in(tmp_path), [example(1, "x" * 200)])
    with pytest.raises(Invalid, match="fits into 110 tokens"):
        tokenise.work(work)


def test_row_groups_do_not_depend_on_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenise, "GROUP", 7)
    platform = platform_in(tmp_path)
    _, file = made(platform, 50, 1000)
    before = file.read_bytes()
    monkeypatch.setattr(tokenise, "BATCH", 3)
    _, again = made(platform, 50, 1000)
    assert again.read_bytes() == before
    assert pq.read_metadata(again).num_row_groups > 3


@pytest.mark.slow
def test_the_engine_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenise, "RANGE", 100)
    monkeypatch.setattr(tokenise, "GROUP", 64)
    with session("embedded") as spark:
        platform = platform_in(tmp_path, partial(given, spark))
        counts, file = made(platform, 500, 10_000, timed=20)
        before = file.read_bytes()
        again, file = made(platform, 500, 1, timed=20)
    assert again == counts
    assert file.read_bytes() == before
    assert sorted(each.name for each in file.parent.iterdir()) == ["features.parquet"]


@pytest.mark.slow
def test_workers_need_no_noria(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        platform = platform_in(tmp_path, partial(session, f"sc://127.0.0.1:{port}"))
        counts, file = made(platform, 300, 1, timed=5)
        server.communicate("")
    there = file.read_bytes()
    again, file = made(platform, 300, 10_000, timed=5)
    assert (again, file.read_bytes()) == (counts, there)
