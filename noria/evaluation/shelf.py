"""Reports that were made outside of a cycle, kept in the order in which they were made."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from noria.ports import Platform
from noria.types import Artifact, Ref, Run, digest_of


def put(
    platform: Platform, kind: str, name: str, task: str, folder: Path, meta: Mapping[str, JsonValue], began: float
) -> Artifact:
    """Commit a finished scratch folder as `kind:name@…` and record it as the latest of its kind for this task.

    Each has the one before it as its first parent, so that `kept` can walk back. `began` is what `time.monotonic`
    said when the work began. The folder's content must not equal an earlier one's: put the time into it.
    """
    key = _key(kind, name, task)
    locks = platform.settings.state / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    ref = platform.lake.commit(folder, kind, name)
    with (locks / f"shelf-{key}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        before = platform.runs.find(key)
        parents: tuple[Ref, ...] = () if before is None else (before.ref,)
        artifact = Artifact(ref=ref, parents=parents, run_key=key, meta=dict(meta))
        run = Run(
            key=key, stage=kind, task=task, cycle="", output=ref, seconds=round(time.monotonic() - began, 3),
            peak_mb=0.0, at=platform.clock.now(),
        )  # fmt: skip
        platform.runs.record(run, artifact)
    return artifact


def kept(platform: Platform, kind: str, name: str, task: str) -> Iterator[Artifact]:
    """All that were put, newest first; those that were removed from the lake are passed over."""
    found = platform.runs.find(_key(kind, name, task))
    while found is not None:
        if platform.lake.has(found.ref):
            yield found
        found = platform.runs.artifact(found.parents[0]) if found.parents else None


def _key(kind: str, name: str, task: str) -> str:
    return digest_of({"shelf": kind, "name": name, "task": task})
