"""The same stages on Sail and on a real Spark cluster give the same rows, of bad input too: `make conformance-spark`.

The cluster is a standalone master, a worker and a Connect server on loopback, in an environment where noria is not
installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from noria.backends.folder_lake import FolderLake
from noria.backends.spark import session
from noria.datasets import clean, semantic
from noria.datasets.dedupe import near
from noria.lake import collect
from noria.ports import Platform
from noria.settings import load
from noria.stage import Work
from noria.types import Artifact, digest_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Batches = Iterator[pa.RecordBatch]

START_SECONDS = 180.0
MASTER = "org.apache.spark.deploy.master.Master"
WORKER = "org.apache.spark.deploy.worker.Worker"
CONNECT = "org.apache.spark.sql.connect.service.SparkConnectServer"
TOML = """
[project]
name = "shop"
[runtime]
spark = "{address}"
[engines.local]
kind = "llamacpp"
model = "none"
[[sources]]
name = "chats"
kind = "csv"
path = "chats.csv"
map = {{ question = "question", answer = "answer" }}
[[sources]]
name = "notes"
kind = "jsonl"
path = "notes.jsonl"
[tasks.help]
sources = ["chats", "notes"]
base = "none"
engine = "local"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cluster:
    """Three processes of Spark, each in a group of its own, and one log."""

    def __init__(self, environment: Path, scratch: Path) -> None:
        self._home = next(environment.glob("lib/python*/site-packages/pyspark"))
        self._log = scratch / "spark.log"
        variables = {
            "SPARK_HOME": self._home, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_NO_DAEMONIZE": "1",
            "SPARK_LOCAL_DIRS": scratch / "local", "SPARK_WORKER_DIR": scratch / "work",
            "PYSPARK_PYTHON": environment / "bin" / "python",
        }  # fmt: skip
        # Workers find what their own environment has, and nothing of this one's.
        self._env = ["env", "-u", "PYTHONPATH", *(f"{name}={value}" for name, value in variables.items())]
        self._scratch = scratch
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> str:
        """Start all three; the address for clients."""
        master, connect = free_port(), free_port()
        place = ("--host", "127.0.0.1", "--webui-port", "0")
        self._run("bin/spark-class", MASTER, *place, "--port", str(master), listens=master)
        url = f"spark://127.0.0.1:{master}"
        self._run("bin/spark-class", WORKER, *place, "--cores", "2", "--memory", "2g", url)
        settings = {
            "spark.connect.grpc.binding.address": "127.0.0.1", "spark.connect.grpc.binding.port": str(connect),
            "spark.driver.host": "127.0.0.1", "spark.executor.memory": "1g", "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": "4", "spark.sql.warehouse.dir": str(self._scratch / "warehouse"),
        }  # fmt: skip
        conf = [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
        self._run("bin/spark-submit", "--master", url, "--class", CONNECT, *conf, "spark-internal", listens=connect)
        return f"sc://127.0.0.1:{connect}"

    def stop(self) -> None:
        """End the processes that were started, the last one first."""
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _run(self, command: str, *arguments: str, listens: int | None = None) -> None:
        with self._log.open("ab") as log:
            line = [*self._env, str(self._home / command), *arguments]
            process = subprocess.Popen(line, stdout=log, stderr=log, cwd=self._scratch, process_group=0)
        self._processes.append(process)
        end = time.monotonic() + START_SECONDS
        while listens is not None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", listens), timeout=1):
                return
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command} does not start:\n{self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.25)


@pytest.fixture(scope="module")
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a cluster."""
    environment = request.config.getoption("--spark")
    if environment is None:
        pytest.skip("make conformance-spark")
    cluster = Cluster(Path(environment), tmp_path_factory.mktemp("spark"))
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def cluster(address: str) -> Iterator[SparkSession]:
    with session(address) as opened:
        yield opened


@pytest.fixture(scope="module")
def sail() -> Iterator[SparkSession]:
    with session("embedded") as opened:
        yield opened


class Quiet:
    """Progress that nobody watches."""

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        assert done <= total


def make_sources(root: Path) -> None:
    """Chats and notes with exact and near duplicates, text of several scripts, and rows that are broken."""
    draw = random.Random(5)
    pool = [f"{word}{n}" for n in range(300) for word in ("river", "Mühle", "колесо", "水")]
    texts = [" ".join(draw.choices(pool, k=70)) for _ in range(400)]
    texts += [text.replace(" ", "  ") for text in texts[:60]]
    texts += [" ".join([*text.split(" ")[:-2], "another", "end"]) for text in texts[60:120]]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    lines[7:7] = ['{"text": "the line breaks off', "[1, 2]", ""]
    (root / "notes.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows = [f"Where is order {n}?;It is on its way, number {n}." for n in range(20)]
    rows += ["Where is  order 3?;It is on its way, number 3!", "one;two;three", 'a;"never closed']
    (root / "chats.csv").write_text("question;answer\n" + "\n".join(rows), encoding="utf-8")


def documents(address: str, root: Path) -> tuple[dict[str, object], list[dict[str, object]]]:
    """What the stages `sources` and `documents` make of a project: what they say, and the rows."""
    (root / "noria.toml").write_text(TOML.format(address=address), encoding="utf-8")
    settings = load(root / "noria.toml")
    lake = FolderLake(root / "lake")
    spark: Callable[[], AbstractContextManager[SparkSession]] = partial(session, settings.runtime.spark)

    class Silent:
        """Traffic of a task that nobody has asked yet."""

        def read(self, mark: object) -> tuple[list[object], list[object]]:
            return [], []

    used = {"settings": settings, "lake": lake, "spark": spark, "traffic": Silent()}
    parts: dict[str, Any] = {part.name: used.get(part.name) for part in fields(Platform)}
    inputs: dict[str, Artifact] = {}
    for name, work in (("sources", collect.work), ("documents", clean.work)):
        out = lake.scratch(name)
        done = Work(Platform(**parts), "help", settings.tasks["help"], "c1", inputs, None, out, Quiet())
        said = work(done)
        inputs[name] = Artifact(ref=lake.commit(out, name, "help"), parents=(), run_key=digest_of(name), meta={})
    table = ds.dataset(lake.path(inputs["documents"].ref) / "documents.parquet").to_table()
    return dict(said), table.sort_by("id").to_pylist()


def test_the_stages_make_the_same_documents(address: str, tmp_path: Path) -> None:
    found = []
    for name, where in (("sail", "embedded"), ("spark", address)):
        root = tmp_path / name
        root.mkdir()
        make_sources(root)
        found.append(documents(where, root))
    assert found[0] == found[1]
    assert 400 < len(found[0][1]) < 480


def test_what_means_the_same_goes(sail: SparkSession, cluster: SparkSession, tmp_path: Path) -> None:
    """On both engines texts come in the same order, and long ones are left alone."""
    said = [f"{word * 5} {number % 3}" for number, word in enumerate(("ja", "nein", "früh", "日本") * 40)]
    ids = [digest_of(number) for number in range(160)]
    texts = [*said[:-8], *(text * 200 for text in said[-8:])]
    buckets = [int(name[0], 16) for name in ids]
    table = pa.table({"id": ids, "source": ["a", "b"] * 80, "text": texts, "bucket": pa.array(buckets, pa.int32())})
    seen: list[list[str]] = []

    def embed(texts: Sequence[str]) -> list[list[float]]:
        seen[-1] += texts
        return [[float(text.startswith(word)) for word in ("ja", "nein", "früh", "日本")] for text in texts]

    found = []
    for name, spark in (("sail", sail), ("spark", cluster)):
        seen.append([])
        (tmp_path / name).mkdir()
        documents = spark.createDataFrame(table)
        found.append(semantic.alike(documents, embed, 0.95, 1000, tmp_path / name, lambda done, of: None))
    assert seen[0] == seen[1]
    assert found[0] == found[1]
    # Four words, each with three numbers and in one source.
    assert (len(found[0].ids), found[0].alone) == (152 - 12, 8)


def test_workers_do_without_noria(cluster: SparkSession) -> None:
    def look(batches: Batches) -> Batches:
        import importlib.util

        there = importlib.util.find_spec("noria") is not None
        for batch in batches:
            yield pa.RecordBatch.from_pydict({"there": [there] * batch.num_rows})

    assert [row["there"] for row in cluster.range(2).mapInArrow(look, "there boolean").collect()] == [False, False]


def broken_line(spark: SparkSession, folder: Path) -> DataFrame:
    from pyspark.sql import functions as F

    (folder / "lines.jsonl").write_text('{"a": 1}\n{"a": \n{"a": "x"}\n', encoding="utf-8")
    lines = spark.read.text(str(folder / "lines.jsonl"))
    return lines.select(F.from_json("value", "a int").alias("row")).selectExpr("row.a as a")


def overflow(spark: SparkSession, folder: Path) -> DataFrame:
    rows = spark.createDataFrame(pa.table({"n": [2**63 - 1, 1]}))
    return rows.selectExpr("cast(n as decimal(38, 0)) as n").groupBy().agg({"n": "sum"}).toDF("n")


def bad_cast(spark: SparkSession, folder: Path) -> DataFrame:
    rows = spark.createDataFrame(pa.table({"s": ["12", "twelve", "99999999999"]}))
    return rows.selectExpr("try_cast(s as int) as n")


def ragged_row(spark: SparkSession, folder: Path) -> DataFrame:
    def parse(batches: Batches) -> Batches:
        import csv

        for batch in batches:
            rows = list(csv.reader(batch.column(0).to_pylist(), delimiter=";"))
            counts = [len(row) for row in rows]
            yield pa.RecordBatch.from_pydict({"first": [row[0] for row in rows], "n": pa.array(counts, pa.int64())})

    (folder / "ragged.csv").write_text("a;b\nc;d;e\nf\n", encoding="utf-8")
    return spark.read.text(str(folder / "ragged.csv")).mapInArrow(parse, "first string, n long")


def leading_zero(spark: SparkSession, folder: Path) -> DataFrame:
    table = pa.table({"text": ["a", "b"], "part": ["00", "07"]})
    spark.createDataFrame(table).write.mode("overwrite").partitionBy("part").parquet(str(folder / "parts"))
    return spark.read.parquet(str(folder / "parts")).select("text", "part")


def empty_batch(spark: SparkSession, folder: Path) -> DataFrame:
    schema = "id string, source string, text string, fields string"
    return near(spark, spark.createDataFrame([], schema), {}, folder / "near")


def near_of_two_columns(spark: SparkSession, folder: Path) -> DataFrame:
    rows = [("what about it", "an answer of a few words"), ("What about it?", "an answer of a few words!"), ("", "")]
    table = pa.table(
        {
            "id": [digest_of(list(row)) for row in rows],
            "source": ["a"] * 3,
            "text": ["|".join(row) for row in rows],
            "fields": [json.dumps(dict(zip("qa", row, strict=True))) for row in rows],
        }
    )
    return near(spark, spark.createDataFrame(table), {"a": ("q", "a")}, folder / "near")


CASES = (broken_line, overflow, bad_cast, ragged_row, leading_zero, empty_batch, near_of_two_columns)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_bad_input_is_the_same_everywhere(
    case: Callable[[SparkSession, Path], DataFrame], sail: SparkSession, cluster: SparkSession, tmp_path: Path
) -> None:
    found: list[Sequence[dict[str, object]]] = []
    for name, spark in (("sail", sail), ("spark", cluster)):
        (tmp_path / name).mkdir()
        found.append(sorted(case(spark, tmp_path / name).toArrow().to_pylist(), key=str))
    assert found[0] == found[1]
    assert found[0] or case is empty_batch
