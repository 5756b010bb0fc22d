"""The ledger on SQLite and on a real PostgreSQL: transactions, compare-and-set, migrations."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from noria.backends import ledger
from noria.backends.sql.tables import metadata
from noria.errors import Conflict, Invalid, NotFound, Unavailable
from noria.types import ApiKey, Artifact, Cycle, Decision, Deployment, Ref, Run

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = "sqlite:///noria.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = ledger.open_engine(url, tmp_path)
    yield engine
    if request.param == "postgres":
        with engine.begin() as connection:
            connection.execute(sa.text("drop schema public cascade"))
            connection.execute(sa.text("create schema public"))
    engine.dispose()


def release(version: int, task: str = "helpdesk") -> Deployment:
    return Deployment(
        task=task, version=version, champion=None, previous=None, cycle="c", actor="test", at=NOW,
        decision=Decision(verdict="promote", because="better", evidence={"low": 0.1}),
    )  # fmt: skip


def ref(kind: str, digit: str) -> Ref:
    return Ref(kind=kind, name="helpdesk", digest=digit * 16)


def test_a_run_and_what_it_made_come_back(database: Engine) -> None:
    runs = ledger.SqlRuns(database)
    cycle = Cycle(id="c1", task="helpdesk", began=NOW)
    runs.save(cycle)
    run = Run(
        key="1" * 16, stage="dataset", task="helpdesk", cycle="c1", output=ref("dataset", "a"), seconds=1.5,
        peak_mb=20.0, at=NOW,
    )  # fmt: skip
    made = Artifact(ref=ref("dataset", "a"), parents=(ref("sources", "b"),), run_key="1" * 16, meta={"rows": 5})
    runs.record(run, made)
    assert runs.find("1" * 16) == made
    assert runs.find("2" * 16) is None
    assert runs.cycles("helpdesk", 5) == [(cycle, [run])]
    ended = cycle.model_copy(update={"ended": NOW, "verdict": "refuse"})
    runs.save(ended)
    assert runs.cycles(None, 5) == [(ended, [run])]
    assert runs.cycles("other", 5) == []


def test_only_one_of_many_writers_changes_what_serves(database: Engine) -> None:
    deployments = ledger.SqlDeployments(database)
    deployments.swap(release(1))

    def swap(_: int) -> bool:
        try:
            deployments.swap(release(2))
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(swap, range(6))) == 1
    assert [each.version for each in deployments.history("helpdesk", 9)] == [2, 1]


def test_the_live_release_of_every_task(database: Engine) -> None:
    deployments = ledger.SqlDeployments(database)
    deployments.swap(release(1))
    deployments.swap(release(2))
    deployments.swap(release(1, "triage"))
    live = [deployments.current(task) for task in ("helpdesk", "triage")]
    assert [each.version for each in live if each] == [2, 1]
    assert deployments.current("nobody") is None
    with pytest.raises(Conflict):
        deployments.swap(release(2))


def test_a_key_ends_once(database: Engine) -> None:
    keys = ledger.SqlKeys(database)
    key = ApiKey(id="k1", name="app", sha256="a" * 64, prefix="noria-abc", role="user", made=NOW)
    keys.add(key)
    keys.revoke("k1", NOW)
    assert [each.revoked for each in keys.all()] == [NOW]
    with pytest.raises(NotFound):
        keys.revoke("k1", NOW)


def test_opening_twice_migrates_once(database: Engine, tmp_path: Path) -> None:
    ledger.SqlDeployments(database).swap(release(1))
    url = database.url.render_as_string(hide_password=False)
    again = ledger.open_engine(url, tmp_path)
    assert ledger.SqlDeployments(again).current("helpdesk") == release(1)
    again.dispose()


def test_a_ledger_of_the_first_version_keeps_its_keys_and_learns_limits(database: Engine, tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    url = database.url.render_as_string(hide_password=False)
    config = Config()
    config.set_main_option("script_location", str(ledger.SQL_FOLDER))
    config.set_main_option("path_separator", "os")
    old = {"id": "k0", "name": "old", "sha256": "b" * 64, "prefix": "noria-old", "role": "user"}
    with database.begin() as connection:
        for table in (*metadata.tables, "alembic_version"):
            connection.execute(sa.text(f"drop table {table}"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        assert "limits" not in [each["name"] for each in sa.inspect(connection).get_columns("keys")]
        first = sa.table("keys", *map(sa.column, (*old, "made")))
        connection.execute(sa.insert(first).values(**old, made=NOW.isoformat()))
    again = ledger.open_engine(url, tmp_path)
    keys = ledger.SqlKeys(again)
    new = ApiKey(
        id="k1", name="app", sha256="a" * 64, prefix="noria-abc", role="user", made=NOW + timedelta(seconds=1),
        models=("helpdesk",), limits={"requests_per_minute": 5, "cost_per_day": 0.5},
    )  # fmt: skip
    keys.add(new)
    assert keys.all() == [ApiKey.model_validate({**old, "made": NOW}), new]
    again.dispose()


def test_an_absent_database_is_told_as_such(database: Engine) -> None:
    if database.dialect.name == "sqlite":
        with database.begin() as connection:
            connection.execute(sa.text("alter table keys rename to away"))
        with pytest.raises(Unavailable, match="the ledger does not answer: no such table"):
            ledger.SqlKeys(database).all()
        return
    with pytest.raises(Unavailable, match="cannot be opened"):
        ledger.open_engine(database.url.set(port=1).render_as_string(hide_password=False), Path())
    keys = ledger.SqlKeys(database)
    assert keys.all() == []
    with database.connect() as connection:
        others = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
        keys.all()
        connection.execute(sa.text(others))
        with pytest.raises(Unavailable, match="the ledger does not answer"):
            keys.all()
    assert keys.all() == []


def test_many_processes_may_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(lambda _: ledger.open_engine("sqlite:///noria.db", tmp_path), range(4)))
    for engine in engines:
        assert ledger.SqlDeployments(engine).current("helpdesk") is None
        engine.dispose()


def test_the_migrations_make_the_tables_that_the_code_uses(database: Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://///"])
def test_a_wrong_url_is_one_clear_error(tmp_path: Path, url: str) -> None:
    with pytest.raises((Invalid, Unavailable)) as caught:
        ledger.open_engine(url, tmp_path)
    assert caught.value.hint
