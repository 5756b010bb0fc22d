"""Reader of databases: the rows of one query, through SQLAlchemy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from noria.errors import Invalid, Unavailable
from noria.lake.rows import Item, Row
from noria.lake.watermark import fetch, newer
from noria.settings import SourceSettings

if TYPE_CHECKING:
    from sqlalchemy import URL


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a query in an order of their own, so that the database's order does not matter.

    `digest` is the SHA-256 of the rows, `name` the address without its password.
    """

    name: str
    digest: str
    rows: tuple[dict[str, str], ...]

    def items(self) -> Iterator[Item]:
        """The rows; the offset is the row's number."""
        for number, fields in enumerate(self.rows):
            yield Row(fields, number)


def ask(source: SourceSettings, root: Path, kept: Path, where: str) -> Answer:
    """Run a source's query; a relative SQLite file is looked up from `root` and opened for reading only.

    With a watermark the rows that were there before come from `kept`, and only newer ones are fetched; the answer is
    the same. Raises Invalid for a bad address or query, with `where` as the place in noria.toml, and Unavailable when
    the driver is missing or the database does not answer.
    """
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    url = source.url or ""
    try:
        address, name = _address(url, root, where)
        engine = create_engine(address, poolclass=NullPool)
    except (ArgumentError, NoSuchModuleError) as error:
        raise Invalid(f"'{url.partition(':')[0]}' is no database address: {error}", _URLS, where=where) from error
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"no driver for '{url.partition(':')[0]}'", f"pip install '{error.name}'", where=where
        ) from error
    try:
        with engine.connect() as connection:
            if source.watermark is None:
                rows = fetch(connection, text(source.query or ""), where)
            else:
                rows = newer(connection, source, name, kept / "rows.jsonl", where)
    except OperationalError as error:
        if engine.dialect.name != "sqlite":
            raise Unavailable(f"the database '{name}' does not answer: {error.orig}", "", where=where) from error
        raise Invalid(f"the query failed: {error.orig}", "correct the query", where=where) from error
    except SQLAlchemyError as error:
        raise Invalid(f"the query failed: {getattr(error, 'orig', error)}", "correct the query", where=where) from error
    lines = sorted((json.dumps(row, ensure_ascii=True), row) for row in rows)
    sha = hashlib.sha256("\n".join(line for line, _ in lines).encode()).hexdigest()
    return Answer(name, sha, tuple(row for _, row in lines))


_URLS = "write it as sqlite:///data/shop.db or postgresql+psycopg://user@host/name"


def _address(url: str, root: Path, where: str) -> tuple[URL, str]:
    from sqlalchemy import make_url

    address = make_url(url)
    name = address.render_as_string(hide_password=True)
    if address.get_backend_name() != "sqlite" or not address.database or address.database == ":memory:":
        return address, name
    if address.database.startswith("file:"):
        return address, name
    file = root / address.database
    if not file.is_file():
        raise Invalid(f"there is no database '{address.database}'", _URLS, where=where)
    shown = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    query = {**address.query, "mode": "ro", "uri": "true"}
    return address.set(database=f"file:{file}", query=query), shown
