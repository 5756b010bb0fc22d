"""Queries whose rows have a watermark: a column that only grows. What was fetched before is kept on this machine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.errors import Invalid
from noria.lake import listing
from noria.lake.rows import as_text
from noria.names import digest_of
from noria.settings import SourceSettings

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable

Mark = int | float | str | datetime | date | Decimal
_READ: Mapping[str, Callable[[str], Mark]] = {
    "int": int, "float": float, "str": str, "Decimal": Decimal, "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
}  # fmt: skip


FETCH = 1000
"""Rows that are fetched from a server at a time."""

_TIMES = ("date", "time", "timetz", "timestamp", "timestamptz", "interval")
"""Types of PostgreSQL that are taken as the server writes them: `infinity` and years past 9999 are no Python dates."""


def fetch(connection: Connection, query: Executable, where: str) -> Iterator[dict[str, str]]:
    """The rows of a query as they come, every value as text. Raises Invalid where it has none to give."""
    _as_written(connection)
    streaming = connection.execution_options(stream_results=True, yield_per=FETCH)
    with closing(streaming.execute(query)) as result:
        if not result.returns_rows:
            raise Invalid("the query returns no rows", "write a select", where=where)
        columns = [str(column) for column in result.keys()]  # noqa: SIM118 - a result is no mapping
        if twice := [column for column, count in Counter(columns).items() if count > 1]:
            raise Invalid(f"two columns are called '{twice[0]}'", "rename one: select … as …", where=where)
        for row in result:
            yield dict(zip(columns, map(as_text, row), strict=True))


def _as_written(connection: Connection) -> None:
    """Take times as PostgreSQL writes them; without psycopg they are Python's."""
    adapters = getattr(connection.connection.driver_connection, "adapters", None)
    if connection.dialect.name == "postgresql" and adapters is not None:
        from psycopg.types.string import TextLoader

        for name in _TIMES:
            adapters.register_loader(name, TextLoader)


def newer(connection: Connection, source: SourceSettings, address: str, kept: Path, where: str) -> list[dict[str, str]]:
    """All rows of the source's query: those up to the last watermark as they were kept in `kept`, and the newer ones.

    Where the database has another number of rows up to that watermark, some were deleted, changed or put in
    later, and all are fetched anew. What it cannot see is a row that was deleted while another one, below the
    watermark too, came in its place.
    """
    from sqlalchemy import and_, column, func, or_, select, text

    name = source.watermark or ""
    inner = text((source.query or "").strip().rstrip(";")).columns(column(name)).subquery("q")
    growing = inner.c[name]
    key = digest_of([address, source.query, name])
    old, rows = _load(kept, key)
    top: object = connection.execute(select(func.max(growing))).scalar()
    if top is not None and not isinstance(top, Mark):
        raise Invalid(
            f"column '{name}' holds no watermark: {type(top).__name__}", "name one of numbers or times", where=where
        )
    if old is not None:
        below = or_(growing <= old, growing.is_(None))
        if connection.execute(select(func.count()).select_from(inner).where(below)).scalar() != len(rows):
            old, rows = None, []
    # Nothing that comes in meanwhile: it is for the next time.
    span = and_(growing > old, growing <= top) if old is not None else or_(growing <= top, growing.is_(None))
    fresh = list(fetch(connection, select(text("*")).select_from(inner).where(span), where))
    rows += fresh
    if fresh or old is None:
        _save(kept, key, top, rows)
    return rows


def _load(kept: Path, key: str) -> tuple[Mark | None, list[dict[str, str]]]:
    if not kept.is_file():
        return None, []
    with kept.open() as lines:
        head: dict[str, Any] = json.loads(next(lines))
        if head["key"] != key or head["kind"] not in _READ:
            return None, []
        return _READ[head["kind"]](head["mark"]), [json.loads(line) for line in lines]


def _save(kept: Path, key: str, mark: Mark | None, rows: list[dict[str, str]]) -> None:
    shown = mark.isoformat() if isinstance(mark, date) else str(mark)
    head = {"key": key, "kind": type(mark).__name__, "mark": shown}
    lines = (json.dumps(line, ensure_ascii=True) for line in (head, *rows))
    listing.replace(kept, "".join(f"{line}\n" for line in lines).encode())
