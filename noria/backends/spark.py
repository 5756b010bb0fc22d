"""Spark sessions over Spark Connect: Sail in this process, or a server that already runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from noria.errors import Invalid, Unavailable
from noria.settings import export

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_INSTALL = "pip install 'noria[data]'"
_PORT = 15002
_TIMEOUT = 10.0
"""Seconds that an attached server has to take a connection."""
_SAIL = {
    # Joins hold their left side, as written: by its statistics Sail takes filtered documents for the smaller side.
    "SAIL_EXECUTION__COLLECT_STATISTICS": "false",
    # What is held of texts on the way, in rows. By default it is several times as much.
    "SAIL_EXECUTION__BATCH_SIZE": "2048",
    "SAIL_PARQUET__MAX_ROW_GROUP_SIZE": "16384",
    "SAIL_PARQUET__ALLOW_SINGLE_FILE_PARALLELISM": "false",
    # What is written on the way is read once or twice; zstd(3), the default, takes a twentieth of all time.
    "SAIL_PARQUET__COMPRESSION": "zstd(1)",
    # Sorting and grouping go to disk rather than past the machine's memory.
    "SAIL_RUNTIME__MEMORY_POOL__TYPE": "fair",
}
"""Settings of the embedded engine, so that its memory does not grow with the documents; the user's own come first."""


@contextmanager
def session(address: str) -> Iterator[SparkSession]:
    """A Spark session for the time of the block.

    `embedded` starts Sail on a free loopback port and stops it at the end; `sc://host:port` attaches to a server
    and leaves it alone, sending noria's own functions along, so that it need not be installed there. Raises Invalid
    for another address, Unavailable when packages are missing or nothing answers.
    """
    if address == "embedded":
        with _sail() as url, _connected(url) as spark:
            yield spark
    elif address.startswith("sc://"):
        _reach(address)
        with _connected(address) as spark:
            _send_along()
            yield spark
    else:
        raise Invalid(f"'{address}' is no Spark address", 'write spark = "embedded" or "sc://host:15002"')


@contextmanager
def _sail() -> Iterator[str]:
    try:
        from pysail.spark import SparkConnectServer
    except ImportError as error:
        raise Unavailable("the embedded data engine is not installed", _INSTALL) from error
    export(RUST_LOG="error", **_SAIL, SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE=str(_half_of_memory()))
    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    try:
        host, port = server.listening_address
        yield f"sc://{host}:{port}"
    finally:
        server.stop()


def _half_of_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


@contextmanager
def _connected(url: str) -> Iterator[SparkSession]:
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise Unavailable("the Spark client is not installed", _INSTALL) from error
    spark = SparkSession.builder.remote(url).create()
    try:
        # Spark guesses the type of a partition's value otherwise, and "00" becomes a number.
        spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
        yield spark
    finally:
        spark.stop()


def _reach(address: str) -> None:
    """Ask for a TCP connection first: the client would retry for minutes where nothing listens."""
    host, _, port = address.removeprefix("sc://").partition("/")[0].partition(":")
    try:
        socket.create_connection((host, int(port or _PORT)), timeout=_TIMEOUT).close()
    except ValueError as error:
        raise Invalid(f"'{address}' has no valid port", "write it as sc://host:15002") from error
    except OSError as error:
        raise Unavailable(
            f"no Spark Connect server answers at '{address}': {error}", 'start it, or set spark = "embedded"'
        ) from error


def _send_along() -> None:
    from pyspark import cloudpickle

    import noria

    cloudpickle.register_pickle_by_value(noria)
