"""Questions to tables, by DuckDB: read-only, and nothing but the named tables can be read.

What the tables hold is read into memory first; then DuckDB's door to files, networks and extensions is shut for good
(`enable_external_access`, `lock_configuration`: https://duckdb.org/docs/stable/operations_manual/securing_duckdb).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from noria.errors import Invalid, NotFound, Unavailable

if TYPE_CHECKING:
    import duckdb

MOST_ROWS: Final = 1_000_000
"""Of a database's query, which goes through Python."""
_READERS: Final = {".csv": "read_csv", ".tsv": "read_csv", ".parquet": "read_parquet"}


def open(
    tables: Mapping[str, Mapping[str, Any]], rows: int = 50, memory_mb: int = 512
) -> dict[str, Callable[..., Any]]:
    """The functions `describe_table` and `query_table` over these tables (`noria.settings.DataTableSettings`).

    Raises Invalid for a table that cannot be read, NotFound for a file that is missing, Unavailable without DuckDB.
    """
    try:
        import duckdb
    except ImportError as error:
        raise Unavailable("tools over tables need DuckDB", "pip install 'noria[tools]'") from error
    base = duckdb.connect(":memory:", config={"memory_limit": f"{memory_mb}MB", "threads": 1, "temp_directory": ""})
    for name, table in tables.items():
        try:
            _load(base, name, table)
        except duckdb.Error as error:
            raise Invalid(f"table '{name}' cannot be read: {_first(error)}", "look at its file or query") from error
    for order in (
        "SET python_enable_replacements = false",
        "SET enable_external_access = false",
        "SET autoinstall_known_extensions = false",
        "SET autoload_known_extensions = false",
        "SET lock_configuration = true",
    ):
        base.execute(order)
    found = Tables(base, {name: _Told(each.get("about", ""), _meanings(each)) for name, each in tables.items()}, rows)
    return {"describe_table": _describing(found), "query_table": _querying(found)}


class _Told:
    """What a person said of a table."""

    def __init__(self, about: str, meanings: Mapping[str, str]) -> None:
        self.about, self.meanings = about, meanings


class Tables:
    """The tables and the one way to them."""

    def __init__(self, base: duckdb.DuckDBPyConnection, told: Mapping[str, _Told], rows: int) -> None:
        self._base, self._told, self._rows = base, told, rows

    @property
    def names(self) -> tuple[str, ...]:
        """Of all tables."""
        return tuple(self._told)

    def heads(self) -> str:
        """Each table in a line."""
        return "; ".join(f"{name}: {each.about}" if each.about else name for name, each in self._told.items())

    def describe(self, table: str) -> dict[str, Any]:
        """What it holds, how many rows, and its columns with types and meanings."""
        told = self._told[table]
        kinds = self._base.execute(f'DESCRIBE "{table}"').fetchall()
        count = self._base.execute(f'SELECT count(*) FROM "{table}"').fetchall()[0][0]  # noqa: S608
        columns = [
            {"column": name, "type": kind} | ({"meaning": told.meanings[name]} if name in told.meanings else {})
            for name, kind, *_ in kinds
        ]
        return {"table": table, **({"about": told.about} if told.about else {}), "rows": count, "columns": columns}

    def query(self, sql: str) -> dict[str, Any]:
        """The rows of one SELECT; raises Invalid for anything else and for what DuckDB refuses."""
        import duckdb

        try:
            statements = self._base.extract_statements(sql)
            if len(statements) != 1:
                raise Invalid(f"these are {len(statements)} statements", "send one SELECT")
            if statements[0].type != duckdb.StatementType.SELECT:
                kind = str(statements[0].type).rpartition(".")[2]
                raise Invalid(f"this is no SELECT but '{kind}', and the tables are read-only", "send one SELECT")
            asked = self._base.execute(statements[0])
            columns = _each_named_once([each[0] for each in asked.description or ()])
            rows = asked.fetchmany(self._rows + 1)
        except duckdb.Error as error:
            raise Invalid(f"the query failed: {_first(error)}", "see describe_table") from error
        found = {"rows": [dict(zip(columns, row, strict=True)) for row in rows[: self._rows]]}
        return {**found, "note": f"only the first {self._rows} rows"} if len(rows) > self._rows else found


def _describing(tables: Tables) -> Callable[..., Any]:
    def describe_table(table: str) -> dict[str, Any]:
        return tables.describe(table)

    describe_table.__doc__ = (
        "Tell what a table contains and what its columns are and mean. "
        f"Tables: {tables.heads()}\n\nArgs:\n    table: name of the table\n"
    )
    # So that a model held to the schema cannot name another one.
    describe_table.__annotations__ = {"table": Literal[tables.names], "return": dict}
    return describe_table


def _querying(tables: Tables) -> Callable[..., Any]:
    def query_table(sql: str) -> dict[str, Any]:
        return tables.query(sql)

    query_table.__doc__ = (
        "Look up values in the tables by one SELECT statement in DuckDB's SQL. "
        f"Tables: {tables.heads()}\n\nArgs:\n    sql: one SELECT statement\n"
    )
    query_table.__annotations__ = {"sql": str, "return": dict}
    return query_table


def _load(base: duckdb.DuckDBPyConnection, name: str, table: Mapping[str, Any]) -> None:
    if table.get("path"):
        path = Path(table["path"])
        if path.suffix.lower() not in _READERS:
            raise Invalid(f"table '{name}': '{path.name}' is none of {', '.join(_READERS)}", "convert it")
        if not path.is_file():
            raise NotFound(f"table '{name}': there is no file '{path}'", "paths start at the folder of noria.toml")
        reader = _READERS[path.suffix.lower()]
        base.execute(f'CREATE TABLE "{name}" AS SELECT * FROM {reader}(?)', [str(path)])  # noqa: S608
        return
    base.register("incoming", _from_database(name, table))
    base.execute(f'CREATE TABLE "{name}" AS SELECT * FROM incoming')  # noqa: S608
    base.unregister("incoming")


def _from_database(name: str, table: Mapping[str, Any]) -> Any:
    """The rows of a database's query as an Arrow table; the query is the project's own, not the model's."""
    import pyarrow as pa
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = create_engine(table["url"])
        with engine.connect() as connection:
            found = connection.execution_options(stream_results=True).execute(text(table["query"]))
            columns, rows = _each_named_once(list(found.keys())), found.fetchmany(MOST_ROWS + 1)
        engine.dispose()
    except SQLAlchemyError as error:
        raise Invalid(f"table '{name}': the database refuses: {_first(error)}", "look at its url and query") from error
    if len(rows) > MOST_ROWS:
        raise Invalid(f"table '{name}': its query gives more than {MOST_ROWS:,} rows", "add a LIMIT, or use Parquet")
    return pa.table({column: [row[place] for row in rows] for place, column in enumerate(columns)})


def _each_named_once(columns: list[str]) -> list[str]:
    if twice := [name for place, name in enumerate(columns) if name in columns[:place]]:
        raise Invalid(f"two columns are called '{twice[0]}'", "name each: SELECT a.id AS a_id, b.id AS b_id")
    return columns


def _meanings(table: Mapping[str, Any]) -> dict[str, str]:
    if not table.get("columns"):
        return {}
    path = Path(table["columns"])
    if not path.is_file():
        raise NotFound(f"there is no file of meanings '{path}'", "paths start at the folder of noria.toml")
    with path.open(newline="", encoding="utf-8") as file:
        found = csv.DictReader(file)
        if not {"column", "meaning"} <= set(found.fieldnames or ()):
            raise Invalid(f"'{path}' has no columns `column` and `meaning`", "name them in its first line")
        return {row["column"]: row["meaning"] for row in found}


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]
