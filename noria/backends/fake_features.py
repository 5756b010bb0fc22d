"""A stand-in for Feast that ships with noria: histories and online rows in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from noria.backends.feature_parts import fitted, schema_of
from noria.errors import NotFound
from noria.ports import FeatureView


class FakeFeatures:
    """Port `FeatureStore` in this process; it keeps nothing."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self._online: dict[str, dict[str, dict[str, Any]]] = {}

    def add(self, view: FeatureView, rows: pa.Table, part: str) -> None:
        """Keep the rows under the part's name."""
        self._parts.setdefault(view.project, {}).setdefault(part, fitted(view, rows).to_pylist())

    def history(self, view: FeatureView, asked: pa.Table) -> pa.Table:
        """The latest row of each at its time."""
        rows = self._rows(view)
        found = []
        for each in asked.select([view.entity, "event_timestamp"]).to_pylist():
            before = [row for row in rows if row[view.entity] == each[view.entity]]
            found.append({**self._latest(view, before, each["event_timestamp"]), **each})
        schema = schema_of(view)
        names = [view.entity, "event_timestamp", *view.fields]
        return pa.Table.from_pylist(found, pa.schema([schema.field(name) for name in names]))

    def materialize(self, view: FeatureView, since: datetime, until: datetime) -> int:
        """Take over the latest row of each entity."""
        within = [row for row in self._rows(view) if since <= row["event_timestamp"] <= until]
        for key in (keys := {row[view.entity] for row in within}):
            mine = [row for row in within if row[view.entity] == key]
            self._online.setdefault(view.project, {})[key] = self._latest(view, mine, until)
        return len(keys)

    def push(self, view: FeatureView, rows: pa.Table) -> None:
        """Take over the rows."""
        for row in fitted(view, rows).to_pylist():
            self._online.setdefault(view.project, {})[row[view.entity]] = {name: row[name] for name in view.fields}

    def read(self, view: FeatureView, keys: Sequence[str], fields: Sequence[str] = ()) -> pa.Table:
        """What was taken over."""
        there, schema = self._online.get(view.project, {}), schema_of(view)
        rows = [{view.entity: key, **there.get(key, {})} for key in keys]
        return pa.Table.from_pylist(
            rows, pa.schema([schema.field(name) for name in (view.entity, *(fields or view.fields))])
        )

    def remove(self, view: FeatureView, keys: Sequence[str], at: datetime) -> int:
        """Drop the rows."""
        gone = 0
        for part, rows in self._parts.get(view.project, {}).items():
            left = [row for row in rows if row[view.entity] not in keys]
            gone += len(rows) - len(left)
            self._parts[view.project][part] = left
        for key in keys:
            self._online.get(view.project, {}).pop(key, None)
        return gone

    def _rows(self, view: FeatureView) -> list[dict[str, Any]]:
        parts = self._parts.get(view.project)
        if not parts:
            raise NotFound(f"'{view.name}' has no history yet", "add rows first")
        return [row for rows in parts.values() for row in rows]

    def _latest(self, view: FeatureView, rows: list[dict[str, Any]], at: datetime) -> dict[str, Any]:
        known = [row for row in rows if row["event_timestamp"] <= at]
        best = max(known, key=lambda row: (row["event_timestamp"], row["created"]), default={})
        return {name: best.get(name) for name in view.fields}
