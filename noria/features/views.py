"""Feature views of a task, and how its features become their history.

The features of every cycle are an artifact of their own. The history says from when on each row held: an example's
first row from when it was said, or where nobody knows that from when it was first tokenised; a changed one from when
it changed. Nothing of it is in the artifacts, so that the same work goes on making the same ones.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria import prompts
from noria.errors import Invalid, NotFound
from noria.features import tokenise
from noria.ports import FeatureView, Platform
from noria.types import Artifact, digest_of

NAME, ENTITY = "llm_training_features", "input_id"
_CYCLES = 100_000
"""Cycles that are looked through."""
_BATCH = 4096
_META = ("origin", "slice", "split", "document")
_STAMP = pa.timestamp("us", "UTC")
_LETTERS = 20
"""Letters of a task's name in Feast's project: PostgreSQL's names of tables are short."""


def of_task(platform: Platform, name: str) -> FeatureView:
    """The view of the task's present tokenizer and prompt; raises Invalid where its features have neither."""
    task = platform.settings.tasks[name]
    if task.recipe.kind == "encoder":
        raise Invalid(
            f"task '{name}' has no features of tokens: its recipe 'encoder' learns from vectors",
            "name a task with another recipe: --task NAME",
            where=platform.settings.place("tasks", name, "recipe"),
        )
    tokenizer = platform.tokenizer(platform.model(task.base)).digest
    prompt = prompts.definition(task.system)
    return view_of(platform, name, tokenizer, prompt)


def view_of(platform: Platform, name: str, tokenizer: str, prompt: str) -> FeatureView:
    """The view of a tokenizer and a prompt: others have their own tables, online too."""
    version = tokenise.version(tokenizer, prompt)
    project = project_of(platform, name, version)
    return FeatureView(
        project=project,
        name=NAME,
        entity=ENTITY,
        fields={
            "token_ids": "ints", "attention_mask": "ints", "loss_mask": "ints", "n_tokens": "int", "meta": "text",
        },
        table=table_of(platform, name, version),
        tags={"task": name, "version": version, "tokenizer": tokenizer, "prompt": prompt},
    )  # fmt: skip


def project_of(platform: Platform, name: str, version: str) -> str:
    """Feast's project: several of noria's may share an online store."""
    letters = "".join(each if each.isascii() and each.isalnum() else "_" for each in name[:_LETTERS]).strip("_")
    return f"{letters or 'task'}_{digest_of([platform.settings.project.name, name, version])[:12]}"


def table_of(platform: Platform, name: str, version: str) -> Path:
    """Folder of a view's history in the lake."""
    root = platform.settings.root / platform.settings.runtime.lake
    return root.resolve() / "feature-views" / name / version


def publish(platform: Platform, name: str, view: FeatureView) -> int:
    """Add what features there are of this version and are not in the history yet; returns the number of rows added."""
    added = 0
    for made, at in _made(platform, name, view.tags["version"]):
        part = f"part-{made.ref.digest}"
        if not (view.table / f"{part}.parquet").exists():
            rows = _changed(platform.lake.path(made.ref) / "features.parquet", view, name, at)
            platform.features.add(view, rows, part)
            added += rows.num_rows
    return added


@dataclass(frozen=True, slots=True)
class History:
    """How much there is of a view's history; times are None without a row."""

    parts: int
    rows: int
    ids: int
    first: datetime | None
    last: datetime | None


def told(view: FeatureView) -> History:
    """What the files of the history say."""
    files = sorted(view.table.glob("*.parquet"))
    tables = [pq.read_table(file, columns=[view.entity, "event_timestamp"]) for file in files]
    stamps = [stamp for table in tables for stamp in table["event_timestamp"].to_pylist()]
    ids = {identity for table in tables for identity in table[view.entity].to_pylist()}
    return History(len(files), len(stamps), len(ids), min(stamps, default=None), max(stamps, default=None))


def ids_of(view: FeatureView) -> list[str]:
    """All entities of the history, in order."""
    tables = [pq.read_table(file, columns=[view.entity]) for file in sorted(view.table.glob("*.parquet"))]
    return sorted({identity for table in tables for identity in table[view.entity].to_pylist()})


def _made(platform: Platform, name: str, version: str) -> Iterator[tuple[Artifact, datetime]]:
    """Features of this version, the oldest first, with when they were first made."""
    seen = set()
    for _, runs in reversed(platform.runs.cycles(name, _CYCLES)):
        for run in runs:
            if run.stage != "features" or run.output in seen or not platform.lake.has(run.output):
                continue
            seen.add(run.output)
            made = platform.runs.artifact(run.output)
            if made is not None and made.meta.get("version") == version:
                yield made, run.at


def _changed(file: Path, view: FeatureView, name: str, at: datetime) -> pa.Table:
    """Rows of a features file that the history does not have, or has otherwise."""
    known = _latest(view)
    found = []
    for batch in pq.ParquetFile(file).iter_batches(_BATCH):
        words = [batch.column(column).to_pylist() for column in _META]
        meta = [
            json.dumps({"task": name, **dict(zip(_META, row, strict=True))}, ensure_ascii=False)
            for row in zip(*words, strict=True)
        ]
        ids = batch.column("id").to_pylist()
        before = [known.get(identity) for identity in ids]
        marks = _marks(batch.column("input_ids"), batch.column("loss_mask"), meta)
        said = [
            when if old is None and when is not None and when < at else at
            for when, old in zip(batch.column("at").to_pylist(), before, strict=True)
        ]
        columns = {
            view.entity: batch.column("id"),
            "token_ids": batch.column("input_ids"),
            "attention_mask": batch.column("attention_mask"),
            "loss_mask": batch.column("loss_mask"),
            "n_tokens": batch.column("tokens"),
            "meta": pa.array(meta, pa.string()),
            "event_timestamp": pa.array(said, _STAMP),
            "created": pa.array([at] * len(ids), _STAMP),
        }
        fresh = [old != mark for old, mark in zip(before, marks, strict=True)]
        found.append(pa.table(columns).filter(pa.array(fresh, pa.bool_())))
    return pa.concat_tables(found)


def _latest(view: FeatureView) -> dict[str, bytes]:
    """The latest row of each entity, as its mark; files do not come in order of time."""
    found: dict[str, tuple[datetime, datetime, bytes]] = {}
    names = [view.entity, "token_ids", "loss_mask", "meta", "event_timestamp", "created"]
    for file in sorted(view.table.glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(_BATCH, columns=names):
            marks = _marks(batch.column("token_ids"), batch.column("loss_mask"), batch.column("meta").to_pylist())
            whens = (batch.column(name).to_pylist() for name in ("event_timestamp", "created"))
            for identity, event, created, mark in zip(
                batch.column(view.entity).to_pylist(), *whens, marks, strict=True
            ):
                if identity not in found or (event, created) >= found[identity][:2]:
                    found[identity] = (event, created, mark)
    return {identity: each[2] for identity, each in found.items()}


def _marks(ids: pa.Array, learned: pa.Array, meta: Sequence[str | None]) -> list[bytes]:
    """Of each row what changes when it does."""
    tokens, masks = (_pieces(ids, np.int64), _pieces(learned, np.int8))
    return [
        hashlib.blake2b(b"\0".join((a, b, (text or "").encode())), digest_size=16).digest()
        for a, b, text in zip(tokens, masks, meta, strict=True)
    ]


def _pieces(lists: pa.Array, kind: type[np.generic]) -> list[bytes]:
    values = np.asarray(pc.list_flatten(lists)).astype(kind)
    ends = np.cumsum([0, *pc.fill_null(pc.list_value_length(lists), 0).to_pylist()])
    return [values[start:end].tobytes() for start, end in itertools.pairwise(ends)]


def versions(platform: Platform, name: str) -> list[FeatureView]:
    """A view for each version that has a history, whatever tokenizer and prompt are in use now."""
    there = table_of(platform, name, "-").parent.glob("*")
    folders = sorted(each for each in there if each.is_dir() and not each.name.startswith("documents-"))
    shape = view_of(platform, name, "", "")
    return [
        replace(shape, project=project_of(platform, name, each.name), table=each, tags={"version": each.name})
        for each in folders
    ]


def forget(platform: Platform, ids: Collection[str]) -> int:
    """Take examples out of every history and out of the online store; returns how many rows of histories went."""
    keys, at = sorted(ids), platform.clock.now()
    views = [view for name in platform.settings.tasks for view in versions(platform, name)] if keys else []
    return sum(platform.features.remove(view, keys, at) for view in views)


def present(platform: Platform, name: str) -> FeatureView:
    """The task's view with its history brought up to date; raises NotFound where no features were ever made."""
    view = of_task(platform, name)
    publish(platform, name, view)
    if not any(view.table.glob("*.parquet")):
        raise NotFound(f"task '{name}' has no features of its present tokenizer and prompt", "noria run features")
    return view
