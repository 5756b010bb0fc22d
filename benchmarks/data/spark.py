"""Apache Spark in an environment of its own: installed once, started on loopback, stopped again.

python benchmarks/data/spark.py --install        prints the environment's folder
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path.home() / ".cache" / "noria" / "spark"
SPARK = "pyspark==4.3.0"
BESIDE = ("googleapis-common-protos", "grpcio", "grpcio-status", "numpy", "pandas", "pyarrow", "zstandard")
"""What the server, and noria's functions on its workers, need besides; in noria's own versions."""
START_SECONDS = 180.0


def install(more: tuple[str, ...] = ()) -> Path:
    """The environment's folder, made where it is not there yet; its Python is of the same minor version as this one."""
    python = FOLDER / "bin" / "python"
    if not python.exists():
        venv.create(FOLDER, with_pip=True)
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    wanted = [SPARK, *(f"{name}=={_pin(name, constraints)}" for name in (*BESIDE, *more))]
    found = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    if missing := sorted(set(wanted) - set(found.split())):
        print(f"installing {', '.join(missing)}", file=sys.stderr)
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
    return FOLDER


def _pin(name: str, constraints: str) -> str:
    found = re.search(rf"^{re.escape(name)}==(\S+)", constraints, re.MULTILINE)
    if found is None:
        raise SystemExit(f"constraints.txt does not pin {name}")
    return found[1]


def home(folder: Path) -> Path:
    """SPARK_HOME of an environment."""
    return next(folder.glob("lib/python*/site-packages/pyspark"))


def environment(folder: Path, scratch: Path) -> Mapping[str, str]:
    """Variables of all of Spark's processes: loopback only, this environment's Python, its files in `scratch`."""
    outer = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {
        **outer,
        "SPARK_HOME": str(home(folder)),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_NO_DAEMONIZE": "1",
        "SPARK_LOCAL_DIRS": str(scratch),
        "SPARK_WORKER_DIR": str(scratch / "work"),
        "PYSPARK_PYTHON": str(folder / "bin" / "python"),
    }


@contextlib.contextmanager
def server(folder: Path, scratch: Path, cores: int, memory: str) -> Iterator[str]:
    """A Spark Connect server with everything in one JVM; its address. All else is as Spark comes."""
    port = free_port()
    scratch.mkdir(parents=True, exist_ok=True)
    conf = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.ui.enabled": "false",
        "spark.driver.memory": memory,
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
    }
    command = [home(folder) / "bin" / "spark-submit", "--master", f"local[{cores}]"]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    command += [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(
            [*map(str, command), "spark-internal"],
            stdout=log,
            stderr=log,
            env=environment(folder, scratch),
            cwd=scratch,
            process_group=0,
        )
    try:
        wait(port, process, scratch / "log")
        yield f"sc://127.0.0.1:{port}"
    finally:
        stop(process)


def wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until something listens; raises RuntimeError with the log's end."""
    end = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"Spark does not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.25)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", required=True)
    parser.parse_args()
    print(install())
