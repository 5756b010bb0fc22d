"""Versions of a task's data, as the command line lists, names, shows, compares and removes them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria import cycle
from noria.datasets import card, diff, profile
from noria.datasets.profile import SIDES, Folders
from noria.errors import Conflict, Invalid, NotFound
from noria.ports import Platform
from noria.registry.lineage import ancestors
from noria.settings import known
from noria.types import Artifact, Ref

KINDS = ("dataset", "documents", "sources", "features")
"""What is data; `list` shows the first two."""
CYCLES = 1000
"""Cycles that are looked through."""
LATEST, PREVIOUS = "latest", "previous"


@dataclass(frozen=True, slots=True)
class Version:
    """One version that the lake still has: what it was made from, when and in which cycle it was made last."""

    artifact: Artifact
    at: datetime
    cycle: str

    @property
    def ref(self) -> Ref:
        """Its name."""
        return self.artifact.ref


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows `show` is asked for; the texts of sealed rows are shown only where that is asked for too."""

    rows: int = 5
    source: str | None = None
    slice: str | None = None
    side: str | None = None
    raw: bool = False
    sealed: bool = False


def versions(platform: Platform, task: str, kind: str) -> Iterator[Version]:
    """The versions of one kind, newest first, each once."""
    seen: set[Ref] = set()
    for made, runs in platform.runs.cycles(task, CYCLES):
        for run in reversed(runs):
            if run.stage == kind and run.output not in seen:
                seen.add(run.output)
                artifact = platform.runs.artifact(run.output)
                if artifact is not None and platform.lake.has(run.output):
                    yield Version(artifact, run.at, made.id)


def find(platform: Platform, task: str, text: str) -> Version:
    """The version that a person named; raises Invalid where that is not clear, NotFound where there is none.

    Names are whole refs or parts of them: `dataset:helpdesk@1a2b`, `documents@latest`, `1a2b`, `latest`, `previous`.
    Without a kind a name of an age is that of a data set.
    """
    text = f"{text}@{LATEST}" if text in KINDS else text.strip().rstrip("….")
    head, _, digest = text.rpartition("@")
    kind, _, name = head.partition(":")
    if kind and kind not in KINDS:
        raise Invalid(f"'{text}' is no version of data", f"one of: {', '.join(f'{each}@latest' for each in KINDS)}")
    if name and name != task:
        if name not in platform.settings.tasks:
            raise NotFound(f"there is no task '{name}'", "list versions: noria data list")
        task = name
    age = {LATEST: 0, PREVIOUS: 1}.get(digest)
    if age is not None:
        found = [*versions(platform, task, kind or "dataset")]
        if len(found) <= age:
            raise NotFound(f"'{task}' has no {digest} {kind or 'dataset'}", "make one: noria run dataset")
        return found[age]
    kinds = (kind,) if kind else KINDS
    matching = [each for kind in kinds for each in versions(platform, task, kind) if each.ref.digest.startswith(digest)]
    if not matching:
        raise NotFound(f"'{task}' has no version '{text}'", "list versions: noria data list")
    if len(matching) > 1:
        raise Invalid(f"'{text}' may be {', '.join(str(each.ref) for each in matching[:4])}", "write more of it")
    return matching[0]


def listed(platform: Platform, task: str) -> list[dict[str, Any]]:
    """Data sets and documents, newest first, with what was trained on them and serves."""
    serving = _serving(platform, task)
    found = [each for kind in KINDS[:2] for each in versions(platform, task, kind)]
    return [
        {
            "ref": str(each.ref),
            "kind": each.ref.kind,
            "rows": each.artifact.meta.get("rows"),
            "at": each.at.isoformat(timespec="seconds"),
            "cycle": each.cycle,
            "serves": [name for name, refs in serving.items() if each.ref in refs],
        }
        for each in sorted(found, key=lambda each: each.at, reverse=True)
    ]


def shown(platform: Platform, version: Version, wanted: Wanted) -> dict[str, Any]:
    """Counts of a version and some of its rows.

    Raises Invalid for a kind that has no rows to show, NotFound for a source that neither it nor the task has.
    """
    folders = _folders(platform, version)
    told: dict[str, Any] = {version.ref.kind: str(version.ref)}
    if version.ref.kind == "dataset":
        counts = profile.counts(folders)
        train, test = counts["train"], counts["test"]
        _check_source(platform, version, wanted.source)
        rows, hidden = _examples(platform.lake.path(version.ref), wanted)
        told |= {"rows": train + test, "train": train, "test": test, "sealed": hidden}
    elif version.ref.kind == "documents":
        told["rows"] = profile.counts(folders)["documents"]
        _check_source(platform, version, wanted.source)
        rows = _documents(platform.lake.path(version.ref), wanted)
    else:
        raise Invalid(f"'{version.ref}' is neither a data set nor documents", "noria data show documents@latest")
    told |= profile.steps_of(folders)
    if wanted.raw:
        _add_raw(rows, folders)
    return {**told, "samples": rows}


def profiled(platform: Platform, version: Version) -> dict[str, Any]:
    """The profile of a data set or of documents."""
    folders = _folders(platform, version)
    if version.ref.kind == "dataset":
        folders = Folders(folders.dataset, folders.documents, folders.sources, _features(platform, version))
    told = shown(platform, version, Wanted(rows=3))
    return {version.ref.kind: str(version.ref), **profile.of(folders), "samples": told["samples"]}


def compared(platform: Platform, old: Version, new: Version, samples: int, sealed: bool) -> dict[str, Any]:
    """What changed from one version to another of the same kind; raises Invalid for two kinds."""
    if old.ref.kind != new.ref.kind or old.ref.kind not in KINDS[:2]:
        raise Invalid(f"'{old.ref}' and '{new.ref}' cannot be compared", "name two data sets, or two documents")
    here, there = platform.lake.path(old.ref), platform.lake.path(new.ref)
    if old.ref.kind == "dataset":
        told = diff.of_datasets(here, there, samples, sealed)
    else:
        heads = {source.name: source.map["question"] for source in platform.settings.sources if source.map}
        told = diff.of_documents(here, there, samples, heads)
    return {"old": str(old.ref), "new": str(new.ref), **told}


def carded(platform: Platform, version: Version) -> tuple[dict[str, Any], str]:
    """The card of a data set as JSON and as Markdown, with what only the ledger knows: name, time, cycle, parents."""
    folder = platform.lake.path(version.ref)
    known = card.read(folder) if version.ref.kind == "dataset" else {}
    if not known:
        raise NotFound(f"'{version.ref}' has no card", "data sets have one; make this one again: noria run dataset")
    told = {
        "dataset": str(version.ref), "file": str(folder / card.CARD), "at": version.at.isoformat(timespec="seconds"),
        "cycle": version.cycle, **known, "parents": [str(ref) for ref in version.artifact.parents],
        "sides_from": version.artifact.meta.get("sides_from"),
    }  # fmt: skip
    more = {"version": told["dataset"], "made": told["at"], "cycle": told["cycle"], "sides from": told["sides_from"]}
    lines = [f"- {name}: `{value}`\n" for name, value in more.items() if value]
    return told, (folder / card.CARD).read_text(encoding="utf-8") + "\n## In this lake\n\n" + "".join(lines)


def removable(platform: Platform, version: Version) -> None:
    """Raise Conflict where something rests on the version: what serves or may again, the next split, an open cycle."""
    task = version.ref.name
    for name, refs in _serving(platform, task).items():
        if version.ref in refs:
            raise Conflict(f"the {name} of '{task}' was made from '{version.ref}'", "what serves must stay explainable")
    latest = next(versions(platform, task, "dataset"), None)
    if latest is not None and latest.ref == version.ref:
        raise Conflict(
            f"'{version.ref}' is the newest data set of '{task}'",
            "keep it: the next one goes on from its sides, or test rows would be trained on",
        )
    for made, runs in platform.runs.cycles(task, CYCLES):
        if made.ended is None and version.ref in [run.output for run in runs]:
            raise Conflict(
                f"cycle '{made.id}' of '{task}' has not ended and goes on from '{version.ref}'",
                f"noria run --task {task} --cycle {made.id}",
            )


def remove(platform: Platform, version: Version) -> Path:
    """Take a version out of the lake; returns where it was. Raises Conflict as `removable`, and while a cycle runs."""
    with cycle.alone(platform, version.ref.name):
        removable(platform, version)
        folder = platform.lake.path(version.ref)
        # Out of its place first, by one rename: half a version is never found under its name.
        aside = platform.lake.scratch(f"removed-{version.ref.kind}-{version.ref.digest}") / version.ref.digest
        folder.rename(aside)
        shutil.rmtree(aside.parent)
    return folder


def _serving(platform: Platform, task: str) -> dict[str, set[Ref]]:
    """By what serves or may serve again: all that it was made from."""
    live = platform.deployments.current(task)
    if live is None:
        return {}
    sides = {"champion": live.champion, "challenger": live.challenger, "control": live.control}
    sides["previous champion"] = live.previous
    return {
        name: {made.ref for root in (each.adapter, each.index) if root for made in ancestors(platform, root)}
        | {*_learned(platform, each.adapter)}
        for name, each in sides.items()
        if each is not None
    }


def _learned(platform: Platform, adapter: Ref | None) -> Iterator[Ref]:
    """The features of an adapter and of those that it went on from: by them the next training knows what is new."""
    made = platform.runs.artifact(adapter) if adapter else None
    while made is not None:
        yield from (ref for ref in made.parents if ref.kind == "features")
        start = made.meta.get("start")
        made = platform.runs.artifact(Ref.parse(str(start))) if start else None


def _folders(platform: Platform, version: Version) -> Folders:
    """The folders of a version and of what it was made from, as far as the lake has them."""
    known = {each.ref.kind: each.ref for each in reversed([*ancestors(platform, version.ref)])}
    there = {kind: platform.lake.path(ref) for kind, ref in known.items() if platform.lake.has(ref)}
    return Folders(there.get("dataset"), there.get("documents"), there.get("sources"), there.get("features"))


def _features(platform: Platform, version: Version) -> Path | None:
    for each in versions(platform, version.ref.name, "features"):
        if version.ref in each.artifact.parents:
            return platform.lake.path(each.ref)
    return None


def _examples(folder: Path, wanted: Wanted) -> tuple[list[dict[str, Any]], int]:
    """Some rows of a data set, and how many more there would be if sealed ones were shown."""
    found: list[dict[str, Any]] = []
    hidden = 0
    for side in SIDES:
        if wanted.side not in (None, side):
            continue
        conditions = [
            *([pc.field("origin") == f"source:{wanted.source}"] if wanted.source not in (None, "traffic") else []),
            *([pc.starts_with(pc.field("origin"), "traffic")] if wanted.source == "traffic" else []),
            *([pc.field("slice") == wanted.slice] if wanted.slice else []),
        ]
        table = _matching(folder / f"{side}.parquet", conditions)
        if side == "test" and not wanted.sealed:
            hidden = table.num_rows
            continue
        found += table.slice(0, wanted.rows - len(found)).to_pylist()
    return [
        {
            "id": row["id"], "origin": row["origin"], "slice": row["slice"], "split": row["split"],
            "question": profile.question_of(row["messages"]), "context": row["context"], "answer": row["target"],
            "document": row["document"],
        }
        for row in found
    ], hidden  # fmt: skip


def _documents(folder: Path, wanted: Wanted) -> list[dict[str, Any]]:
    conditions = [pc.field("source") == wanted.source] if wanted.source else []
    table = _matching(folder / "documents.parquet", conditions).slice(0, wanted.rows)
    return [
        {name: row[name] for name in ("id", "source", "file", "offset", "text")} | {"document": row["id"]}
        for row in table.to_pylist()
    ]


def _check_source(platform: Platform, version: Version, source: str | None) -> None:
    """Raise NotFound for a source of which a version cannot have rows: neither it nor the task has it."""
    task = platform.settings.tasks.get(version.ref.name)
    names = {*task.source_names} if task else set()
    if source is None or source in names:
        return
    folder = platform.lake.path(version.ref)
    if version.ref.kind == "dataset":
        origins = [pq.read_table(folder / f"{side}.parquet", columns=["origin"])["origin"] for side in SIDES]
        there = {str(each) for origin in origins for each in origin.unique().to_pylist()}
        names |= {"traffic", *(each.removeprefix("source:") for each in there if each.startswith("source:"))}
    else:
        table = pq.read_table(folder / "documents.parquet", columns=["source"], partitioning=None)
        names |= {*table["source"].unique().to_pylist()}
    if source not in names:
        raise NotFound(f"'{version.ref}' has no source '{source}'", known(source, names))


def _matching(file: Path, conditions: list[pc.Expression]) -> pa.Table:
    whole = None
    for each in conditions:
        whole = each if whole is None else whole & each
    return pq.read_table(file, filters=whole, partitioning=None)


def _add_raw(rows: list[dict[str, Any]], folders: Folders) -> None:
    """Put the text of each row's document beside it, as it was collected and as it was cleaned (C8)."""
    for name, folder in (("raw_text", folders.sources), ("cleaned_text", folders.documents)):
        ids = pa.array([row["document"] for row in rows], pa.string())
        texts: dict[str, str] = {}
        if folder is not None:
            wanted = pc.field("id").isin(ids)
            table = pq.read_table(
                folder / "documents.parquet", columns=["id", "text"], filters=wanted, partitioning=None
            )
            texts = dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
        for row in rows:
            row[name] = texts.get(row["document"])
