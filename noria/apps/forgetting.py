"""`noria forget`: a person's records out of the log, files, data sets and reports, and what has to be trained anew."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from noria.errors import Conflict, NotFound
from noria.evaluation import history, shelf
from noria.features import views
from noria.gateway.batch import forget as batches
from noria.ports import Platform
from noria.registry import forgetting, versions
from noria.traffic import forget as log
from noria.types import Ref
from noria.wiring import local_lake

NOT_FOUND = (
    "texts of others that mention the person, answers to the person that a pair of another's conversation rejects, "
    "phrases of planted rows in the ledger's record of a data set, ids of suspected rows that were left out of it, "
    "sources in files and databases, backups, what judges remember, and what MLflow or a collector of traces was sent "
    "are not looked into"
)
"""What forgetting does not reach; said each time."""


def forget(platform: Platform, user: str, actor: str, *, logged: bool, dry: bool, purge: bool) -> dict[str, Any]:
    """Forget a user, named as clients name it, or as the log does where `logged`; returns what was done, for JSON.

    Raises NotFound where nothing at all is known of the user, Conflict while a cycle runs.
    """
    state, lake = platform.settings.state, local_lake(platform.settings)
    name = user if logged else _pseudonym(state, user)
    now = platform.clock.now()
    with _no_cycle(platform):
        person = log.find(state / "segments", lake, name)

        def mine(text: str) -> bool:
            return person.record(text) is not None

        whose = forgetting.Whose(mine, person.conversations, person.judged_conversations)
        traces = forgetting.trace(platform, whose, _comparisons(platform))
        owners = () if logged else [key.id for key in platform.keys.all() if key.name == user]
        kept = batches.Removed() if logged else batches.forget(state, user, owners, now.timestamp(), dry)
        known = len(person.interactions) + len(person.feedback)
        if not (known or traces.rows or kept.files or kept.batches or kept.lines or kept.open):
            raise NotFound("nothing is known of this user", "name it as clients do in the field 'user'")
        if not dry:
            # By the log all the rest is found: it goes last.
            if purge:
                forgetting.remove(platform, traces, whose, now)
                views.forget(platform, traces.examples)
                _out_of_snapshot(state)
            log.forget(state / "segments", lake, person)
        learned = versions.learned(platform, traces.adapters)
        told: dict[str, Any] = {
            "interactions": len(person.interactions), "feedback": len(person.feedback), "files": kept.files,
            "batches": kept.batches, "lines": kept.lines, "open_batches": kept.open, "purged": purge and not dry,
            "rows": {str(ref): rows for ref, rows in traces.rows.items()},
            "adapters": [str(ref) for ref in traces.adapters], "serving": traces.serving, "releases": traces.releases,
            "versions": learned,
        }  # fmt: skip
        if not dry:
            act = {**told, "at": now.isoformat(), "actor": actor, "user": _hashed(name)}
            told["record"] = str(forgetting.record(platform, act, now))
            told["untagged"] = versions.mark_forgotten(platform, learned, now)
    return {**told, "dry_run": dry, "retrain": _retrain(told), "not_reached": NOT_FOUND}


def _retrain(told: dict[str, Any]) -> list[str]:
    """What to type so that nothing learned from the person serves any more."""
    tasks = dict.fromkeys(each["task"] for each in told["serving"] if each["role"] != "previous")
    return [f"noria run --task {task}, then promote what it makes: noria promote CANDIDATE" for task in tasks]


def _hashed(name: str) -> str:
    """The record tells whether it speaks of somebody, and not of whom."""
    return hashlib.sha256(f"forgotten {name}".encode()).hexdigest()[:16]


def _pseudonym(state: Path, user: str) -> str:
    from noria import pseudonyms
    from noria.gateway.record import pseudonym

    file = state / "secret"
    if not file.exists():
        raise NotFound("no gateway has ever run here, so no user is known", "look into [runtime] and .noria")
    return pseudonym(pseudonyms.read(file), user)


def _comparisons(platform: Platform) -> Iterator[Ref]:
    for task in platform.settings.tasks:
        yield from (artifact.ref for artifact in shelf.kept(platform, history.COMPARISON, task, task))


def _out_of_snapshot(state: Path) -> None:
    """Remove what the last `noria up` served by: it is written anew at the next start, and by one that runs."""
    (state / "logs").mkdir(parents=True, exist_ok=True)
    with (state / "up.lock").open("w") as handle, suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (state / "snapshot.json").unlink(missing_ok=True)
        (state / "snapshot.json.new").unlink(missing_ok=True)


@contextmanager
def _no_cycle(platform: Platform) -> Iterator[None]:
    """Keep every task's cycles from running; raises Conflict where one does."""
    folder = platform.settings.state / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for task in sorted(platform.settings.tasks):
            handle = stack.enter_context((folder / f"cycle-{task}.lock").open("w"))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"a cycle of '{task}' runs", "wait for its end, then forget again") from None
        yield
