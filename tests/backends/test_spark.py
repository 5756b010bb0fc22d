"""Spark sessions: embedded, attached, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

import noria
from noria.backends.spark import session
from noria.datasets.normalise import cleaner
from noria.errors import Invalid, Unavailable

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
def test_a_server_without_noria_runs_its_functions() -> None:
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            with session(f"sc://127.0.0.1:{port}") as opened:
                table = pa.table({"source": ["s"], "text": ["a  b"], "fields": ['{"x": "ﬁ"}']})
                schema = "source string, text string, fields string, sha string, speaks boolean"
                rows = opened.createDataFrame(table).mapInArrow(cleaner({}), schema).toArrow().to_pylist()
            assert [(row["text"], row["fields"], row["speaks"]) for row in rows] == [("a b", '{"x": "fi"}', True)]
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
    assert "Resources exhausted" in done.stderr


def test_an_unknown_address_is_refused() -> None:
    with pytest.raises(Invalid, match="'local' is no Spark address"), session("local"):
        pass
    with pytest.raises(Invalid, match="has no valid port"), session("sc://host:port"):
        pass


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="no Spark Connect server answers at"), session("sc://127.0.0.1:9"):
        pass
