"""Rows of databases: PostgreSQL by a cursor, types as text, nothing but reading."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from noria.errors import Invalid
from noria.lake import sql, watermark
from noria.lake.rows import Row
from noria.settings import SourceSettings


def ask(url: str, query: str, root: Path) -> sql.Answer:
    source = SourceSettings(name="shop", kind="sql", url=url, query=query)
    return sql.ask(source, root, root / "kept", "here")


def rows(answer: sql.Answer) -> list[dict[str, str]]:
    return [item.fields for item in answer.items() if isinstance(item, Row)]


TYPES = """select 'ü'::text as text, 1.10::numeric as money, 9007199254740993::bigint as large, true as yes,
    null::text as none, '\\xdeadbeef'::bytea as bytes, '{"a": [1, "ü"]}'::jsonb as json, array['a', 'b,c'] as list,
    array[array[1, 2], array[3, 4]] as grid, '2024-03-31 01:30:00+00'::timestamptz as at, 'infinity'::timestamp as ever,
    date '0044-03-15 BC' as ides, interval '1 year 2 days' as span, array[date '2024-01-02'] as days,
    '6f1c1c0e-6f57-4c6e-9a3c-0d6f2f0d4b11'::uuid as id, '10.0.0.1'::inet as host, int4range(1, 5) as range"""


@pytest.mark.slow
def test_types_of_postgresql_are_text(postgres: str, tmp_path: Path) -> None:
    (row,) = rows(ask(postgres, TYPES, tmp_path))
    assert row == {
        "text": "ü",
        "money": "1.10",
        "large": "9007199254740993",
        "yes": "true",
        "none": "",
        "bytes": "deadbeef",
        "json": '{"a": [1, "ü"]}',
        "list": '["a", "b,c"]',
        "grid": "[[1, 2], [3, 4]]",
        "at": "2024-03-31 01:30:00+00",
        "ever": "infinity",
        "ides": "0044-03-15 BC",
        "span": "1 year 2 days",
        "days": '["2024-01-02"]',
        "id": "6f1c1c0e-6f57-4c6e-9a3c-0d6f2f0d4b11",
        "host": "10.0.0.1",
        "range": "[1, 5)",
    }


@pytest.mark.slow
def test_many_rows_of_postgresql_come_by_a_cursor(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is asked for some rows at a time; past SPOOL_BYTES they wait on disk."""
    monkeypatch.setattr(sql, "SPOOL_BYTES", 1000)
    count = 3 * watermark.FETCH + 1
    query = f"select n::text as id, repeat('x', 100) as body from generate_series(1, {count}) as n"
    up, down = (ask(postgres, f"{query} order by n {way}", tmp_path) for way in ("asc", "desc"))
    assert up.digest == down.digest
    assert rows(up) == rows(down)
    assert {row["id"] for row in rows(up)} == {str(number) for number in range(1, count + 1)}
    assert up.digest != ask(postgres, f"{query} where n > 1", tmp_path).digest
    assert up.name == postgres


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("select nonsense", "the query failed: column"),
        ("select 1 as a, 2 as a", "two columns are called 'a'"),
        ("delete from kept returning id", "the query failed"),
        ("with gone as (delete from kept returning id) select id from gone", "the query failed"),
        ("select nextval('counter')", "the query failed: cannot execute nextval"),
    ],
)
def test_a_query_of_postgresql_only_reads(postgres: str, tmp_path: Path, query: str, error: str) -> None:
    engine = create_engine(postgres)
    with engine.begin() as connection:
        connection.exec_driver_sql("create table if not exists kept (id text)")
        connection.exec_driver_sql("create sequence if not exists counter")
        connection.exec_driver_sql("insert into kept values ('1')")
    with pytest.raises(Invalid, match=error):
        ask(postgres, query, tmp_path)
    with engine.begin() as connection:
        assert connection.exec_driver_sql("select count(*) from kept").scalar_one() > 0
    engine.dispose()


def test_rows_of_sqlite_keep_their_copies(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("create table t (a text, b blob)")
        database.executemany("insert into t values (?, ?)", [("x", b"\xff"), ("x", b"\xff"), ("ü", None)])
    database.close()
    answer = ask("sqlite:///shop.db", "select * from t", tmp_path)
    assert sorted(row["a"] for row in rows(answer)) == ["x", "x", "ü"]
    assert {row["b"] for row in rows(answer)} == {"ff", ""}
    assert [item.offset for item in answer.items() if isinstance(item, Row)] == [0, 1, 2]
    assert rows(ask("sqlite:///shop.db", "select * from t where a = 'no'", tmp_path)) == []


def test_no_password_of_an_address_is_part_of_its_name(tmp_path: Path) -> None:
    url = "postgresql+psycopg://me:hunter2@h/shop?password=hunter2&sslPassword=hunter2&sslmode=require"
    address, name = sql.address_of(url, tmp_path, "here")
    assert address.query["password"] == "hunter2"
    assert name == "postgresql+psycopg://me:***@h/shop?sslmode=require"
