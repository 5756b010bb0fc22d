"""Model versions: what the ledger says of candidates and of what serves, made so in the registry (MLflow).

The ledger is the truth. `sync` may be asked at any time, by anybody: it adds what is missing, mends tags and aliases,
and touches nothing where all is as it should be.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from noria import adapters, replays
from noria.errors import Conflict, Invalid, NoriaError, NotFound
from noria.ports import Platform
from noria.registry import candidates, cards, facts
from noria.registry.candidates import Known
from noria.types import Artifact, Deployment, ModelVersion, Ref, digest_of

ALIASES = ("champion", "challenger")
MODEL, CARD = "model", "card"
"""Folders of a version's files; the first is what the version is."""
UNFINISHED = "unfinished"
"""What stands in the mark of a task from the beginning of a sync to its end."""


@dataclass(slots=True)
class Synced:
    """What a sync has changed: refs of candidates, and aliases by the version that they name now."""

    task: str
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    aliases: dict[str, str | None] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """Candidates that were left as they were, and why."""

    def told(self) -> dict[str, object]:
        """As JSON."""
        return {
            "task": self.task, "added": self.added, "changed": self.changed, "aliases": self.aliases,
            "failed": self.failed,
        }  # fmt: skip


def sync(platform: Platform, task: str, *, whole: bool = True) -> Synced:
    """Make the registry's model of a task equal to the ledger.

    Without `whole` only what came since the last sync is looked at: where nothing did, the registry is not asked.
    Raises Unavailable where it does not answer; what was done until then is kept, and the next sync goes on.
    """
    done = Synced(task)
    with _alone(platform, task):
        live = platform.deployments.current(task)
        mark = _mark(live, *_reports(platform, task))
        file = _marks(platform, task)
        if not whole and file.is_file() and file.read_text() == mark:
            return done
        every = candidates.of(platform, task)
        if not every:
            # A mark that stays would make a sync due for ever.
            file.unlink(missing_ok=True)
            return done
        # Who looks whether a sync is due must see that one was begun.
        _write(file, UNFINISHED)
        there = {each.candidate: each for each in platform.registry.versions(task)}
        for each in every:
            try:
                _candidate(platform, each, there.get(each.ref), live, done)
            except (Invalid, NotFound) as error:
                done.failed[each.ref] = error.fact
        _aliases(platform, task, live, there, done)
        _write(file, mark)
    return done


def best_effort(platform: Platform, task: str, tell: Callable[[str], None], *, whole: bool = False) -> None:
    """Sync what is new, or all; a registry that is away, or full, is told in one line and mended by a later sync."""
    try:
        for candidate, fact in sync(platform, task, whole=whole).failed.items():
            tell(f"'{candidate}' was not brought up to date in the registry: {fact}")
    except (NoriaError, OSError) as error:
        tell(f"the registry was not brought up to date: {error}; later: noria registry sync {task}")


def due(platform: Platform, task: str) -> bool:
    """Whether what serves has changed since the last sync, or that one failed; False where there never was one.

    A mark that cannot be read is that of a sync that failed.
    """
    file = _marks(platform, task)
    if not file.is_file():
        return False
    try:
        release = int(json.loads(file.read_text())["release"])
    except (ValueError, KeyError, TypeError):
        return True
    live = platform.deployments.current(task)
    return release != (live.version if live else 0)


def remove(platform: Platform, each: Known) -> str:
    """Take a candidate's version out of the registry for good; returns which it was.

    Its card, its report and its adapter stay. Raises NotFound, Conflict for what serves.
    """
    task = each.candidate.task
    with _alone(platform, task):
        live = platform.deployments.current(task)
        for name, side in (("champion", live.champion), ("challenger", live.challenger)) if live else ():
            if side == each.candidate:
                raise Conflict(f"'{each.ref}' is the {name} of '{task}'", "another must serve first: noria rollback")
        card = candidates.carded(platform, each.ref)
        version = candidates.version_of(card)
        if card is None or version is None:
            raise NotFound(f"'{each.ref}' has no model version", f"noria registry list {task}")
        platform.registry.remove(task, version)
        removed = platform.clock.now().isoformat()
        cards.note(platform, card.model_copy(update={"meta": {**card.meta, "removed": removed}}))
    return version


def learned(platform: Platform, adapters: list[Ref]) -> list[dict[str, str]]:
    """The model versions of these adapters: task, version, candidate and adapter."""
    found = []
    wanted = {*adapters}
    for task in platform.settings.tasks if wanted else ():
        for each in candidates.of(platform, task):
            version = candidates.version(platform, each)
            if each.candidate.adapter in wanted and version is not None:
                adapter = str(each.candidate.adapter)
                found.append({"task": task, "version": version, "candidate": each.ref, "adapter": adapter})
    return found


def mark_forgotten(platform: Platform, found: list[dict[str, str]], at: datetime) -> str | None:
    """Tag the versions that have learned from forgotten rows; returns what kept that from being done, if anything."""
    try:
        for each in found:
            platform.registry.tag(each["task"], each["version"], {"forgotten": at.isoformat()})
    except NoriaError as error:
        return error.fact
    return None


def _candidate(
    platform: Platform, each: Known, there: ModelVersion | None, live: Deployment | None, done: Synced
) -> None:
    """One candidate: its card is written, its version made or mended."""
    before = candidates.carded(platform, each.ref)
    if before is not None and before.meta.get("removed") and there is None:
        return
    adapter = each.candidate.adapter
    if there is None and adapter is not None and not platform.lake.has(adapter):
        return
    card = cards.write(platform, each)
    tags = _tags(platform, each, card, live)
    if there is None:
        version = platform.registry.put(
            each.candidate.task, each.ref, tags, _folders(platform, each, card), adapters.TEXTS
        )
        done.added.append(each.ref)
    else:
        version = there.version
        if there.tags.get(CARD) != str(card.ref):
            version = platform.registry.put(each.candidate.task, each.ref, {}, {CARD: platform.lake.path(card.ref)})
        wrong: dict[str, str | None] = {name: text for name, text in tags.items() if there.tags.get(name) != text}
        wrong |= {name: None for name in ("held", "forgotten") if name in there.tags and name not in tags}
        if wrong:
            platform.registry.tag(each.candidate.task, version, wrong)
            done.changed.append(each.ref)
    if candidates.version_of(card) != version:
        told = {key: value for key, value in card.meta.items() if key != "removed"}
        meta = {**told, "model": each.candidate.task, "version": version}
        cards.note(platform, card.model_copy(update={"meta": meta}))


def _folders(platform: Platform, each: Known, card: Artifact) -> Mapping[str, Path]:
    folder = platform.lake.path(card.ref)
    adapter = each.candidate.adapter
    return {MODEL: folder if adapter is None else platform.lake.verified(adapter), CARD: folder}


def _tags(platform: Platform, each: Known, card: Artifact, live: Deployment | None) -> dict[str, str]:
    """What a version is known by; only what is known is told."""
    told = cards.read(platform.lake.path(card.ref))
    candidate, recipe = each.candidate, told["recipe"] or {}
    named = {
        "adapter": candidate.adapter, "base": candidate.base, "engine": candidate.engine, "prompt": candidate.prompt,
        "quantization": candidate.quantization, "index": candidate.index, "dataset": (told["dataset"] or {}).get("ref"),
        "features": told["features"], "report": told["report"], "recipe": recipe.get("kind"), "code": told["noria"],
        "environment": told["environment"].get("digest"), "cycle": each.cycle, "verdict": each.verdict,
        "origin": each.origin, CARD: card.ref,
        "forgotten": facts.forgotten(platform, candidate.adapter) if candidate.adapter else None,
        "held": "yes" if live is not None and each.ref in live.held else None,
        "replay": again.words() if (again := replays.read(told["replay"])) else None,
    }  # fmt: skip
    return {name: str(value) for name, value in named.items() if value}


def _aliases(
    platform: Platform, task: str, live: Deployment | None, there: Mapping[str, ModelVersion], done: Synced
) -> None:
    now = {alias: each.version for each in there.values() for alias in each.aliases}
    sides = {"champion": live.champion, "challenger": live.challenger} if live else dict.fromkeys(ALIASES)
    wrong: dict[str, str | None] = {}
    for alias, side in sides.items():
        # A base that serves by itself is no version.
        wanted = candidates.version_of(candidates.carded(platform, str(side.ref))) if side is not None else None
        if now.get(alias) != wanted:
            wrong[alias] = wanted
    if wrong:
        platform.registry.alias(task, wrong)
        done.aliases = wrong


def _reports(platform: Platform, task: str) -> Iterator[str]:
    """Names of all that makes candidates and decides on them."""
    for _, runs in platform.runs.cycles(task, candidates.CYCLES):
        yield from (str(run.output) for run in runs if run.stage in ("report", "release", candidates.IMPORT))


def _mark(live: Deployment | None, *reports: str) -> str:
    return json.dumps({"release": live.version if live else 0, "reports": digest_of([*sorted({*reports})])})


def _write(file: Path, text: str) -> None:
    """As a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text)
    fresh.replace(file)


def _marks(platform: Platform, task: str) -> Path:
    return platform.settings.state / "registry" / f"{task}.json"


@contextmanager
def _alone(platform: Platform, task: str) -> Iterator[None]:
    """One process at a time changes the registry's model of a task; others wait."""
    folder = platform.settings.state / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"registry-{task}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
