"""The stage `sources`: every source of a task, read as it stands now, becomes documents; traffic comes beside them."""

from __future__ import annotations

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from noria.errors import Conflict, Invalid
from noria.lake import sql
from noria.lake.crawl import crawl, kept
from noria.lake.parquet import DOCUMENTS, QUARANTINE, Rows, write_traffic
from noria.lake.parsers import parser
from noria.lake.rows import Fault, Item, Row, Skip, broken
from noria.settings import Settings, SourceSettings, TaskSettings
from noria.stage import Look, Work
from noria.types import digest_of


@dataclass(frozen=True, slots=True)
class Part:
    """One file or query of a source: its name as shown, its SHA-256 and its items, parsed when asked for."""

    name: str
    digest: str
    items: Callable[[], Iterator[Item]]


@dataclass(slots=True)
class Tally:
    """What became of one source; `first` is the first fault, for the error message."""

    documents: int = 0
    quarantined: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    first: str = ""


def sources_of(task: TaskSettings, settings: Settings) -> list[SourceSettings]:
    """The sources of a task, that of its context included, each once and in the order of their names."""
    names = {*task.sources, *((task.context.source,) if task.context else ())}
    return [settings.source(name) for name in sorted(names)]


def params(look: Look) -> JsonValue:
    """What changes what is read: the task, whose traffic it is, and kind, place and map of every source."""
    used = sources_of(look.task, look.platform.settings)
    wanted = {"name", "kind", "path", "url", "query", "map", "record", "main", "assistants"}
    return {"task": look.name, "sources": [source.model_dump(mode="json", include=wanted) for source in used]}


def observes(look: Look) -> JsonValue:
    """What is there now: digests of all files and query results, and the mark of the traffic, shipped just before."""
    traffic = look.platform.traffic
    traffic.ship()
    settings = look.platform.settings
    for source in sources_of(look.task, settings):
        if source.kind == "html" and source.url:
            crawl(source.url, source.crawl, _shelf(source, settings))
    seen = [
        [source.name, part.name, part.digest]
        for source in sources_of(look.task, settings)
        for part in _parts(source, settings)
    ]
    return {"sources": [list(row) for row in sorted(seen)], "traffic": traffic.mark()}


def work(work: Work) -> Mapping[str, JsonValue]:
    """Write documents, quarantine, interactions and feedback as Parquet; returns counts per source.

    Raises Invalid for a source without files or without a single document, Conflict when a file has changed since
    it was observed.
    """
    settings = work.platform.settings
    observed = work.observed if isinstance(work.observed, dict) else {}
    documents, quarantine = Rows(DOCUMENTS), Rows(QUARANTINE)
    tallies: dict[str, Tally] = {}
    seen: list[list[str]] = []
    used = sources_of(work.task, settings)
    for done, source in enumerate(used):
        work.progress.update("sources", done, len(used), source.name)
        tally = tallies[source.name] = Tally()
        numbers: Counter[bytes] = Counter()
        for part in _parts(source, settings):
            seen.append([source.name, part.name, part.digest])
            _read(source, part, tally, numbers, documents, quarantine)
        if not tally.documents:
            raise _empty(source, tally, settings)
    if sorted(seen) != observed.get("sources", sorted(seen)):
        raise Conflict("a source changed while it was read", "run again when its files are complete")
    documents.write(work.out / "documents.parquet")
    quarantine.write(work.out / "quarantine.parquet")
    traffic = _traffic(work, observed.get("traffic"))
    work.progress.update("sources", len(used), len(used))
    return {
        "documents": documents.count,
        "quarantined": quarantine.count,
        "sources": {
            name: {"documents": tally.documents, "quarantined": tally.quarantined, "skipped": dict(tally.skipped)}
            for name, tally in tallies.items()
        },
        **traffic,
    }


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


def _parts(source: SourceSettings, settings: Settings) -> Iterator[Part]:
    """The files of a source in the order of their names, the pages of its site as last crawled, or its one query."""
    if source.kind == "sql":
        where = _place(source, settings, "url")
        answer = sql.ask(source.url or "", source.query or "", settings.root, where)
        yield Part(answer.name, answer.digest, answer.items)
        return
    if source.kind == "html" and source.url:
        for page, data in kept(_shelf(source, settings)):
            yield Part(page.url, page.digest, partial(parser(source, page.kind), data))
        return
    pattern = source.path or ""
    found = sorted({Path(settings.root, name) for name in glob.glob(pattern, root_dir=settings.root, recursive=True)})
    files = [file for file in found if file.is_file()]
    if not files:
        raise Invalid(
            f"source '{source.name}': no file matches '{pattern}'",
            f"relative patterns start from '{settings.root}'",
            where=_place(source, settings, "path"),
        )
    for file in files:
        yield _part(source, file, settings.root)


def _part(source: SourceSettings, file: Path, root: Path) -> Part:
    data = file.read_bytes()
    name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    return Part(name, hashlib.sha256(data).hexdigest(), partial(parser(source), data))


def _shelf(source: SourceSettings, settings: Settings) -> Path:
    """Where the pages of a site are kept between two crawls."""
    return settings.state / "crawl" / source.name


def _read(
    source: SourceSettings, part: Part, tally: Tally, numbers: Counter[bytes], documents: Rows, quarantine: Rows
) -> None:
    for item in part.items():
        if isinstance(item, Row):
            item = _checked(source, item)
        if isinstance(item, Skip):
            tally.skipped[item.reason] += 1
        elif isinstance(item, Fault):
            tally.quarantined += 1
            tally.first = tally.first or f"{part.name}, {item.offset}: {item.reason}"
            reason = item.reason.encode("utf-8", "backslashreplace").decode()
            quarantine.add({"source": source.name, "file": part.name, "offset": item.offset, "reason": reason})
        else:
            tally.documents += 1
            documents.add(_document(source, part, item, numbers))


def _checked(source: SourceSettings, row: Row) -> Row | Fault:
    """The row, or why it cannot be used: text that is none, or a mapped column that is missing or empty."""
    for name, value in row.fields.items():
        if reason := broken(name) or broken(value):
            return Fault(row.offset, reason)
    for column in source.map.values():
        if column not in row.fields:
            return Fault(row.offset, f"there is no column '{column}', but: {', '.join(row.fields) or 'none'}")
        if not row.fields[column].strip():
            return Fault(row.offset, f"column '{column}' is empty")
    if not any(value.strip() for value in row.fields.values()):
        return Fault(row.offset, "all columns are empty")
    return row


def _document(source: SourceSettings, part: Part, row: Row, numbers: Counter[bytes]) -> dict[str, object]:
    """A document's columns. Its id depends on source and content only, so that it outlives a moved row or file."""
    key = source.map.get("conversation")
    # A conversation's id says nothing about the content, and would hide that two rows are the same.
    shown = ((name, value.strip()) for name, value in row.fields.items() if name != key)
    text = row.text if row.text is not None else "\n".join(f"{name}: {value}" for name, value in shown if value)
    content = hashlib.sha256(text.encode()).digest()[:12]
    identity = digest_of([source.name, text, numbers[content]])
    numbers[content] += 1
    conversation = row.fields[key].strip() if key else row.conversation or identity
    return {
        "id": identity,
        "source": source.name,
        "text": text,
        "fields": json.dumps(row.fields, ensure_ascii=False),
        "conversation": conversation,
        "file": part.name,
        "offset": row.offset,
        "digest": part.digest,
    }


def _empty(source: SourceSettings, tally: Tally, settings: Settings) -> Invalid:
    if tally.quarantined:
        why = f"all of its {tally.quarantined} rows are faulty, the first: {tally.first}"
        hint = "correct the file, or the source's kind and map"
    elif tally.skipped:
        why = "; ".join(f"{count} times {reason}" for reason, count in sorted(tally.skipped.items()))
        hint = "check that the files hold text"
    else:
        why, hint = "its files hold no row", "add data, or take the source out of the task"
    return Invalid(f"source '{source.name}' is empty: {why}", hint, where=_place(source, settings))


def _place(source: SourceSettings, settings: Settings, *key: str) -> str:
    return settings.place("sources", str(settings.sources.index(source)), *key)
