"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("noria", deadline=None, max_examples=30)
settings.register_profile("quick", deadline=None, max_examples=10)
settings.register_profile("thorough", deadline=None, max_examples=300)
settings.load_profile("noria")

# The main module of a pytest-xdist worker has no file: PySpark takes it for a doctest then, and ends the process.
vars(sys.modules["__main__"]).setdefault("__file__", str(Path(pytest.__file__).with_name("__main__.py")))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--examples", type=int, default=10, help="requests that Schemathesis makes for each endpoint")
    parser.addoption("--kills", type=int, default=3, help="processes that are killed in each test of kill -9")
    parser.addoption("--airflow", action="store_true", help="install Apache Airflow where it is not there yet")
    parser.addoption("--engine", action="append", default=[], help="outside engine: make conformance-engines")
    parser.addoption("--url", default=None, help="where the one of --engine already runs")
    parser.addoption("--spark", default=None, help="environment with Apache Spark: make conformance-spark")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: a long one at the end would leave the other processes idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    turns = {path for path in slow if path.parent.name == "turn"}
    items.sort(key=lambda item: (item.path not in turns, item.path not in slow))


@pytest.fixture(scope="session")
def examples(request: pytest.FixtureRequest) -> int:
    """How thoroughly to look, as the command line says."""
    found: int = request.config.getoption("--examples")
    return found


@pytest.fixture(scope="session")
def kills(request: pytest.FixtureRequest) -> int:
    """How often to kill, as the command line says."""
    found: int = request.config.getoption("--kills")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a real PostgreSQL server of this test run; PostgreSQL refuses root, so it runs as user postgres there."""
    if shutil.which("pg_config") is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql libpq-dev)")
    binaries = Path(
        subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
    )
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="noria-pg."))
    if as_user:
        shutil.chown(folder, "postgres")
    port, data = free_port(), folder / "data"
    quick = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} {quick}"
    initdb = ["initdb", "-D", data, "-U", "noria", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    start = ["pg_ctl", "-D", data, "-w", "-t", "60", "-l", folder / "log", "-o", options, "start"]
    stop = ["pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"]

    def call(command: list[object]) -> None:
        line = [*as_user, str(binaries / str(command[0])), *map(str, command[1:])]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)

    call(initdb)
    call(start)
    yield f"postgresql+psycopg://noria@127.0.0.1:{port}/postgres"
    call(stop)
    shutil.rmtree(folder)


S3_SERVER = """
import sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a server that speaks S3's protocol, with credentials in the environment."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = subprocess.Popen(
        [sys.executable, "-c", S3_SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()
