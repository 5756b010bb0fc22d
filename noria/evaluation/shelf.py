"""What was made outside of a cycle: reports in the order in which they were made, and what stands for itself."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue

from noria.ports import Platform
from noria.types import Artifact, Ref, Run, shelf_key


def put(
    platform: Platform, kind: str, name: str, task: str, folder: Path, meta: Mapping[str, JsonValue], began: float
) -> Artifact:
    """Commit a finished scratch folder as `kind:name@…` and record it as the latest of its kind for this task.

    Each has the one before it as its first parent, so that `kept` can walk back. `began` is what `time.monotonic`
    said when the work began. The folder's content must not equal an earlier one's: put the time into it.
    """
    key = shelf_key(kind, name, task)
    locks = platform.settings.state / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    ref = platform.lake.commit(folder, kind, name)
    with (locks / f"shelf-{key}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        before = platform.runs.find(key)
        parents: tuple[Ref, ...] = () if before is None else (before.ref,)
        artifact = Artifact(ref=ref, parents=parents, run_key=key, meta=dict(meta))
        _record(platform, artifact, task, platform.clock.now(), time.monotonic() - began)
    return artifact


def keep(
    platform: Platform, kind: str, name: str, key: str, files: Mapping[str, str], meta: Mapping[str, JsonValue],
    *, task: str = "", parents: Sequence[Ref] = (), at: datetime | None = None,
) -> Ref:  # fmt: skip
    """Write these files as `kind:name@…` and record them as what the run with this key made, now unless `at` is given.

    An earlier product of the same key is no longer found by it.
    """
    folder = platform.lake.scratch(f"{kind}-{key}")
    for file, text in files.items():
        (folder / file).write_text(text)
    ref = platform.lake.commit(folder, kind, name)
    artifact = Artifact(ref=ref, parents=tuple(parents), run_key=key, meta=dict(meta))
    _record(platform, artifact, task, at or platform.clock.now(), 0.0)
    return ref


def kept(platform: Platform, kind: str, name: str, task: str) -> Iterator[Artifact]:
    """All that were put, newest first; those that were removed from the lake are passed over."""
    found = platform.runs.find(shelf_key(kind, name, task))
    while found is not None:
        if platform.lake.has(found.ref):
            yield found
        found = platform.runs.artifact(found.parents[0]) if found.parents else None


def _record(platform: Platform, made: Artifact, task: str, at: datetime, seconds: float) -> None:
    run = Run(
        key=made.run_key, stage=made.ref.kind, task=task, cycle="", output=made.ref, seconds=round(seconds, 3),
        peak_mb=0.0, at=at,
    )  # fmt: skip
    platform.runs.record(run, made)
