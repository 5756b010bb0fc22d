"""The ledger: one SQL database (SQLite in WAL mode, or PostgreSQL) behind the ports of what it keeps."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine, Row

from noria.backends.sql import tables as t
from noria.errors import Conflict, Invalid, NotFound, Unavailable
from noria.stores import Alert
from noria.types import ApiKey, Artifact, Cycle, Deployment, Ref, Run

CONNECT_SECONDS = 5
SQL_FOLDER = Path(__file__).parent / "sql"


def open_engine(url: str, root: Path) -> Engine:
    """An engine for the ledger's URL; a relative SQLite file starts at `root`. Migrates to the newest version."""
    try:
        parsed = sa.engine.make_url(url)
    except sa.exc.ArgumentError as error:
        raise Invalid(f"'{url}' is not a database URL", "such as sqlite:///noria.db", where="runtime.ledger") from error
    local = parsed.get_backend_name() == "sqlite"
    if local and parsed.database and not Path(parsed.database).is_absolute():
        parsed = parsed.set(database=str(root / parsed.database))
    try:
        patience = {"timeout": 30} if local else {"connect_timeout": CONNECT_SECONDS}
        engine = sa.create_engine(parsed, connect_args=patience)
        if local:
            sa.event.listen(engine, "connect", _tune_sqlite)
            with _one_at_a_time(Path(str(parsed.database) + ".lock")):
                _migrate(engine)
        else:
            _migrate(engine)
    except (sa.exc.OperationalError, ModuleNotFoundError) as error:
        shown = parsed.render_as_string(hide_password=True)
        raise Unavailable(f"the ledger '{shown}' cannot be opened: {error}", "check [runtime] ledger") from error
    sa.event.listen(engine, "handle_error", _tell_absence, retval=True)
    return engine


def _tell_absence(context: sa.engine.ExceptionContext) -> Unavailable | None:
    """An Unavailable for what tells that the database is away; None leaves the error as it is."""
    error = context.sqlalchemy_exception
    if context.is_disconnect or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        words = str(context.original_exception).strip().partition("\n")[0]
        return Unavailable(f"the ledger does not answer: {words}", "check [runtime] ledger")
    return None


def _tune_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _migrate(engine: Engine) -> None:
    newest = max(path.name[:4] for path in (SQL_FOLDER / "versions").glob("[0-9]*.py"))
    with engine.begin() as connection:
        if sa.inspect(connection).has_table("alembic_version"):
            present = connection.scalar(sa.text("select version_num from alembic_version"))
            if present == newest:
                return
        # Alembic takes long to import; most starts find the newest version and never need it.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(SQL_FOLDER))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


class SqlRuns:
    """Port `Runs`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def save(self, cycle: Cycle) -> None:
        """Store a cycle when it starts, and again when it has ended."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(t.cycles).where(t.cycles.c.id == cycle.id))
            connection.execute(sa.insert(t.cycles).values(**cycle.model_dump(mode="json")))

    def record(self, run: Run, artifact: Artifact) -> None:
        """Store a finished run and what it made, in one transaction."""
        row = {**run.model_dump(mode="json"), "output": str(run.output)}
        made = {
            "ref": str(artifact.ref),
            "run_key": artifact.run_key,
            "parents": json.dumps([str(ref) for ref in artifact.parents]),
            "meta": json.dumps(artifact.meta, ensure_ascii=False),
        }
        with self._engine.begin() as connection:
            connection.execute(sa.insert(t.runs).values(**row))
            connection.execute(sa.delete(t.artifacts).where(t.artifacts.c.ref == made["ref"]))
            connection.execute(sa.insert(t.artifacts).values(**made))

    def find(self, key: str) -> Artifact | None:
        """What the latest run with this key made."""
        query = sa.select(t.runs.c.output).where(t.runs.c.key == key).order_by(t.runs.c.id.desc()).limit(1)
        with self._engine.connect() as connection:
            output = connection.scalar(query)
        if output is None:
            return None
        found = self.artifact(Ref.parse(output))
        return found.model_copy(update={"run_key": key}) if found else None

    def artifact(self, ref: Ref) -> Artifact | None:
        """The artifact of this name, with its parents."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(t.artifacts).where(t.artifacts.c.ref == str(ref))).first()
        if row is None:
            return None
        parents = tuple(Ref.parse(text) for text in json.loads(row.parents))
        return Artifact(ref=ref, parents=parents, run_key=row.run_key, meta=json.loads(row.meta))

    def cycles(self, task: str | None, limit: int) -> list[tuple[Cycle, list[Run]]]:
        """The latest cycles, newest first, with their runs in order."""
        query = sa.select(t.cycles).order_by(t.cycles.c.began.desc(), t.cycles.c.id.desc()).limit(limit)
        if task is not None:
            query = query.where(t.cycles.c.task == task)
        with self._engine.connect() as connection:
            found = [Cycle.model_validate(dict(row._mapping)) for row in connection.execute(query)]
            wanted = sa.select(t.runs).where(t.runs.c.cycle.in_([cycle.id for cycle in found])).order_by(t.runs.c.id)
            made = [_run(row) for row in connection.execute(wanted)]
        return [(cycle, [run for run in made if run.cycle == cycle.id]) for cycle in found]


class SqlDeployments:
    """Port `Deployments`: every release is a row; the live one is the highest version."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def current(self, task: str) -> Deployment | None:
        """The live deployment of a task."""
        found = self.history(task, 1)
        return found[0] if found else None

    def history(self, task: str, limit: int) -> list[Deployment]:
        """Releases of a task, newest first."""
        query = (
            sa.select(t.deployments.c.record)
            .where(t.deployments.c.task == task)
            .order_by(t.deployments.c.version.desc())
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [Deployment.model_validate_json(text) for text in connection.scalars(query)]

    def swap(self, new: Deployment) -> None:
        """Store `new` if the live version is `new.version - 1`; raises Conflict otherwise."""
        newest = sa.select(sa.func.max(t.deployments.c.version)).where(t.deployments.c.task == new.task)
        try:
            with self._engine.begin() as connection:
                if (connection.scalar(newest) or 0) != new.version - 1:
                    raise _changed(new)
                connection.execute(
                    sa.insert(t.deployments).values(
                        task=new.task, version=new.version, record=new.model_dump_json(), at=new.at.isoformat()
                    )
                )
        except sa.exc.IntegrityError as error:
            raise _changed(new) from error


class SqlKeys:
    """Port `Keys`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> list[ApiKey]:
        """Every key, revoked ones too, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(t.keys).order_by(t.keys.c.made))
            return [_key(row) for row in rows]

    def add(self, key: ApiKey) -> None:
        """Store a key; raises Conflict where its text is one's already."""
        stored = key.model_dump(mode="json")
        stored |= {"models": json.dumps(stored["models"]), "limits": json.dumps(stored["limits"])}
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(t.keys).values(**stored))
        except sa.exc.IntegrityError as error:
            raise Conflict(f"there is a key like '{key.name}' already", "list them: noria keys list") from error

    def revoke(self, identity: str, at: datetime) -> None:
        """End a key's life; raises NotFound."""
        where = (t.keys.c.id == identity) & t.keys.c.revoked.is_(None)
        with self._engine.begin() as connection:
            if connection.execute(sa.update(t.keys).where(where).values(revoked=at.isoformat())).rowcount != 1:
                raise NotFound(f"there is no live key '{identity}'", "list them: noria keys list")


class SqlAlerts:
    """Port `Alerts`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def fire(self, alert: Alert) -> None:
        """Store an alert, unless one of this subject is open already."""
        here = (t.alerts.c.subject == alert.subject) & t.alerts.c.resolved.is_(None)
        with self._engine.begin() as connection:
            if connection.scalar(sa.select(t.alerts.c.id).where(here)) is None:
                row = {**asdict(alert), "at": alert.at.isoformat(), "resolved": None}
                connection.execute(sa.insert(t.alerts).values(**row))

    def resolve(self, subject: str, at: datetime) -> None:
        """End the open alert of a subject, if there is one."""
        here = (t.alerts.c.subject == subject) & t.alerts.c.resolved.is_(None)
        with self._engine.begin() as connection:
            connection.execute(sa.update(t.alerts).where(here).values(resolved=at.isoformat()))

    def open(self) -> list[Alert]:
        """Those that nothing has ended yet, oldest first."""
        query = sa.select(t.alerts).where(t.alerts.c.resolved.is_(None)).order_by(t.alerts.c.at, t.alerts.c.id)
        with self._engine.connect() as connection:
            return [
                Alert(row.id, row.subject, row.fact, row.hint, datetime.fromisoformat(row.at))
                for row in connection.execute(query)
            ]


def _changed(new: Deployment) -> Conflict:
    return Conflict(f"what serves '{new.task}' was changed by somebody else in the meantime", "look: noria status")


def _key(row: Row[Any]) -> ApiKey:
    values = dict(row._mapping)
    # Keys that are older than these columns have neither.
    return ApiKey.model_validate(
        {**values, "models": json.loads(values["models"] or "[]"), "limits": json.loads(values["limits"] or "{}")}
    )


def _run(row: Row[Any]) -> Run:
    values = {name: value for name, value in row._mapping.items() if name != "id"}
    return Run.model_validate({**values, "output": Ref.parse(row.output)})
