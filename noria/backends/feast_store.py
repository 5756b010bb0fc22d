"""Feature views in Feast: DuckDB over the lake's Parquet for training, an online store for serving.

Feast's registry is made from noria's own settings and kept in the project's state: nothing is declared twice.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import io
import os
import re
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from noria.backends import feature_parts
from noria.errors import Invalid, NotFound, Unavailable
from noria.ports import FeatureView

if TYPE_CHECKING:
    import feast

_INSTALL = "pip install 'noria[features]'"
_BATCH = 4096
"""Rows that are brought online at a time."""
_PLAIN: Mapping[str, Callable[[Sequence[Any]], list[Any]]] = {
    "ints": lambda values: [list(v.int64_list_val.val) if v.HasField("int64_list_val") else None for v in values],
    "floats": lambda values: [list(v.float_list_val.val) if v.HasField("float_list_val") else None for v in values],
    "int": lambda values: [v.int64_val if v.HasField("int64_val") else None for v in values],
    "text": lambda values: [v.string_val if v.HasField("string_val") else None for v in values],
}
"""What Feast's values hold, by kind of field."""


class FeastStore:
    """Port `FeatureStore`; `online` is the URL of the online store. Feast is imported when a view is first used."""

    def __init__(self, online: str, root: Path, state: Path) -> None:
        self._online: Final = online_store(online, root)
        self._state: Final = state
        self._opened: dict[str, feast.FeatureStore] = {}

    def add(self, view: FeatureView, rows: pa.Table, part: str) -> None:
        """Add a file to the view's folder."""
        feature_parts.add(view, rows, part)

    def history(self, view: FeatureView, asked: pa.Table) -> pa.Table:
        """Feast's point-in-time join on DuckDB, put back into the order that was asked for."""
        if not feature_parts.parts(view):
            raise _nothing(view)
        placed = asked.select([view.entity, "event_timestamp"])
        placed = placed.append_column("place", pa.array(range(asked.num_rows), pa.int64()))
        with self._using(view) as store:
            job = store.get_historical_features(entity_df=placed.to_pandas(), features=_names(view))
            found = job.to_arrow()
        found = found.sort_by("place")
        return pa.table({name: found[name].cast(kind) for name, kind in _columns(view, found)})

    def materialize(self, view: FeatureView, since: datetime, until: datetime) -> int:
        """Bring the latest rows online; Feast reads them through DuckDB."""
        if not feature_parts.parts(view):
            raise _nothing(view)
        times = feature_parts.read(view, [view.entity, "event_timestamp"])
        stamps = times["event_timestamp"]
        kind = stamps.type
        within = pc.and_(
            pc.greater_equal(stamps, pa.scalar(since, kind)), pc.less_equal(stamps, pa.scalar(until, kind))
        )
        keys = pc.count_distinct(times.filter(within)[view.entity]).as_py()
        if keys:
            with self._using(view, writing=True) as store:
                store.materialize(since, until, feature_views=[view.name])
        return int(keys)

    def push(self, view: FeatureView, rows: pa.Table) -> None:
        """Write the rows online, in batches."""
        rows = feature_parts.fitted(view, rows)
        with self._using(view, writing=True) as store:
            for batch in rows.to_batches(_BATCH):
                if batch.num_rows:
                    store.write_to_online_store(view.name, df=batch.to_pandas())

    def read(self, view: FeatureView, keys: Sequence[str], fields: Sequence[str] = ()) -> pa.Table:
        """Feast's online features; one that was removed reads as if it had never been there."""
        with self._using(view) as store:
            asked = [{view.entity: key} for key in keys]
            wanted = [f"{view.name}:{name}" for name in fields or view.fields]
            answer = store.get_online_features(features=wanted, entity_rows=asked).proto
        names = answer.metadata.feature_names.val
        found = {name: result.values for name, result in zip(names, answer.results, strict=True)}
        whole = feature_parts.schema_of(view)
        schema = pa.schema([whole.field(name) for name in (view.entity, *(fields or view.fields))])
        columns = [keys, *(_PLAIN[view.fields[name]](found[name]) for name in schema.names[1:])]
        arrays = [pa.array(each, field.type) for each, field in zip(columns, schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema)

    def remove(self, view: FeatureView, keys: Sequence[str], at: datetime) -> int:
        """Take the rows out of the files; online they become empty, since Feast deletes no single row."""
        gone = feature_parts.remove(view, keys)
        if keys and self._made(view).is_file():
            schema = feature_parts.schema_of(view)
            empty = schema.empty_table().to_pandas().reindex(range(len(keys))).astype(object)
            frame = empty.assign(**{view.entity: list(keys), "event_timestamp": at, "created": at})
            with self._using(view, writing=True) as store:
                # write_to_online_store leaves out rows without any value.
                store._get_provider().ingest_df(store.get_feature_view(view.name), frame)
            self._compact()
        return gone

    def close(self) -> None:
        """Close the connections that Feast keeps open for as long as the process lives."""
        for store in self._opened.values():
            kept = store._get_provider().online_store
            for name in ("_conn", "_client"):
                if (connection := getattr(kept, name, None)) is not None:
                    connection.close()
                    setattr(kept, name, None)
        self._opened.clear()

    def _compact(self) -> None:
        """Overwrite what SQLite keeps of removed rows in its free pages."""
        if self._online["type"] == "sqlite":
            with contextlib.closing(sqlite3.connect(str(self._online["path"]))) as database:
                database.execute("VACUUM")

    def _made(self, view: FeatureView) -> Path:
        return self._state / view.project / "registry.db"

    @contextlib.contextmanager
    def _using(self, view: FeatureView, *, writing: bool = False) -> Iterator[feast.FeatureStore]:
        """The view's store; one process at a time writes. Raises Unavailable where the online store does not answer."""
        with _quietly(), self._locked(view, writing or view.project not in self._opened):
            try:
                _ignore_ibis()
                if view.project not in self._opened:
                    self._opened[view.project] = self._open(view)
                yield self._opened[view.project]
            except ModuleNotFoundError as error:
                raise Unavailable(f"'{error.name}' is not installed", _INSTALL) from error
            except _faults() as error:
                place = self._online["type"]
                raise Unavailable(
                    f"the online store ({place}) does not answer: {str(error).splitlines()[0]}",
                    "start it, or set features in [runtime]",
                ) from error

    @contextlib.contextmanager
    def _locked(self, view: FeatureView, alone: bool) -> Iterator[None]:
        if not alone:
            yield
            return
        folder = self._state / view.project
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _open(self, view: FeatureView) -> feast.FeatureStore:
        import feast
        from feast.repo_config import RepoConfig

        config = RepoConfig(
            project=view.project,
            provider="local",
            registry=str(self._made(view)),
            offline_store={"type": "duckdb"},
            online_store=self._online,
            entity_key_serialization_version=3,
            repo_path=self._state / view.project,
        )
        store = feast.FeatureStore(config=config)
        store.apply([*_declared(view)])
        atexit.register(_hush)
        return store


def online_store(url: str, root: Path) -> dict[str, Any]:
    """Feast's table for the online store at this URL; raises Invalid for one of an unknown kind."""
    parts = urlsplit(url)
    kind = parts.scheme.partition("+")[0]
    if kind == "sqlite" and parts.path.strip("/"):
        file = (root / parts.path[1:]).resolve()
        return {"type": "sqlite", "path": str(file)}
    if kind in ("redis", "rediss") and parts.hostname:
        password = unquote(parts.password or "")
        if "," in password:
            raise Invalid("Feast cannot use a Redis password with a comma in it", "choose another password")
        named = {"username": unquote(parts.username or ""), "password": password, "db": parts.path.strip("/")}
        named["ssl"] = "true" if kind == "rediss" else ""
        more = [f"{name}={value}" for name, value in named.items() if value]
        return {"type": "redis", "connection_string": ",".join([f"{parts.hostname}:{parts.port or 6379}", *more])}
    if kind == "postgresql" and parts.hostname and parts.path.strip("/"):
        return {
            "type": "postgres", "host": parts.hostname, "port": parts.port or 5432, "database": parts.path.strip("/"),
            "user": unquote(parts.username or ""), "password": unquote(parts.password or ""), "sslmode": "prefer",
        }  # fmt: skip
    shown = re.sub(r"//[^@/]*@", "//", url)
    raise Invalid(
        f"'{shown}' is no online store of features",
        'features = "sqlite:///FILE", "redis://HOST:6379/0" or "postgresql+psycopg://USER@HOST/DATABASE"',
    )


def _declared(view: FeatureView) -> Iterator[Any]:
    from feast import Entity, Field, FileSource, ValueType
    from feast import FeatureView as View
    from feast.data_format import ParquetFormat
    from feast.types import Array, Float32, Int64, String

    kinds = {"ints": Array(Int64), "floats": Array(Float32), "int": Int64, "text": String}
    entity = Entity(name=view.entity, join_keys=[view.entity], value_type=ValueType.STRING)
    source = FileSource(
        name=f"{view.name}_source",
        # A relative path would start at whatever folder the process is in.
        path=str(view.table.resolve() / "*.parquet"),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    yield entity
    fields = [Field(name=name, dtype=kinds[kind]) for name, kind in view.fields.items()]
    yield View(
        name=view.name, entities=[entity], ttl=None, online=True, source=source, tags=dict(view.tags),
        schema=[Field(name=view.entity, dtype=String), *fields],
    )  # fmt: skip


def _columns(view: FeatureView, found: pa.Table) -> Iterator[tuple[str, pa.DataType]]:
    schema = feature_parts.schema_of(view)
    for name in (view.entity, "event_timestamp", *view.fields):
        yield name, schema.field(name).type


def _names(view: FeatureView) -> list[str]:
    return [f"{view.name}:{name}" for name in view.fields]


def _nothing(view: FeatureView) -> NotFound:
    return NotFound(
        f"'{view.name}' has no history yet", "make features: noria run features, noria features materialize"
    )


def _faults() -> tuple[type[Exception], ...]:
    """What the clients of the online stores raise, as far as they are installed."""
    found: list[type[Exception]] = [sqlite3.OperationalError, OSError]
    with contextlib.suppress(ModuleNotFoundError):
        from redis.exceptions import RedisError

        found.append(RedisError)
    with contextlib.suppress(ModuleNotFoundError):
        from psycopg import OperationalError

        found.append(OperationalError)
    return tuple(found)


def _hush() -> None:
    """Throw away what DuckDB's binding says of itself on standard error after the last line of Python has run."""
    sys.stderr.flush()
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Feast tells of its work on standard output, in colours, and sets filters of warnings for the whole process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
        yield


def _ignore_ibis() -> None:
    """Ibis calls what DuckDB has deprecated. Feast's own filters, set when it is imported, would come before this."""
    import feast  # noqa: F401

    warnings.filterwarnings("ignore", message="fetch_arrow_table", category=DeprecationWarning)
