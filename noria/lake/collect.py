"""The stage `sources`: every source of a task, read as it stands now, becomes documents; traffic comes beside them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from functools import partial

from pydantic import JsonValue

from noria.errors import Conflict
from noria.lake.contained import Reader
from noria.lake.crawl import crawl
from noria.lake.kept import alone
from noria.lake.parquet import QUARANTINE, Rows, write_traffic
from noria.lake.read import Found, Place, check, find, read
from noria.stage import Look, Work
from noria.tables import DOCUMENTS


def params(look: Look) -> JsonValue:
    """What changes what is read: the task, whose traffic it is, and all of every source that says how it is read."""
    used = [look.platform.settings.source(name) for name in look.task.source_names]
    left_out = {"slice", "limit"}
    return {
        "task": look.name,
        "faulty": look.task.faulty,
        "sources": [source.model_dump(mode="json", exclude=left_out) for source in used],
    }


def observes(look: Look) -> JsonValue:
    """What is there now: digests of all files and query results, and the mark of the traffic, shipped just before."""
    traffic = look.platform.traffic
    traffic.ship()
    settings = look.platform.settings
    seen: list[list[str]] = []
    for source in map(settings.source, look.task.source_names):
        place = Place(source, settings)
        with alone(place.folder):
            if source.kind == "html" and source.url:
                crawl(source.url, source.crawl, place.site)
            seen += _seen(source.name, find(place))
    return {"sources": [list(row) for row in sorted(seen)], "traffic": traffic.mark()}


def work(work: Work) -> Mapping[str, JsonValue]:
    """Write documents, quarantine, interactions and feedback as Parquet; returns counts per source.

    Raises Invalid for a source without files or without a single document, with more broken rows than the task
    allows, or with other columns than it needs; Conflict when a file has changed since it was observed.
    """
    settings = work.platform.settings
    observed = work.observed if isinstance(work.observed, dict) else {}
    spill = work.out / "spill"
    documents, quarantine = Rows(DOCUMENTS, spill / "documents"), Rows(QUARANTINE, spill / "quarantine")
    counts: dict[str, JsonValue] = {}
    seen: list[list[str]] = []
    with closing(Reader()) as reader:
        for source in map(settings.source, work.task.source_names):
            place = Place(source, settings)
            with alone(place.folder):
                found = find(place)
                seen += _seen(source.name, found)
                reading = read(place, found, reader, partial(_told, work, source.name, len(found)))
                check(reading, work.task.faulty)
                reading.tables(documents, quarantine)
                counts[source.name] = reading.counts()
    if sorted(seen) != observed.get("sources", sorted(seen)):
        raise Conflict("a source changed while it was read", "run again when its files are complete")
    documents.write(work.out / "documents.parquet")
    quarantine.write(work.out / "quarantine.parquet")
    shutil.rmtree(spill, ignore_errors=True)
    traffic = _traffic(work, observed.get("traffic"))
    work.progress.update("sources", 1, 1)
    return {"documents": documents.count, "quarantined": quarantine.count, "sources": counts, **traffic}


def _seen(source: str, found: list[Found]) -> list[list[str]]:
    return [[source, each.file.name, each.digest or each.file.refused] for each in found]


def _told(work: Work, source: str, total: int, done: int, file: str) -> None:
    work.progress.update("sources", done, total, f"{source}: {file}")


def _traffic(work: Work, mark: JsonValue) -> dict[str, JsonValue]:
    """Write what production said of this task at the mark."""
    interactions, feedback = work.platform.traffic.read(mark)
    mine = [interaction for interaction in interactions if interaction.task == work.name]
    known = {interaction.id for interaction in mine}
    said = [note for note in feedback if note.interaction in known]
    return {
        "interactions": write_traffic(mine, work.out / "interactions.parquet"),
        "feedback": write_traffic(said, work.out / "feedback.parquet"),
    }
