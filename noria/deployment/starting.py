"""How a replica is started: on its cores, in its time, and with its adapters proved to be there."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack, nullcontext

from noria.deployment import verify
from noria.deployment.replicas import Start
from noria.errors import Unavailable
from noria.ports import Engine, Machine, Platform
from noria.settings import EngineSettings, Settings
from noria.types import Ref


def starter(platform: Platform, name: str, adapters: Collection[Ref], machine: Machine | None) -> Start:
    """Starts replicas of an engine of the settings with these adapters; raises as `EngineKind.start` does.

    Unavailable too where an adapter is not there that should be. `machine` keeps it to its cores; without one it has
    them all.
    """
    kind = platform.engines[platform.settings.engines[name].kind]
    logs, first = platform.settings.state / "logs", _place(platform.settings, name)

    def started(settings: EngineSettings, number: int) -> Engine:
        folders = {ref: platform.lake.verified(ref) for ref in sorted(adapters, key=str)}
        cores = settings.cpus
        own = settings if cores is None else settings.model_copy(update={"threads": settings.threads or cores})
        there = nullcontext() if cores is None or machine is None else machine.confined(cores, first + number * cores)
        with there, ExitStack() as unless_right:
            engine = kind.start(own, folders, logs / f"{log_name(name, number)}.log")
            unless_right.callback(engine.close)
            verify.present(engine, adapters, kind.caps)
            unless_right.pop_all()
        return engine

    def start(settings: EngineSettings, number: int) -> Engine:
        try:
            return started(settings, number)
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"engine '{name}' could not be started: {error}", f"look: noria engines logs {name}"
            ) from error

    return start


def log_name(engine: str, number: int) -> str:
    """What the log of a replica is called, without its ending."""
    return f"engine-{engine}{f'-{number}' if number else ''}"


def _place(settings: Settings, name: str) -> int:
    """The first core for an engine, after those of the engines before it."""
    before = [each for other, each in sorted(settings.engines.items()) if other < name]
    return sum((each.cpus or 0) * each.replicas for each in before)
