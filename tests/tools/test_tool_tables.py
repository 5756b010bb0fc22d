"""Questions to tables: what they answer, and that nothing else can be reached through them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from noria.backends import duck_tables
from noria.errors import Invalid, NoriaError, NotFound
from noria.settings import bare_environment
from noria.tools.functions import FunctionTool
from noria.tools.process import Functions, Opened

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[2] / "examples" / "tools" / "data"
TAXI = [
    "VendorID",
    "tpep_pickup_datetime",
    "tpep_dropoff_datetime",
    "passenger_count",
    "trip_distance",
    "RatecodeID",
    "store_and_fwd_flag",
    "PULocationID",
    "DOLocationID",
    "payment_type",
    "fare_amount",
    "extra",
    "mta_tax",
    "tip_amount",
    "tolls_amount",
    "improvement_surcharge",
    "total_amount",
    "congestion_surcharge",
    "Airport_fee",
    "cbd_congestion_fee",
]


@pytest.fixture(scope="module")
def tools() -> dict[str, FunctionTool]:
    tables = {
        name: {"path": str(DATA / f"{name}.csv"), "columns": str(DATA / f"{name}_columns.csv"), "about": f"the {name}"}
        for name in ("taxi", "apistox", "compounds")
    }
    return {name: FunctionTool(each) for name, each in duck_tables.open(tables, rows=30).items()}


def described(tools: dict[str, FunctionTool], table: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tools["describe_table"].call({"table": table}, 100_000).text)
    return found


def rows(tools: dict[str, FunctionTool], sql: str) -> list[dict[str, Any]]:
    found = tools["query_table"].call({"sql": sql}, 100_000)
    assert found.outcome == "ok", found.text
    told: list[dict[str, Any]] = json.loads(found.text)["rows"]
    return told


def test_the_taxi_data_has_its_twenty_columns_with_meanings(tools: dict[str, FunctionTool]) -> None:
    found = described(tools, "taxi")
    assert [each["column"] for each in found["columns"]] == TAXI
    assert all(each["meaning"] for each in found["columns"])
    flag = next(each["meaning"] for each in found["columns"] if each["column"] == "store_and_fwd_flag")
    assert "held in the vehicle" in flag


def test_the_smiles_of_two_compounds_come_from_data(tools: dict[str, FunctionTool]) -> None:
    sql = "SELECT smiles FROM compounds WHERE name = '{0}' OR other_name = '{0}'"
    assert rows(tools, sql.format("ethanedioic acid")) == [{"smiles": "OC(=O)C(=O)O"}]
    assert rows(tools, sql.format("calcium carbonate")) == [{"smiles": "[Ca+2].[O-]C([O-])=O"}]


def test_apistox_is_about_bees_and_only_named_tables_can_be_asked_for(tools: dict[str, FunctionTool]) -> None:
    assert [each["column"] for each in described(tools, "apistox")["columns"]][:4] == ["name", "CID", "CAS", "SMILES"]
    assert tools["describe_table"].spec.parameters["properties"]["table"]["enum"] == ["taxi", "apistox", "compounds"]  # type: ignore[index, call-overload]
    assert tools["describe_table"].call({"table": "passwd"}, 1000).outcome == "invalid"


def test_more_rows_than_allowed_are_told_of(tools: dict[str, FunctionTool]) -> None:
    found = json.loads(tools["query_table"].call({"sql": "FROM taxi"}, 100_000).text)
    assert (len(found["rows"]), found["note"]) == (30, "only the first 30 rows")


HOSTILE = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_blob('{data}/taxi.csv')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '{data}/taxi.csv'",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
    "SELECT * FROM query('COPY taxi TO ''{out}''')",
    "SELECT * FROM tables",
    "COPY taxi TO '{out}'",
    "COPY (SELECT 1) TO '{out}'",
    "COPY taxi FROM '/etc/passwd'",
    "EXPORT DATABASE '{out}'",
    "IMPORT DATABASE '{out}'",
    "ATTACH '{out}'",
    "DETACH memory",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "SET enable_external_access = true",
    "RESET enable_external_access",
    "SET lock_configuration = false",
    "CALL pragma_version()",
    "CREATE TABLE x AS SELECT 1",
    "CREATE TEMP TABLE x AS SELECT 1",
    "CREATE MACRO f(a) AS a",
    "CREATE SECRET s (TYPE http, BEARER_TOKEN 'x')",
    "INSERT INTO taxi SELECT * FROM taxi",
    "UPDATE taxi SET total_amount = 0",
    "DELETE FROM taxi",
    "DROP TABLE taxi",
    "ALTER TABLE taxi RENAME TO x",
    "WITH t AS (SELECT 1) DELETE FROM taxi",
    "BEGIN",
    "CHECKPOINT",
    "VACUUM",
    "EXPLAIN ANALYZE SELECT 1",
    "PREPARE p AS DELETE FROM taxi",
    "EXECUTE p",
    "SELECT 1; DROP TABLE taxi",
    "SELECT 1; SELECT 2",
    "",
    ";",
    "no SQL at all",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_anything_but_one_select_of_the_tables_fails(tools: dict[str, FunctionTool], tmp_path: Path, sql: str) -> None:
    out = tmp_path / "out"
    found = tools["query_table"].call({"sql": sql.format(data=DATA, out=out)}, 1000)
    assert found.outcome == "failed", found.text
    assert "root:" not in found.text
    assert not out.exists()
    assert rows(tools, "SELECT count(*) AS n FROM taxi") == [{"n": 200}]


def test_what_never_ends_is_stopped_and_what_wants_all_memory_fails() -> None:
    options: dict[str, Any] = {"tables": {"taxi": {"path": str(DATA / "taxi.csv")}}, "memory_mb": 64}
    endless = "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t"
    with Functions([Opened("table", "tables", options)], DATA, bare_environment(())) as functions:
        assert functions.call("query_table", {"sql": endless}, 0.5, 1000).outcome in ("late", "failed")
        greedy = functions.call("query_table", {"sql": "SELECT list(a.range) FROM range(100000000) a"}, 9, 1000)
        assert (greedy.outcome, "Memory" in greedy.text) == ("failed", True)
        assert functions.call("query_table", {"sql": "SELECT 1 AS one"}, 9, 1000).text == '{"rows": [{"one": 1}]}'


def test_parquet_and_databases_are_read_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "n.parquet")
    with sqlite3.connect(tmp_path / "shop.db") as base:
        base.execute("CREATE TABLE goods (name TEXT, price REAL)")
        base.execute("INSERT INTO goods VALUES ('nail', 0.5), ('saw', 9)")
    base.close()
    tables = {
        "n": {"path": str(tmp_path / "n.parquet")},
        "goods": {"url": f"sqlite:///{tmp_path}/shop.db", "query": "SELECT * FROM goods"},
    }
    tools = {name: FunctionTool(each) for name, each in duck_tables.open(tables).items()}
    assert rows(tools, "SELECT sum(n) AS s FROM n") == [{"s": 3}]
    assert rows(tools, "SELECT name FROM goods WHERE price > 1") == [{"name": "saw"}]


@pytest.mark.parametrize(
    ("table", "kind", "told"),
    [
        ({"path": "none.csv"}, NotFound, "there is no file 'none.csv'"),
        ({"path": str(Path(__file__))}, Invalid, "is none of .csv"),
        ({"path": str(DATA / "taxi.csv"), "columns": str(DATA / "taxi.csv")}, Invalid, "no columns `column`"),
        ({"url": "sqlite:///none/x.db", "query": "SELECT 1"}, Invalid, "the database refuses"),
    ],
)
def test_a_table_that_cannot_be_read_is_told(table: dict[str, Any], kind: type[NoriaError], told: str) -> None:
    with pytest.raises(kind, match=told):
        duck_tables.open({"x": table})


def test_columns_of_one_name_are_refused_not_dropped(tools: dict[str, FunctionTool], tmp_path: Path) -> None:
    found = tools["query_table"].call({"sql": "SELECT 1 AS id, 2 AS id"}, 1000)
    assert (found.outcome, "two columns are called 'id'" in found.text) == ("failed", True)
    with pytest.raises(Invalid, match="two columns are called 'id'"):
        duck_tables.open({"x": {"url": f"sqlite:///{tmp_path}/x.db", "query": "SELECT 1 AS id, 2 AS id"}})
