"""How far the memory plan of a running engine is off: what was planned beside what its process really holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from math import inf

from noria.deployment.memory_plan import GIB, Plan, Reality, plan_vs_real
from noria.deployment.replicas import Replicas
from noria.deployment.submit import Submit
from noria.ports import Engine, Launched
from noria.settings import EngineSettings

EVERY = 60.0
"""Seconds between two looks at what an engine holds: its buffers are touched only by the first long prompt."""


@dataclass(slots=True)
class _Watched:
    """One replica, from its start on; another one is another start."""

    engine: Engine
    due: float
    look: Future[Reality | None] | None = None
    found: Reality | None = None


class Realities:
    """Compares after each start, and keeps the most that was ever held since. `poll` never waits for a look.

    Of replicas, which are equal, the first that lives is looked at.

    Args:
        plan: what one replica is planned to take of this machine's memory; None where that cannot be told.
        taken: bytes that processes and all their descendants hold; 0 where that cannot be told.
        submit: does a look.
        monotonic: seconds.
        report: told once after each start.
    """

    def __init__(
        self,
        plan: Callable[[EngineSettings], Plan | None],
        taken: Callable[[Sequence[int]], int],
        submit: Submit[Reality | None],
        monotonic: Callable[[], float],
        report: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._taken = taken
        self._submit = submit
        self._monotonic = monotonic
        self._report = report
        self._watched: dict[str, _Watched] = {}

    def of(self, name: str) -> Reality | None:
        """Of the engine that runs under this name; None until it is known, and where it cannot be."""
        watched = self._watched.get(name)
        return None if watched is None else watched.found

    def poll(self, running: Mapping[str, Replicas]) -> None:
        """Look at what runs now, where a look is due."""
        for gone in self._watched.keys() - running.keys():
            del self._watched[gone]
        for name, replicas in running.items():
            first = next((each for each in replicas.children if isinstance(each, Launched) and each.pids), None)
            if first is not None:
                self._follow(name, first, first.pids, replicas.settings)

    def _follow(self, name: str, engine: Engine, pids: Sequence[int], settings: EngineSettings) -> None:
        now = self._monotonic()
        watched = self._watched.get(name)
        if watched is None or watched.engine is not engine:
            watched = self._watched[name] = _Watched(engine, now)
        if watched.look is None and now >= watched.due:
            # Whole models of adapters have a process each beside the first, and are not in the plan.
            watched.look = self._submit(partial(self._look, settings, pids[:1]))
        if watched.look is None or not watched.look.done():
            return
        look, watched.look = watched.look, None
        # A fault here must not touch an engine that answers: there is no comparison then.
        found = None if look.exception() is not None else look.result()
        watched.due = inf if found is None else now + EVERY
        if found is None:
            return
        if watched.found is None:
            self._report(told(name, found))
        if watched.found is None or found.measured > watched.found.measured:
            watched.found = found

    def _look(self, settings: EngineSettings, pids: Sequence[int]) -> Reality | None:
        plan = self._plan(settings)
        taken = self._taken(pids) if plan is not None else 0
        return plan_vs_real(plan, taken) if plan is not None and taken else None


def told(name: str, found: Reality) -> str:
    """The comparison in one line."""
    return (
        f"engine '{name}' takes {found.measured / GIB:.3f} GiB of memory; planned (noria fit) were "
        f"{found.planned / GIB:.3f}: {said(found)}"
    )


def said(found: Reality) -> str:
    """By how much the plan is off, as a share of what was measured."""
    return f"{100 * abs(found.off):.1f} % too {'much' if found.off >= 0 else 'little'}"
