"""One source, read: what is there now, what of it was read before, and the rows of the rest."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from math import inf
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from noria.errors import Conflict, Invalid
from noria.lake import parsers, sql
from noria.lake.columns import MOST, shown, union
from noria.lake.contained import Outcome, Reader
from noria.lake.crawl import kept as kept_pages
from noria.lake.documents import Job, Made, Maker
from noria.lake.kept import Entry, Kept, Pack, identity
from noria.lake.limited import Limits
from noria.lake.listing import Digests, File, changed, local_files, sha256
from noria.lake.objects import Store, is_remote
from noria.lake.parquet import QUARANTINE, Rows
from noria.lake.rows import Fault
from noria.settings import Kind, Settings, SourceSettings
from noria.tables import DOCUMENTS
from noria.types import digest_of

_GROUP = 256
"""Files of an object store that lie on this machine at one time."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file or a query's answer as it is now; `digest` is its SHA-256, empty for a file that is refused."""

    file: File
    digest: str
    answer: sql.Answer | None = None
    kind: str = ""
    """Kind of a page of a site; otherwise it is the source's."""


@dataclass(slots=True)
class Place:
    """A source with where its things are: its folder on this machine, its lines in noria.toml."""

    source: SourceSettings
    settings: Settings
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.settings.state / "read" / self.source.name

    @property
    def site(self) -> Path:
        """Where the pages of a site are kept between two crawls."""
        return self.folder / "site"

    @property
    def fetched(self) -> Path:
        """Where files of an object store lie while they are read."""
        return self.folder / "fetched"

    def line(self, *key: str) -> str:
        """`noria.toml:LINE` of one of the source's keys."""
        return self.settings.place("sources", str(self.settings.sources.index(self.source)), *key)

    def store(self) -> Store | None:
        """Where its files lie, if not on this machine."""
        path = self.source.path or ""
        return Store(path, self.source.storage, self.line("path")) if is_remote(path) else None


def find(place: Place) -> list[Found]:
    """What the source has now, in the order of the names. Files that have not changed are not read for their digest.

    Raises Invalid when nothing matches, or the address or the query is wrong; Unavailable when it cannot be reached.
    """
    source = place.source
    if source.kind == "sql":
        answer = sql.ask(place.source, place.settings.root, place.folder, place.line("url"))
        return [Found(File(answer.name, "", 0, "", 0.0), answer.digest, answer)]
    if source.kind == "html" and source.url:
        pages = ((page, file.stat().st_size, file) for page, file in kept_pages(place.site))
        return [
            Found(File(page.url, str(file), size, page.digest, inf), page.digest, kind=page.kind)
            for page, size, file in pages
        ]
    store = place.store()
    files = listed(place, store)
    # Where the process was killed, raw files may lie there still.
    shutil.rmtree(place.fetched, ignore_errors=True)
    digests = Digests(place.folder / "digests.json")
    found = [_digested(file, digests, store) for file in files]
    digests.save()
    return found


def listed(place: Place, store: Store | None = None) -> list[File]:
    """The files that the source's path names, in the order of their names; `store` is theirs, if it is open already.

    What the project keeps itself, the lake above all, is none of them. Raises Invalid when there is none, Unavailable
    when the store cannot be reached.
    """
    source, store = place.source, store or place.store()
    pattern, most, root = source.path or "", source.limits.file_mb, place.settings.root
    if store is not None:
        files = store.files(most)
    else:
        own = _own(place.settings)
        found = local_files(pattern, root, most)
        files = [file for file in found if not any(Path(os.path.realpath(file.path)).is_relative_to(o) for o in own)]
    if not files:
        hint = _HINT if store is not None else f"patterns start from '{root}'; what noria keeps there is no source"
        raise Invalid(f"source '{source.name}': no file matches '{pattern}'", hint, where=place.line("path"))
    return files


_HINT = "check the address, and what the credentials may list"


def _own(settings: Settings) -> list[Path]:
    """Folders of what noria makes: a source that read them would read its own product, sealed rows too."""
    folders = ((settings.root / settings.runtime.lake).resolve(), settings.state.resolve())
    # A lake that the project itself lies in would leave nothing.
    return [folder for folder in folders if not settings.root.resolve().is_relative_to(folder)]


def _digested(file: File, digests: Digests, store: Store | None) -> Found:
    if file.refused:
        return Found(file, "")
    known = digests.of(file)
    if known is not None:
        return Found(file, known)
    try:
        digest = sha256(file.path) if store is None else store.digest(file)
    except OSError as error:
        return Found(File(file.name, file.path, 0, "", 0.0, f"it cannot be read: {error.strerror}"), "")
    digests.keep(file, digest)
    return Found(file, digest)


@dataclass(slots=True)
class Reading:
    """What was read of a source: what became of each file, and the rows behind that."""

    place: Place
    kept: Kept
    files: Mapping[str, int]
    """How many files are new, changed, unchanged and deleted since the source was read last."""
    columns_before: Mapping[str, str]
    documents: int = 0
    quarantined: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for entry in self.kept.entries:
            self.documents += entry.documents
            self.quarantined += entry.quarantined
            self.skipped.update(entry.skipped)

    def counts(self) -> dict[str, JsonValue]:
        """What is told of the source beside its product."""
        encodings = Counter(entry.encoding for entry in self.kept.entries if entry.encoding)
        return {
            "documents": self.documents,
            "quarantined": self.quarantined,
            "skipped": dict(self.skipped),
            "files": dict(self.files),
            "encodings": dict(encodings),
            "columns": {**_columns(self.kept.entries)},
        }

    def faults(self, most: int) -> list[str]:
        """The first fault of each of the first faulty files."""
        faulty = (entry for entry in self.kept.entries if entry.reason)
        return [f"{entry.name}, {entry.offset}: {entry.reason}" for entry, _ in zip(faulty, range(most), strict=False)]

    def save_faults(self) -> str:
        """Write all faults beside what is kept of the source; returns the file, relative to the project."""
        faults, file = Rows(QUARANTINE), self.place.folder / "quarantine.parquet"
        self.tables(Rows(DOCUMENTS, self.place.folder / "spill"), faults)
        faults.write(file)
        return file.relative_to(self.place.settings.root).as_posix()

    def tables(self, documents: Rows, quarantine: Rows) -> None:
        """Add its rows to the tables."""
        again = _repeated(self.kept)
        numbers: Counter[int] = Counter()
        for entry in self.kept.entries:
            told = {"source": self.place.source.name, "file": entry.name}
            if entry.whole:
                quarantine.add({**told, "offset": entry.offset, "reason": entry.reason})
            for batch in self.kept.batches(entry):
                if entry.quarantined:
                    good = pc.is_null(batch["reason"])
                    quarantine.add_batch(_shaped(QUARANTINE, batch.filter(pc.invert(good)), told))
                    batch = batch.filter(good)
                documents.add_batch(_documents(batch, {**told, "digest": entry.digest}, again, numbers))


def _repeated(kept: Kept) -> set[int]:
    """Keys that several rows of a source have."""
    keys = [batch["key"].to_numpy() for entry in kept.entries for batch in kept.batches(entry)]
    found = np.sort(np.concatenate([np.zeros(1, np.uint64), *keys]))
    return set(found[1:][found[1:] == found[:-1]].tolist())


def _documents(
    batch: pa.RecordBatch, told: Mapping[str, str], again: set[int], numbers: Counter[int]
) -> pa.RecordBatch:
    """Rows with their ids: the key, and another number for each further row of the source with the same text."""
    keys = batch["key"].to_pylist()
    if again:
        for at, key in enumerate(keys):
            if key in again:
                number = numbers[key]
                numbers[key] += 1
                if number:
                    keys[at] = identity(told["source"], batch["text"][at].as_py(), number)
    ids = pa.array([f"{key:016x}" for key in keys], pa.string())
    conversation = batch["conversation"]
    conversation = ids if conversation.null_count == len(ids) else pc.coalesce(conversation, ids)
    return _shaped(DOCUMENTS, batch, told, {"id": ids, "conversation": conversation})


def _shaped(
    schema: pa.Schema, batch: pa.RecordBatch, told: Mapping[str, str], more: Mapping[str, pa.Array] | None = None
) -> pa.RecordBatch:
    """A batch with the columns of the schema: from `more`, the same value for all rows from `told`, or its own."""
    more = more or {}
    columns = [
        more[name] if name in more
        else pa.repeat(pa.scalar(told[name], pa.string()), batch.num_rows) if name in told
        else batch[name]
        for name in schema.names
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def read(place: Place, found: list[Found], reader: Reader, told: Callable[[int, str], None]) -> Reading:
    """Read what was not read before; `told` is called with the number of files done and the name of the next.

    Raises Conflict when a file has changed since it was found.
    """
    kept = Kept(place.folder)
    before = {entry.name: entry.digest for entry in kept.entries}
    columns = _columns(kept.entries)
    key = digest_of([place.source.model_dump(mode="json", include=_PARSING), parsers.version()])
    entries: dict[int, Entry] = {}
    for number, each in enumerate(found):
        if each.file.refused:
            fault = Outcome(0, each.file.refused, whole=True, passing=True, quarantined=1)
            entries[number] = _entry(each, key + each.kind, fault)
        elif same := kept.find(key + each.kind, each.digest):
            entries[number] = replace(same, name=each.file.name)
    rest = [number for number in range(len(found)) if number not in entries]
    done = len(entries)
    with closing(Pack(place.folder, place.source.name)) as pack:
        for number, outcome in zip(rest, _parsed(place, [found[number] for number in rest], reader, pack), strict=True):
            told(done, found[number].file.name)
            each, done = found[number], done + 1
            if outcome.digest not in ("", each.digest):
                raise _conflict(each.file.name)
            entries[number] = _entry(each, key + each.kind, outcome, pack)
    now = [entries[number] for number in range(len(found))]
    kept.save(now, pack)
    return Reading(place, kept, changed(before, {entry.name: entry.digest for entry in now}), columns)


_PARSING = {"name", "kind", "map", "columns", "encoding", "limits", "record", "main", "assistants"}
"""Settings that change what the rows of a file are."""


def _entry(found: Found, key: str, told: Outcome, pack: Pack | None = None) -> Entry:
    name, place = "", (0, 0)
    if pack is not None and told.rows:
        name, place = pack.name, pack.place(pack.count - told.rows)
    return Entry(
        found.file.name, found.digest, key, name, *place, told.rows, told.documents, told.quarantined, told.offset,
        told.reason, told.encoding, told.skipped, told.columns, told.whole, told.passing,
    )  # fmt: skip


def _parsed(place: Place, found: list[Found], reader: Reader, pack: Pack) -> Iterator[Outcome]:
    """What became of each; their rows go into the pack."""
    store = place.store()
    for kind, alike in groupby(found, key=lambda each: each.kind or place.source.kind):
        job = _job(place.source, kind)
        while group := list(islice(alike, _GROUP)):
            if group[0].answer is not None:
                yield from (_taken(each.answer, job, pack) for each in group if each.answer is not None)
                continue
            try:
                files = [(_local(each, store, place), each.file.size) for each in group]
                yield from reader.read(job, files, pack.take)
            finally:
                shutil.rmtree(place.fetched, ignore_errors=True)


def _job(source: SourceSettings, kind: str) -> Job:
    named, options = "", {}
    if kind != "sql":
        parser = parsers.parser(source, kind)
        named, options = f"{parser.func.__module__}:{parser.func.__qualname__}", dict(parser.keywords)
    limits = Limits(**source.limits.model_dump())
    needs = {str(name): column for name, column in source.map.items()}
    return Job(named, kind, source.name, needs, source.columns, source.encoding, limits, options)


def peek(reader: Reader, file: Path, kind: str) -> list[dict[str, str]]:
    """The rows of one local file, contained as every file is; none where it cannot be read."""
    job = _job(SourceSettings(name="peek", kind=cast(Kind, kind), path=file.name), kind)
    made: list[Made] = []
    told = [*reader.read(job, [(str(file), file.stat().st_size)], made.extend)]
    return [json.loads(row[1]) for row in made if row[1] is not None] if not told[0].whole else []


def _local(found: Found, store: Store | None, place: Place) -> str:
    """Where the file lies on this machine; what is far away is fetched."""
    if store is None:
        return found.file.path
    fetched = place.fetched / found.digest
    if not fetched.is_file():
        fresh = fetched.with_name("new")
        if store.fetch(found.file, fresh) != found.digest:
            raise _conflict(found.file.name)
        fresh.replace(fetched)
    return str(fetched)


def _taken(answer: sql.Answer, job: Job, pack: Pack) -> Outcome:
    """The rows of a query, which come from no parser, as documents."""
    began = pack.count
    maker = Maker(job, pack.take)
    for item in answer.items():
        maker.take(item, inf)
    maker.flush()
    first = maker.first or Fault(0, "")
    return Outcome(
        first.offset, first.reason, rows=pack.count - began, digest=answer.digest, documents=maker.documents,
        quarantined=maker.quarantined, skipped=dict(maker.skipped), columns=dict(maker.columns.types),
    )  # fmt: skip


def _columns(entries: Iterable[Entry]) -> dict[str, str]:
    """The columns of all files together."""
    columns: dict[str, str] = {}
    for entry in entries:
        columns = union(columns, entry.columns)
    return columns


def _conflict(name: str) -> Conflict:
    return Conflict(f"'{name}' changed while it was read", "run again when the source's files are complete")


def check(reading: Reading, faulty: float) -> None:
    """Raise Invalid when columns have drifted, more is broken than `faulty` allows, or there is no document at all."""
    _check_columns(reading)
    _check_share(reading, faulty)
    if not reading.documents:
        raise _empty(reading)


def _check_columns(reading: Reading) -> None:
    """The columns of every file with rows are those that are declared, or have at least those that the map needs."""
    source = reading.place.source
    needed = {column: "text" for column in source.map.values()}
    for entry in reading.kept.entries:
        if not entry.columns or len(entry.columns) >= MOST:
            continue
        if source.columns is not None and source.columns.keys() != entry.columns.keys():
            told = f"declared are: {shown(source.columns)}; there are: {shown(entry.columns)}"
            where = reading.place.line("columns")
            raise Invalid(
                f"the columns of '{entry.name}' are not those of source '{source.name}': {told}", _DRIFT, where=where
            )
        if missing := [column for column in needed if column not in entry.columns]:
            before = (
                f"; when it was read last there were: {shown(reading.columns_before)}" if reading.columns_before else ""
            )
            raise Invalid(
                f"source '{source.name}': there is no column '{missing[0]}', but: {', '.join(entry.columns)} in "
                f"'{entry.name}'; its map needs: {', '.join(needed)}{before}",
                _DRIFT,
                where=reading.place.line("map"),
            )


_DRIFT = "correct the file, or the source's map and columns"


def _check_share(reading: Reading, faulty: float) -> None:
    """Raise Invalid when more rows, or more files, are broken than the settings allow."""
    source, entries = reading.place.source, reading.kept.entries
    allowed = faulty if source.faulty is None else source.faulty
    broken = sum(entry.whole for entry in entries)
    shares = (
        (reading.quarantined, reading.documents + reading.quarantined, "rows"),
        (broken, len(entries), "files"),
    )
    for bad, every, what in shares:
        if reading.documents and bad > allowed * every:
            first = "; ".join(reading.faults(3))
            raise Invalid(
                f"source '{source.name}': {bad} of {every} {what} are broken, more than faulty = {allowed:g} allows; "
                f"the first: {first}",
                f"correct them, or raise faulty; nothing was changed, and all faults are in '{reading.save_faults()}'",
                where=reading.place.line("faulty"),
            )


def _empty(reading: Reading) -> Invalid:
    if reading.quarantined:
        why = f"all of its {reading.quarantined} rows are faulty, the first: {reading.faults(1)[0]}"
        hint = "correct the file, or the source's kind and map"
    elif reading.skipped:
        why = "; ".join(f"{count} times {reason}" for reason, count in sorted(reading.skipped.items()))
        hint = "check that the files hold text"
    else:
        why, hint = "its files hold no row", "add data, or take the source out of the task"
    return Invalid(f"source '{reading.place.source.name}' is empty: {why}", hint, where=reading.place.line())
