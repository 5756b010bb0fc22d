"""Spark sessions: embedded, attached, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import noria
from noria.backends.spark import session
from noria.datasets import boilerplate, parts, steps
from noria.datasets.schema import DOCUMENTS
from noria.errors import Invalid, Unavailable
from noria.settings import STEPS, options_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

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

LENIENT: dict[str, dict[str, object]] = {
    "language": {"keep": ["en"]},
    "c4": {"terminal": False, "min_line_words": 0, "min_sentences": 0},
    "gopher": {"min_words": 0, "min_word_length": 0, "min_stop_words": 1, "stop_words": {"en": ["a"]}},
}
ALL = [boilerplate.boilerplate({"s": frozenset({"x"})})] + [
    steps.ROWS[name](**options_of(STEPS[name].model_validate({"step": name, **LENIENT.get(name, {})})))
    for name in steps.ROWS
    if name != "boilerplate"
]
"""Every step that goes row by row, with options that let a short text pass."""

SPILLING = """
from noria.backends.spark import session
with session("embedded") as spark:
    rows = spark.range(3_000_000).selectExpr("id", "xxhash64(id) as hash")
    placed = rows.selectExpr("row_number() over (order by hash) as place")
    print(rows.groupBy("hash").count().count(), placed.where("place > 0").count())
"""


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    with session("embedded") as opened:
        yield opened


@pytest.mark.slow
def test_embedded_sessions_come_and_go() -> None:
    for _ in range(2):
        with session("embedded") as opened:
            assert opened.range(3).count() == 3


@pytest.mark.slow
def test_partitions_keep_their_zeros(spark: SparkSession, tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "part": ["00", "01"]})
    spark.createDataFrame(table).write.partitionBy("part").parquet(str(tmp_path / "t"))
    parts = spark.read.parquet(str(tmp_path / "t")).toArrow()["part"].to_pylist()
    assert sorted(parts) == ["00", "01"]


@pytest.mark.slow
def test_a_server_without_noria_runs_all_steps(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            with session(f"sc://127.0.0.1:{port}") as opened:
                values = {name: ["ab" * 8] for name in DOCUMENTS.names}
                values |= {"source": ["s"], "text": ["a  b"], "fields": ['{"x": "ﬁ"}']}
                table = pa.table({**values, "offset": [1]}, schema=DOCUMENTS.remove_metadata())
                rows = steps.cleaned(opened.createDataFrame(table), ALL, 1, digest=True)
                rows.write.parquet(str(tmp_path / "cleaned"))
                assert parts.write(opened, tmp_path / "cleaned", [], (1, 1), tmp_path / "t.parquet") == 1
            (row,) = pq.read_table(tmp_path / "t.parquet").to_pylist()
            assert (row["text"], row["fields"]) == ("a b", '{"x": "fi"}')
        finally:
            server.stdin.close()
            server.wait(timeout=30)


@pytest.mark.slow
def test_what_does_not_fit_into_memory_is_spilled(tmp_path: Path) -> None:
    (tmp_path / "spilling.py").write_text(SPILLING)
    command = [sys.executable, str(tmp_path / "spilling.py")]
    small = [
        "env",
        f"SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE={32 << 20}",
        f"PYTHONPATH={Path(noria.__path__[0]).parent}",
    ]
    done = subprocess.run([*small, *command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3000000", "3000000"]
    no_room = [*small, "SAIL_RUNTIME__TEMPORARY_FILES__MAX_SIZE=0"]
    done = subprocess.run([*no_room, *command], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "exhausted" in done.stderr.casefold()


def test_an_unknown_address_is_refused() -> None:
    with pytest.raises(Invalid, match="'local' is no Spark address"), session("local"):
        pass
    with pytest.raises(Invalid, match="has no valid port"), session("sc://host:port"):
        pass


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="no Spark Connect server answers at"), session("sc://127.0.0.1:9"):
        pass
