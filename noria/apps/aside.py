"""One candidate behind a gateway of its own, beside what serves: for harnesses that ask what is not promoted yet."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from noria import adapters, classes
from noria.apps.workers import Workers
from noria.backends.harness import Target
from noria.backends.scratch import temporary
from noria.deployment import verify
from noria.errors import Conflict, Unavailable
from noria.evaluation.sides import barred
from noria.ports import Engine, Platform
from noria.types import Arm, Candidate, Endpoint, KeyGrant, Route, Snapshot

READY_SECONDS = 30.0


@contextmanager
def serving(platform: Platform, name: str, candidate: Candidate) -> Iterator[Target]:
    """Where a task's candidate answers, as it would when promoted; what it is asked is not kept.

    Raises Conflict for a candidate that the present noria.toml cannot serve, Unavailable when it does not
    start, or answers as without its adapter.
    """
    if why := barred(platform, platform.settings.tasks[name], candidate):
        raise Conflict(f"'{candidate.ref}' cannot be asked: {why}", "make one that can: noria run")
    settings = platform.settings.engines[candidate.engine]
    kind, log = platform.engines[settings.kind], platform.settings.state / "logs" / "aside-engine.log"
    loaded = adapters.loaded(platform.lake, [candidate.adapter] if candidate.adapter else [])
    with ExitStack() as stack:
        engine = kind.start(settings, loaded, log)
        stack.callback(engine.close)
        verify.present(engine, loaded, kind.caps)
        vectors = _vectors(platform, name, stack)
        with temporary("noria-aside.") as folder:
            key = secrets.token_urlsafe(32)
            snapshot = _snapshot(platform, name, candidate, engine, vectors, key)
            (folder / "snapshot.json").write_text(snapshot.model_dump_json())
            with _gateway(folder) as url:
                yield Target(f"{url}/v1", key, name)


def _vectors(platform: Platform, name: str, stack: ExitStack) -> Endpoint | None:
    """Where the task's questions become vectors, until the stack is closed."""
    context = platform.settings.tasks[name].context
    if context is None or context.engine is None:
        return None
    settings = platform.settings.engines[context.engine]
    log = platform.settings.state / "logs" / "aside-context-engine.log"
    engine = platform.engines[settings.kind].start(settings, {}, log)
    stack.callback(engine.close)
    return engine.endpoint


def _snapshot(
    platform: Platform, name: str, candidate: Candidate, engine: Engine, vectors: Endpoint | None, key: str
) -> Snapshot:
    task = platform.settings.tasks[name].model_copy(update={"arms": {}, "fallback": (), "lights": None})
    index = platform.lake.path(candidate.index) / "index" if candidate.index and task.context else None
    wording = adapters.wording_of(platform.lake, candidate.adapter)
    choice = platform.engines[platform.settings.engines[candidate.engine].kind].caps.choice
    held = classes.among(choice, task.classes, task.multi_label)
    arm = Arm(
        served_by=str(candidate.ref), engine=candidate.engine, wording=wording,
        upstreams=(adapters.endpoint(engine, None if wording else candidate.adapter),),
        extra={**engine.extra(None if wording else candidate.adapter), **held}, index=str(index) if index else None,
        vectors=vectors,
    )  # fmt: skip
    grant = KeyGrant(id="aside", name="noria", role="admin")
    return Snapshot(
        version=1, routes={name: Route(arms=(arm,), task=task.model_dump(mode="json"))},
        keys={hashlib.sha256(key.encode()).hexdigest(): grant},
        gateway=platform.settings.gateway.model_dump(mode="json"),
    )  # fmt: skip


@contextmanager
def _gateway(state: Path) -> Iterator[str]:
    workers = Workers(state, "127.0.0.1", 0, 1, os.getpid())
    try:
        workers.begin()
        end = time.monotonic() + READY_SECONDS
        while not workers.have(1):
            workers.poll()
            if (why := workers.refusal()) or time.monotonic() > end:
                raise Unavailable(f"the gateway did not start: {why}", "run it again")
            time.sleep(0.05)
        yield workers.address
    finally:
        workers.close()
