"""Reader of databases: the rows of one query, through SQLAlchemy."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING
from urllib.parse import quote
from weakref import finalize

from noria.errors import Invalid, NotFound, Unavailable
from noria.lake.rows import Item, Row
from noria.lake.watermark import fetch, newer
from noria.settings import SourceSettings

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection


SPOOL_BYTES = 64 << 20
"""Rows past this size wait on disk, not in memory."""


class Answer:
    """The rows of a query in an order of their own, so that the database's order does not matter.

    `name` is the address without its password, `digest` the SHA-256 of the rows. The rows wait in a temporary file;
    what stays in memory of each is 40 bytes.
    """

    def __init__(self, name: str, rows: Iterable[Mapping[str, str]]) -> None:
        import numpy as np

        self.name = name
        self._file = SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - it lives as long as the answer
        finalize(self, self._file.close)
        places, hashes = array("Q"), bytearray()
        for row in rows:
            line = json.dumps(row).encode()
            places.append(self._file.tell())
            hashes += hashlib.sha256(line).digest()
            self._file.write(line + b"\n")
        # Rows with one hash are the same, so any order of them is the same.
        keys = np.frombuffer(bytes(hashes), dtype=">u8").reshape(-1, 4)
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        self._places = np.frombuffer(places, dtype=np.uint64)[order]
        self.digest = hashlib.sha256(keys[order].tobytes()).hexdigest()

    def items(self) -> Iterator[Item]:
        """The rows; the offset is the row's number."""
        for number, place in enumerate(self._places):
            self._file.seek(int(place))
            yield Row(json.loads(self._file.readline()), number)


def ask(source: SourceSettings, root: Path, kept: Path, where: str) -> Answer:
    """Run a source's query; a relative SQLite file is looked up from `root` and opened for reading only.

    With a watermark the rows that were there before come from `kept`, and only newer ones are fetched; the answer is
    the same. Raises Invalid for a bad address or query, with `where` as the place in noria.toml, NotFound for a SQLite
    file that is not there, and Unavailable when the driver is missing or the database does not answer.
    """
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    url = source.url or ""
    try:
        address, name = address_of(url, root, where)
        engine = create_engine(address, poolclass=NullPool)
    except (ArgumentError, NoSuchModuleError) as error:
        raise Invalid(f"'{url.partition(':')[0]}' is no database address: {error}", _URLS, where=where) from error
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"no driver for '{url.partition(':')[0]}'", f"pip install '{error.name}'", where=where
        ) from error
    try:
        with engine.connect() as connection:
            _only_read(connection)
            if source.watermark is None:
                return Answer(name, fetch(connection, text(source.query or ""), where))
            return Answer(name, newer(connection, source, name, kept / "rows.jsonl", where))
    except OperationalError as error:
        if engine.dialect.name != "sqlite":
            raise Unavailable(f"the database '{name}' does not answer: {error.orig}", "", where=where) from error
        raise Invalid(f"the query failed: {error.orig}", "correct the query", where=where) from error
    except SQLAlchemyError as error:
        raise Invalid(f"the query failed: {getattr(error, 'orig', error)}", "correct the query", where=where) from error


def _only_read(connection: Connection) -> None:
    """Have PostgreSQL refuse to write, and tell times in UTC."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("set session characteristics as transaction read only")
        connection.exec_driver_sql("set time zone 'UTC'")
        connection.commit()


_URLS = "write it as sqlite:///data/shop.db or postgresql+psycopg://user@host/name"


SECRETS = ("odbc_connect", "passwd", "password", "pwd", "sslpassword")
"""Keys of an address's query that hold a password, in small letters."""


def address_of(url: str, root: Path, where: str) -> tuple[URL, str]:
    """The address to connect to, of a SQLite file for reading only, and a name without any password.

    Raises NotFound for a SQLite file that is not there.
    """
    from sqlalchemy import make_url

    address = make_url(url)
    secrets = [key for key in address.query if key.lower() in SECRETS]
    name = address.difference_update_query(secrets).render_as_string(hide_password=True)
    if address.get_backend_name() != "sqlite" or not address.database or address.database == ":memory:":
        return address, name
    if address.database.startswith("file:"):
        return address, name
    file = root / address.database
    if not file.is_file():
        raise NotFound(f"there is no database '{address.database}'", _URLS, where=where)
    shown = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    query = {**address.query, "mode": "ro", "uri": "true"}
    return address.set(database=f"file:{quote(str(file))}", query=query), shown
