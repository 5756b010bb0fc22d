"""The feature store: 100,000 examples tokenised, put into the history, joined as of a time, and read online.

SQLite is read in this process: what a read takes is its CPU time, which a busy machine does not change much. What Feast
joins is checked on a sample against a brute-force join. With --servers Redis and PostgreSQL are measured too. Run it
with `make bench-features`; it writes benchmarks/results/features.json.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import json
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from noria.backends import peft_trainer
from noria.backends.chat_tokenizer import ChatTokenizer
from noria.backends.feast_store import FeastStore
from noria.backends.folder_lake import FolderLake
from noria.backends.spark import session
from noria.datasets.rows import write_examples
from noria.features import tokenise, views
from noria.ports import FeatureView, Platform
from noria.settings import load
from noria.stage import Work
from noria.types import Artifact, Example, Message, digest_of
from noria.wiring import base_model

RESULTS = Path(__file__).with_name("results") / "features.json"
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
READ = 20
"""Rows that are read online at a time."""
TOML = """
[project]
name = "bench"
[engines.local]
kind = "llamacpp"
model = "smollm2-135m-instruct"
[[sources]]
name = "faq"
kind = "csv"
path = "faq.csv"
[tasks.help]
sources = ["faq"]
base = "smollm2-135m-instruct"
engine = "local"
system = "You answer customers' questions."
"""


class Quiet:
    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        pass


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measured(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    began, used = time.perf_counter(), cpu()
    result = work()
    return result, {"cpu_s": round(cpu() - used, 1), "wall_s": round(time.perf_counter() - began, 1)}


def examples(count: int) -> Iterator[Example]:
    """Questions and answers of real words; six in ten with a context."""
    words = [word for file in Path().glob("design/*.md") for word in file.read_text().split()]
    draw = random.Random(7)
    for number in range(count):
        text = [" ".join(draw.choices(words, k=k)) for k in (12, 30, 40)]
        yield Example(
            id=digest_of(["bench", number]), origin="source:faq", slice="task", conversation=f"c{number}",
            messages=(Message(role="user", content=text[0]),), context=text[2] if number % 10 < 6 else None,
            target=text[1], split="train",
        )  # fmt: skip


def tokenised(root: Path, count: int) -> tuple[Path, dict[str, Any]]:
    """The stage `features`, here and on the embedded data engine; both must write the same bytes."""
    (root / "noria.toml").write_text(TOML)
    settings, lake = load(root / "noria.toml"), FolderLake(root / "lake")
    trainer = peft_trainer.PeftTrainer(root / "models")
    tokenizer = ChatTokenizer(trainer.tokenizer(base_model("smollm2-135m-instruct")))
    used: dict[str, Any] = {
        "settings": settings, "lake": lake, "spark": partial(session, "embedded"), "model": Path,
        "tokenizer": lambda model: tokenizer,
    }  # fmt: skip
    platform = Platform(**{part.name: used.get(part.name) for part in fields(Platform)})
    folder = lake.scratch("dataset")
    write_examples(examples(count), folder / "train.parquet")
    inputs = {"dataset": Artifact(ref=lake.commit(folder, "dataset", "help"), parents=(), run_key="0" * 16)}
    work = Work(platform, "help", settings.tasks["help"], "c", inputs, None, lake.scratch("features"), Quiet())
    counts, here = measured(lambda: tokenise.work(work, engine_rows=count + 1))
    other = replace(work, out=lake.scratch("again"))
    _, engine = measured(lambda: tokenise.work(other, engine_rows=1))
    file = work.out / "features.parquet"
    same = file.read_bytes() == (other.out / "features.parquet").read_bytes()
    told = {
        "rows": counts["rows"], "tokens": counts["tokens"], "here": here, "embedded_engine": engine,
        "same_bytes": same, "tokens_per_cpu_s": round(int(str(counts["tokens"])) / here["cpu_s"]),
    }  # fmt: skip
    return file, told


def two_versions(file: Path) -> pa.Table:
    """A history: every row when it was said, within a hundred days, and half of them again, changed, later."""
    table = pq.read_table(file)
    draw = random.Random(11)
    ids = table["id"].to_pylist()
    first = [START + timedelta(seconds=draw.randrange(100 * 86400)) for _ in ids]
    rows = pa.table(
        {
            "input_id": table["id"], "token_ids": table["input_ids"], "attention_mask": table["attention_mask"],
            "loss_mask": table["loss_mask"], "n_tokens": table["tokens"],
            "meta": pa.array(["1"] * len(ids)), "event_timestamp": pa.array(first, pa.timestamp("us", "UTC")),
        }
    )  # fmt: skip
    half = rows.slice(0, len(ids) // 2)
    later = [each + timedelta(seconds=1 + draw.randrange(50 * 86400)) for each in first[: len(half)]]
    half = half.set_column(5, "meta", pa.array(["2"] * len(half)))
    half = half.set_column(6, "event_timestamp", pa.array(later, pa.timestamp("us", "UTC")))
    both = pa.concat_tables([rows, half])
    return both.append_column("created", both["event_timestamp"])


def joined(store: FeastStore, view: FeatureView, rows: pa.Table, count: int) -> dict[str, Any]:
    """Point-in-time retrieval of all ids, and a sample of asked times against a brute-force join."""
    ids = sorted(set(rows["input_id"].to_pylist()))
    stamp = pa.timestamp("us", "UTC")
    whole = pa.table({"input_id": ids, "event_timestamp": pa.array([START + 75 * DAY] * len(ids), stamp)})
    found, cost = measured(lambda: store.history(view, whole))
    draw = random.Random(13)
    asked = [(draw.choice(ids), START + timedelta(seconds=draw.randrange(-86400, 160 * 86400))) for _ in range(count)]
    keys, times = [key for key, _ in asked], pa.array([at for _, at in asked], stamp)
    answers = store.history(view, pa.table({"input_id": keys, "event_timestamp": times})).to_pylist()
    known: dict[str, list[tuple[datetime, int]]] = {}
    stamps = rows["event_timestamp"].to_pylist()
    for place, key in enumerate(rows["input_id"].to_pylist()):
        known.setdefault(key, []).append((stamps[place], place))
    right = nothing = 0
    for (key, at), answer in zip(asked, answers, strict=True):
        mine = sorted(known[key])
        number = bisect.bisect_right(mine, at, key=lambda each: each[0]) - 1
        wanted = rows.slice(mine[number][1], 1).to_pylist()[0] if number >= 0 else dict.fromkeys(view.fields)
        right += all(answer[name] == wanted[name] for name in view.fields)
        nothing += number < 0
    return {
        "asked": len(ids), "found": len(ids) - found["token_ids"].null_count, **cost,
        "checked": count, "right": right, "of_them_not_yet_there": nothing,
    }  # fmt: skip


def read_online(store: FeastStore, view: FeatureView, ids: list[str], fields: Sequence[str]) -> dict[str, Any]:
    reads = 500
    draw = random.Random(17)
    took, used = [], []
    for _ in range(reads):
        keys = draw.sample(ids, READ)
        began, spent = time.perf_counter(), time.process_time()
        table = store.read(view, keys, fields)
        used.append(1000 * (time.process_time() - spent))
        took.append(1000 * (time.perf_counter() - began))
        assert not table["token_ids"].null_count
    return {
        "rows": READ, "fields": list(fields or view.fields), "reads": reads,
        "p50_cpu_ms": round(statistics.median(used), 2),
        "p99_cpu_ms": round(sorted(used)[int(0.99 * reads)], 2), "p50_wall_ms": round(statistics.median(took), 2),
    }  # fmt: skip


@contextlib.contextmanager
def redis() -> Iterator[str | None]:
    if (server := shutil.which("redis-server")) is None:
        yield None
        return
    port = free_port()
    line = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir()) as process:
        time.sleep(1)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


@contextlib.contextmanager
def postgres() -> Iterator[str | None]:
    if shutil.which("pg_config") is None:
        yield None
        return
    sys.path.insert(0, str(Path("tests").resolve()))
    import conftest

    server = conftest.postgres.__wrapped__()
    try:
        yield next(server)
    finally:
        next(server, None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def online(root: Path, url: str, view: FeatureView, rows: int, ids: list[str]) -> dict[str, Any]:
    with contextlib.closing(FeastStore(url, root, root / "state" / digest_of(url))) as store:
        count, cost = measured(lambda: store.materialize(view, START, START + 1000 * DAY))
        return {
            "materialized": count, **cost,
            "read": read_online(store, view, ids, ("token_ids", "attention_mask", "meta")),
            "read_whole": read_online(store, view, ids, ()),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--checked", type=int, default=2_000)
    parser.add_argument("--servers", action="store_true", help="Redis and PostgreSQL too")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="noria-features."))
    try:
        told: dict[str, Any] = {}
        file, told["tokenise"] = tokenised(root, options.rows)
        print(told["tokenise"], flush=True)
        rows = two_versions(file)
        view = FeatureView(
            "bench", views.NAME, views.ENTITY,
            {"token_ids": "ints", "attention_mask": "ints", "loss_mask": "ints", "n_tokens": "int", "meta": "text"},
            root / "table", {},
        )  # fmt: skip
        with contextlib.closing(FeastStore("sqlite:///online.db", root, root / "state")) as store:
            _, told["added"] = measured(lambda: store.add(view, rows, "all"))
            told["added"]["rows"] = rows.num_rows
            told["point_in_time"] = joined(store, view, rows, options.checked)
            print(told["point_in_time"], flush=True)
        ids = sorted(set(rows["input_id"].to_pylist()))
        told["online"] = {"sqlite": online(root, "sqlite:///online.db", view, rows.num_rows, ids)}
        told["online"]["sqlite"]["mb"] = round((root / "online.db").stat().st_size / 2**20)
        print(told["online"], flush=True)
        if options.servers:
            for name, server in (("redis", redis), ("postgres", postgres)):
                with server() as url:
                    told["online"][name] = url and online(root, url, view, rows.num_rows, ids)
                    print(name, told["online"][name], flush=True)
        told["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        right = told["point_in_time"]["right"] == told["point_in_time"]["checked"]
        told["holds"] = {
            "point in time": right, "same bytes": told["tokenise"]["same_bytes"],
            "p50 of 20 rows on SQLite under 5 ms of CPU": told["online"]["sqlite"]["read"]["p50_cpu_ms"] < 5,
        }  # fmt: skip
        RESULTS.write_text(json.dumps(told, indent=1) + "\n")
        print(json.dumps(told["holds"]))
        sys.exit(0 if all(told["holds"].values()) else 1)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
