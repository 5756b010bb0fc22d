"""The control plane's routes for labels. Who labels is the key that asks: each labeller has one of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from noria.apps.judging import comparer
from noria.apps.recording import recorder
from noria.evaluation import labels
from noria.evaluation.queue import rules_of
from noria.ports import Platform
from noria.types import ApiKey, Record


class Said(Record):
    """A label as it is sent: a value of the scale (or its name), the right answer, or both, or `passing`."""

    value: str | float | None = None
    correction: str | None = None
    passing: bool = False


def build(platform: Platform, reader: Callable[..., ApiKey]) -> APIRouter:
    """The routes below `/api/labels/{task}`; `reader` finds the caller's key, of role admin or developer, or denies."""
    routes = APIRouter(prefix="/api/labels/{task}")
    caller = Depends(reader)

    @routes.get("", dependencies=[caller])
    def queue(
        task: str, open_only: bool = False, limit: Annotated[int, Query(ge=1, le=10_000)] = 100
    ) -> dict[str, Any]:
        name = platform.settings.task(task)[0]
        wants = rules_of(platform, name).labellers
        found = [row for row in labels.rows(platform, name) if not open_only or row.given < wants]
        return {"task": name, "rows": len(found), "data": [row.told() for row in found[:limit]]}

    @routes.get("/next")
    def upcoming(task: str, key: ApiKey = caller) -> dict[str, Any]:
        row = labels.upcoming(platform, platform.settings.task(task)[0], key.name)
        scale = rules_of(platform, task).scale
        return {"task": task, "scale": scale, "row": None if row is None else row.told(hidden=True)}

    @routes.get("/agreement", dependencies=[caller])
    def agreement(task: str) -> dict[str, Any]:
        name = platform.settings.task(task)[0]
        with comparer(platform, name) as same:
            return labels.agreement(platform, name, same)

    @routes.get("/estimate", dependencies=[caller])
    def estimate(task: str) -> dict[str, Any]:
        name = platform.settings.task(task)[0]
        with comparer(platform, name) as same:
            return labels.estimate(platform, name, same)

    @routes.post("/{row}")
    def say(task: str, row: str, said: Said, key: ApiKey = caller) -> dict[str, Any]:
        name = platform.settings.task(task)[0]
        with recorder(platform) as log:
            given = labels.say(
                platform, log, name, row, key.name, said.value, said.correction, passing=said.passing
            )  # fmt: skip
        return given.told()

    @routes.delete("/{row}")
    def remove(task: str, row: str, key: ApiKey = caller) -> dict[str, Any]:
        name = platform.settings.task(task)[0]
        with recorder(platform) as log:
            labels.remove(platform, log, name, row, key.name)
        return labels.show(platform, name, row).told()

    return routes
