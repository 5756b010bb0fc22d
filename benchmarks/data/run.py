"""The stage `documents` on Sail, embedded, and on Apache Spark: CPU seconds, memory, rows, near duplicates found.

`make bench-data`, or for a quick look: python benchmarks/data/run.py --sizes 20000

Both engines get the same generated documents and the default steps of cleaning, in turn. CPU seconds are those of all
processes of a run: with Spark the JVM and its Python workers, whose start is counted and told. `load` is how many
tasks the machine had, over five minutes: other work costs CPU seconds, on both engines. Writes
benchmarks/results/data.json and data.png.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import generate
import psutil
import pyarrow.parquet as pq
import quality
import spark

from noria.datasets.schema import files_of

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SIZES = (50_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000)
BOTH = 500_000
"""Spark takes part up to this many documents."""
BUDGET = (500_000, {"cpu": 60, "peak_mb": 1500})
"""Documents, and what they may take on Sail."""
_SUBREAPER = 36
"""prctl(2): orphans of this process's children become its own, so that their CPU time is counted."""
TOML = """
[project]
name = "bench"
[runtime]
spark = "{address}"
[engines.none]
kind = "llamacpp"
model = "none"
[[sources]]
name = "made"
kind = "jsonl"
path = "made.jsonl"
[tasks.bench]
sources = ["made"]
engine = "none"
base = "none"
"""


def main() -> None:
    options = _options()
    if options.stage:
        print(json.dumps(stage(*options.stage)))
        return
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    environment = spark.install() if "spark" in options.engines else None
    with tempfile.TemporaryDirectory(prefix="bench-data-", dir=options.scratch) as name:
        runs, pool = _runs(options, Path(name), environment)
    found = {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GiB",
        "versions": _versions(),
        "pool": pool,
        "runs": runs,
        "ratios": _ratios(runs),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    _plot(runs, options.out.with_suffix(".png"))
    print(report(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--engines", default="sail,spark")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--both", type=int, default=BOTH, help="Spark takes part up to this many documents")
    parser.add_argument("--corpus", type=Path, action="append", default=[], help="one more folder of texts")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--memory", default="4g", help="heap of Spark's JVM")
    parser.add_argument("--scratch", type=Path, default=None, help="where temporary files go")
    parser.add_argument("--out", type=Path, default=RESULTS / "data.json")
    parser.add_argument("--stage", nargs=3, metavar=("ADDRESS", "INPUT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.sizes = [int(size) for size in options.sizes.split(",")]
    options.engines = options.engines.split(",")
    return options


def stage(address: str, source: str, folder: str) -> dict[str, Any]:
    """Run the stage on documents that lie in a file; what it says of itself."""
    from noria.backends.spark import session
    from noria.datasets import clean
    from noria.settings import load
    from noria.stage import Work

    root = Path(folder)
    (root / "noria.toml").write_text(TOML.format(address=address))
    settings = load(root / "noria.toml")
    bag: Any = SimpleNamespace(
        settings=settings,
        lake=SimpleNamespace(path=lambda ref: ref),
        spark=partial(session, settings.runtime.spark),
    )
    inputs: Any = {"sources": SimpleNamespace(ref=Path(source))}
    progress: Any = SimpleNamespace(update=lambda *told: None)
    out = root / "out"
    out.mkdir()
    found = clean.work(Work(bag, "bench", settings.tasks["bench"], "bench", inputs, None, out, progress))
    return dict(found)


def _runs(
    options: argparse.Namespace, folder: Path, environment: Path | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    pool = generate.sentences(options.corpus)
    maker = generate.Maker(pool, options.seed)
    runs = []
    for size in options.sizes:
        source = folder / f"{size}"
        generate.write(maker, size, source / "documents.parquet", folder / "truth.parquet")
        for number in range(options.rounds):
            engines = [name for name in options.engines if name == "sail" or size <= options.both]
            for name in engines if number % 2 == 0 else reversed(engines):
                found = _measured(name, source, folder / "run", environment, options.memory)
                rows = _rows(folder / "run" / "out" / "documents.parquet")
                found = {"engine": name, "documents": size, "round": number, **found, "digest": rows}
                if name == "sail" and number == 0:
                    ids = quality.ids(folder / "run" / "out" / "documents.parquet")
                    found["near"] = quality.judged(folder / "truth.parquet", ids)
                shutil.rmtree(folder / "run")
                runs.append(found)
                print(f"{size:,} {name}: {found['cpu']:.0f} CPU-s, {found['peak_mb']:,.0f} MB", file=sys.stderr)
        shutil.rmtree(source)
    digest = hashlib.sha256("\n".join(pool).encode()).hexdigest()[:16]
    return runs, {"sentences": len(pool), "digest": digest, "seed": options.seed}


def _measured(name: str, source: Path, folder: Path, environment: Path | None, memory: str) -> dict[str, Any]:
    """CPU seconds and peak memory of a run with all its processes, and what the stage said."""
    folder.mkdir()
    before, began = _children(), time.monotonic()
    serving = nullcontext("embedded")
    if name == "spark" and environment:
        serving = spark.server(environment, folder / "spark", os.cpu_count() or 1, memory)
    with _peak() as peak, serving as address:
        ready = _spent(psutil.Process().children(recursive=True))
        command = [sys.executable, __file__, "--stage", address, str(source), str(folder)]
        path = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **path})
    _reap()
    said = json.loads(done.stdout.splitlines()[-1])
    return {
        "cpu": round(_children() - before, 2),
        "start_cpu": round(ready, 2),
        "seconds": round(time.monotonic() - began, 1),
        "peak_mb": round(peak[0] / 2**20),
        "load": round(os.getloadavg()[1], 1),
        "rows": said["rows"],
        "steps": [{key: step[key] for key in ("step", "in", "out")} for step in said["steps"]],
    }


def _children() -> float:
    """User and system seconds of all children that are no more, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _spent(processes: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def _reap() -> None:
    """Wait for orphans, such as Spark's Python workers."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.1)
        except ChildProcessError:
            return
    for orphan in psutil.Process().children(recursive=True):
        orphan.kill()
    _reap()


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Most memory that all children had together, in bytes; what processes share is counted once."""
    most, over = [0], threading.Event()

    def watch() -> None:
        own = psutil.Process()
        while not over.wait(0.5):
            held = 0
            for process in own.children(recursive=True):
                try:
                    held += process.memory_full_info().pss
                except psutil.Error:
                    continue
            most[0] = max(most[0], held)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def _rows(table: Path) -> str:
    """Digest of ids, texts and fields, in order of ids, which is that of the files."""
    sha = hashlib.sha256()
    for file in files_of(table):
        for batch in pq.ParquetFile(file).iter_batches(columns=["id", "text", "fields"]):
            for row in zip(*batch.to_pydict().values(), strict=True):
                sha.update(json.dumps(row, ensure_ascii=False).encode())
    return sha.hexdigest()[:16]


def _ratios(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spark beside Sail at each size: medians of the rounds, and whether all rows are the same."""
    found = []
    for size in sorted({run["documents"] for run in runs}):
        here = [run for run in runs if run["documents"] == size]
        cpu = {name: sorted(run["cpu"] for run in here if run["engine"] == name) for name in ("sail", "spark")}
        if all(cpu.values()):
            middle = {name: values[len(values) // 2] for name, values in cpu.items()}
            same = len({(run["digest"], json.dumps(run["steps"])) for run in here}) == 1
            found.append({"documents": size, "cpu_ratio": round(middle["spark"] / middle["sail"], 2), "same": same})
    return found


def report(found: dict[str, Any]) -> str:
    """The tables, as Markdown."""
    lines = [
        "| documents | engine | CPU s | of it start | µs a document | peak MB | rows after each step |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in found["runs"]:
        steps = ", ".join(f"{step['step']} {step['out']:,}" for step in run["steps"] if step["in"] != step["out"])
        each = run["cpu"] / run["documents"] * 1e6
        lines.append(
            f"| {run['documents']:,} | {run['engine']} | {run['cpu']:.1f} | {run['start_cpu']:.1f} | {each:.0f} "
            f"| {run['peak_mb']:,} | {steps} |"
        )
    lines += [
        "",
        *(
            f"{row['documents']:,} documents: Spark takes {row['cpu_ratio']} times the CPU seconds, rows are "
            f"{'the same' if row['same'] else 'DIFFERENT'}"
            for row in found["ratios"]
        ),
    ]
    lines += [
        "",
        *quality.table([run["near"] | {"documents": run["documents"]} for run in found["runs"] if "near" in run]),
    ]
    return "\n".join(lines)


def _plot(runs: list[dict[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    for axis, key, title in zip(axes, ("cpu", "peak_mb"), ("CPU seconds", "peak memory, MB"), strict=True):
        for name, label, colour in (
            ("sail", "Sail, embedded", "tab:blue"),
            ("spark", "Apache Spark, local", "tab:orange"),
        ):
            points = sorted((run["documents"] / 1000, run[key]) for run in runs if run["engine"] == name)
            axis.plot(*zip(*points, strict=True), "o-", color=colour, label=label) if points else None
        documents, most = BUDGET
        axis.plot(documents / 1000, most[key], "x", color="black", label="budget on Sail")
        axis.set(title=title, xlabel="thousand documents", xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    found = {name: version(name) for name in ("pysail", "pyspark-client", "pyarrow", "numpy")}
    return {"python": platform.python_version(), "pyspark": spark.SPARK.partition("==")[2], **found}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
