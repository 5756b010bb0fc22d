"""The control plane's routes for engines, and their metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal, Protocol

from fastapi import APIRouter, Depends, Query, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from noria.deployment import engine_logs
from noria.deployment.engine_state import EngineStatus
from noria.errors import Denied, NotFound
from noria.ports import Platform
from noria.settings import known
from noria.types import ApiKey

PATIENCE: Final = 20.0
"""Most seconds until the fleet has begun with what it was told."""


class Desk(Protocol):
    """Where engines are looked at and ordered about: the running fleet."""

    @property
    def engines(self) -> Sequence[EngineStatus]:
        """Every engine of the settings, as it is now."""

    def order(self, what: Literal["start", "stop"], engine: str) -> threading.Event:
        """Have an engine started or stopped soon; what is given back is set once `engines` tell of it."""


def build(platform: Platform, reader: Callable[..., ApiKey], desk: Desk) -> APIRouter:
    """The routes below `/api/engines`. Admins and developers look, admins alone start and stop."""
    routes = APIRouter(prefix="/api/engines")
    caller = Depends(reader)

    def found(name: str) -> EngineStatus:
        there = {each.name: each for each in desk.engines}
        if name not in there:
            raise NotFound(f"there is no engine '{name}'", known(name, there))
        return there[name]

    def ordered(what: Literal["start", "stop"], name: str, key: ApiKey) -> dict[str, Any]:
        if key.role != "admin":
            raise Denied(f"a key of role '{key.role}' may not {what} engines", "use a key of role admin")
        found(name)
        # Who looks afterwards must not take what was before for what came of it.
        begun = desk.order(what, name).wait(PATIENCE)
        return {"engine": name, "ordered": what, "begun": begun}

    @routes.get("", dependencies=[caller])
    def engines() -> dict[str, Any]:
        return {"data": told(platform, desk.engines)}

    @routes.get("/{name}/logs", dependencies=[caller])
    def logs(name: str, lines: Annotated[int, Query(ge=1, le=10_000)] = 100) -> dict[str, Any]:
        files = engine_logs.files_of(platform.settings.state / "logs", found(name).name)
        return {"engine": name, "logs": {file.stem: engine_logs.tail(file, lines) for file in files}}

    @routes.post("/{name}/start")
    def start(name: str, key: ApiKey = caller) -> dict[str, Any]:
        return ordered("start", name, key)

    @routes.post("/{name}/stop")
    def stop(name: str, key: ApiKey = caller) -> dict[str, Any]:
        return ordered("stop", name, key)

    return routes


def told(platform: Platform, engines: Sequence[EngineStatus]) -> list[dict[str, Any]]:
    """Engines as JSON, each with its open alert and by how much its memory plan is off."""
    alerts = {each.subject: each for each in platform.alerts.open()}
    rows = []
    for each in engines:
        alert = alerts.get(f"engine:{each.name}")
        plan = None if each.plan is None else {**asdict(each.plan), "off": round(each.plan.off, 4)}
        told = None if alert is None else {"fact": alert.fact, "hint": alert.hint}
        rows.append({**asdict(each), "plan": plan, "alert": told})
    return rows


def metrics(platform: Platform, desk: Desk) -> Response:
    """Engines and open alerts in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(platform, desk))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Collector:
    """Of prometheus-client."""

    def __init__(self, platform: Platform, desk: Desk) -> None:
        self._platform = platform
        self._desk = desk

    def collect(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "noria_engine_state", "1 for the state that an engine is in", labels=["engine", "state"]
        )
        live = GaugeMetricFamily("noria_engine_replicas", "Replicas that answer", labels=["engine"])
        memory = GaugeMetricFamily("noria_engine_memory_bytes", "Resident bytes of all replicas", labels=["engine"])
        restarts = CounterMetricFamily(
            "noria_engine_restarts", "Replicas that died and were replaced", labels=["engine"]
        )
        for each in self._desk.engines:
            state.add_metric([each.name, each.state], 1)
            live.add_metric([each.name], each.live)
            memory.add_metric([each.name], each.memory)
            restarts.add_metric([each.name], each.restarts)
        yield from (state, live, memory, restarts)
        alerts = GaugeMetricFamily("noria_alert", "1 for each alert that nothing has ended yet", labels=["subject"])
        for alert in self._platform.alerts.open():
            alerts.add_metric([alert.subject], 1)
        yield alerts
