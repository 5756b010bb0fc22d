"""What was made of a person's rows: data sets and all that came of them, by lineage; and taking the rows out again.

Nothing else changes an artifact. It keeps its name, so that lineage and `noria why` go on working, and says in
`forgotten.json` that rows were taken out of it. What was learned from them stays in the weights of an adapter: it is
named, marked so that no training goes on from it, and serves until it is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import JsonValue

from noria.adapters import FORGOTTEN, PROBES
from noria.errors import NoriaError
from noria.ports import Platform
from noria.types import Artifact, Deployment, Ref, Run, digest_of

EVERY = 100_000
"""Cycles that are looked through."""
RELEASES = 10_000
_KINDS = ("sources", "dataset", "features", "report", "comparison")
"""Kinds of artifacts that hold rows, in the order of their making."""
_TELLING = frozenset({"id", "origin", "conversation", "record", "row"})
"""Columns that tell whose a row is; `row` is an example's id in the table of suspects."""
_FROM_FEEDBACK = frozenset({"traffic:correction", "traffic:thumbs"})
"""Origins of rows that exist because somebody said something of an answer."""

Mine = Callable[[str], bool]
"""Whether a record of the log, as JSON, is the person's."""


class Whose:
    """By what rows are known to be the person's: a test for records, and names of conversations.

    `judged` are conversations of others of which the person said something: only rows from feedback are taken there,
    whoever gave it.
    """

    def __init__(self, mine: Mine, conversations: Collection[str], judged: Collection[str] = ()) -> None:
        self.mine = mine
        self._own, self._judged = _names(conversations), _names(judged)

    def row(self, origin: str, conversation: str) -> bool:
        """Whether an example or a pair is the person's."""
        own = origin.startswith("traffic") and conversation in self._own
        return own or (origin in _FROM_FEEDBACK and conversation in self._judged)


@dataclass(slots=True)
class Traces:
    """What the lake holds of a person: rows by artifact, and the ids of examples that were made of them."""

    rows: dict[Ref, int] = field(default_factory=dict)
    examples: set[str] = field(default_factory=set)
    adapters: list[Ref] = field(default_factory=list)
    """Those that were trained on the rows, or went on from one that was."""
    serving: list[dict[str, str]] = field(default_factory=list)
    """Where such an adapter serves now: task, role, candidate."""
    releases: list[dict[str, JsonValue]] = field(default_factory=list)
    """Every release that made such an adapter the champion."""

    def of(self, kind: str) -> list[Ref]:
        """Artifacts of a kind that hold rows."""
        return [ref for ref in self.rows if ref.kind == kind]


def trace(platform: Platform, whose: Whose, more: Iterable[Ref] = ()) -> Traces:
    """Look for a person's rows in every artifact of a cycle, and in `more`, and for what was learned from them."""
    traces = Traces()
    made = _artifacts(platform, more)
    # The ids of examples must be known before features and reports are looked at.
    for kind in _KINDS:
        for ref in (each for each in made if each.kind == kind and platform.lake.has(each)):
            if found := _count(platform.lake.path(ref), whose, traces.examples):
                traces.rows[ref] = found
    _learned(platform, made, traces)
    return traces


def remove(platform: Platform, traces: Traces, whose: Whose, at: datetime) -> None:
    """Take the rows out of what holds them; adapters are marked. Asking again changes nothing more.

    What was made last goes first: what is found by something else goes before that, so that after a kill at any
    point `trace` finds the rest.
    """
    for ref in traces.adapters:
        if platform.lake.has(ref):
            folder = platform.lake.path(ref)
            # What is as it was made is noted as such before anything is taken out.
            with contextlib.suppress(NoriaError):
                platform.lake.verified(ref)
            _mark(folder, at, _out_of_wording(folder, traces.examples))
            (folder / PROBES).unlink(missing_ok=True)
    newest = sorted(traces.rows.items(), key=lambda each: _KINDS.index(each[0].kind), reverse=True)
    for ref, found in newest:
        folder = platform.lake.path(ref)
        if ref.kind == "comparison":
            shutil.rmtree(folder)
            continue
        _mark(folder, at, found)
        if ref.kind == "report":
            _out_of_report(folder, traces.examples)
        # Tables that know rows by ids alone are found by those that name conversations.
        tables = sorted(folder.glob("*.parquet"))
        for file in sorted(tables, key=lambda each: "conversation" in pq.read_schema(each).names):
            _rewrite(file, whose, traces.examples)


def record(platform: Platform, told: dict[str, Any], at: datetime) -> Ref:
    """Keep what was done, without personal data, as `forgetting:log@…` in the lake and the ledger."""
    folder = platform.lake.scratch(f"forgetting-{at:%Y%m%d%H%M%S%f}")
    (folder / "forgetting.json").write_text(json.dumps(told, indent=1) + "\n")
    ref = platform.lake.commit(folder, "forgetting", "log")
    key = digest_of({"forgetting": str(ref)})
    run = Run(key=key, stage="forgetting", task="", cycle="", output=ref, seconds=0.0, peak_mb=0.0, at=at)
    platform.runs.record(run, Artifact(ref=ref, parents=(), run_key=key, meta=told))
    return ref


def _artifacts(platform: Platform, more: Iterable[Ref]) -> dict[Ref, Artifact | None]:
    refs = [run.output for _, runs in platform.runs.cycles(None, EVERY) for run in runs]
    return {ref: platform.runs.artifact(ref) for ref in [*refs, *more]}


def _names(conversations: Collection[str]) -> frozenset[str]:
    """The names that conversations have in a data set: where one tells who it was with, its digest."""
    return frozenset({*conversations, *(digest_of(name) for name in conversations)})


def _count(folder: Path, whose: Whose, examples: set[str]) -> int:
    """Rows of a person in the tables and reports of a folder; ids of examples are added to those known."""
    found = 0
    tables = {file: _TELLING.intersection(pq.read_schema(file).names) for file in sorted(folder.glob("*.parquet"))}
    # The ids of examples must be known before a table that has nothing else.
    for file, columns in sorted(tables.items(), key=lambda each: "conversation" not in each[1]):
        table = pq.read_table(file, columns=sorted(columns))
        masks = _mask(table, whose, examples)
        found += sum(masks)
        if "conversation" in table.column_names:
            ids = table["id"].to_pylist()
            examples.update(identity for identity, is_mine in zip(ids, masks, strict=True) if is_mine)
    for file in folder.glob("report*.json"):
        rows = json.loads(file.read_text(encoding="utf-8")).get("rows", [])
        found += sum(row["id"] in examples for row in rows)
    return found


def _mask(table: pa.Table, whose: Whose, examples: Collection[str]) -> list[bool]:
    """Which rows of a table are the person's: by the record itself, by the conversation, or by the example's id."""
    columns = set(table.column_names)
    if "record" in columns:
        return [whose.mine(text) for text in table["record"].to_pylist()]
    if {"origin", "conversation", "id"} <= columns:
        rows = zip(table["origin"].to_pylist(), table["conversation"].to_pylist(), strict=True)
        return [whose.row(origin, conversation) for origin, conversation in rows]
    if named := columns & {"id", "row"}:
        return [identity in examples for identity in table[min(named)].to_pylist()]
    return [False] * table.num_rows


def _learned(platform: Platform, made: dict[Ref, Artifact | None], traces: Traces) -> None:
    tainted = set(traces.of("features"))
    adapters = [each for ref, each in reversed(made.items()) if ref.kind == "adapter" and each is not None]
    # Mostly oldest first. But a cycle that takes an earlier product names it anew, so one round may not reach all.
    known = -1
    while known < len(tainted):
        known = len(tainted)
        for each in adapters:
            if each.ref not in tainted and tainted.intersection(each.parents):
                tainted.add(each.ref)
                traces.adapters.append(each.ref)
    for task in platform.settings.tasks:
        history = platform.deployments.history(task, RELEASES)
        if history:
            traces.serving += _serving(history[0], tainted)
        traces.releases += [
            {"task": task, "version": each.version, "at": each.at.isoformat(), "champion": str(each.champion.ref)}
            for each in history
            if each.champion is not None and each.champion.adapter in tainted
        ]


def _serving(live: Deployment, tainted: Collection[Ref]) -> list[dict[str, str]]:
    roles = {
        "champion": live.champion,
        "challenger": live.challenger,
        "control": live.control,
        "previous": live.previous,
    }
    return [
        {"task": live.task, "role": role, "candidate": str(each.ref), "adapter": str(each.adapter)}
        for role, each in roles.items()
        if each is not None and each.adapter in tainted
    ]


def _rewrite(file: Path, whose: Whose, examples: Collection[str]) -> None:
    table = pq.read_table(file)
    masks = _mask(table, whose, examples)
    if any(masks):
        fresh = file.with_name(f".{file.name}.new")
        pq.write_table(table.filter(pc.invert(pa.array(masks, pa.bool_()))), fresh, compression="zstd")
        _synced(fresh, file)


def _out_of_report(folder: Path, examples: Collection[str]) -> None:
    """Rows out of a report; its numbers stay. The page is drawn anew when it is asked for, answers are asked anew."""
    file = folder / "report.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    told["rows"] = [row for row in told["rows"] if row["id"] not in examples]
    # The report itself comes last: by its rows it is found.
    (folder / "answers.jsonl").write_text("")
    (folder / "report.html").unlink(missing_ok=True)
    fresh = folder / ".report.json.new"
    fresh.write_text(json.dumps(told, ensure_ascii=False, indent=1))
    _synced(fresh, file)


def _out_of_wording(folder: Path, examples: Collection[str]) -> int:
    """Rows out of a prompt, which is no longer the one that was measured: the base answers until the next cycle."""
    file = folder / "wording.json"
    if not file.is_file():
        return 0
    told = json.loads(file.read_text(encoding="utf-8"))
    kept = [shot for shot in told["shots"] if shot["id"] not in examples]
    out = len(told["shots"]) - len(kept)
    if out:
        fresh = folder / ".wording.json.new"
        fresh.write_text(json.dumps({**told, "shots": kept}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        _synced(fresh, file)
    return out


def _mark(folder: Path, at: datetime, rows: int) -> None:
    """Say that rows were taken out, or that what was learned from them is in here; earlier marks stay."""
    file = folder / FORGOTTEN
    before = json.loads(file.read_text()) if file.is_file() else []
    fresh = folder / f".{FORGOTTEN}.new"
    fresh.write_text(json.dumps([*before, {"at": at.isoformat(), "rows": rows}]) + "\n")
    _synced(fresh, file)


def _synced(fresh: Path, file: Path) -> None:
    with fresh.open("rb") as handle:
        os.fsync(handle.fileno())
    fresh.replace(file)
