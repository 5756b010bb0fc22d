"""Rows that were read before, kept on this machine: a file that has not changed is not parsed again."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from noria.lake import listing
from noria.lake.documents import Made
from noria.names import digest_of

PACKS = 16
"""Packs of one source beyond which they are written anew as one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was read of a file: `batches` of a pack from number `first` on, and what was counted."""

    name: str
    digest: str
    key: str
    """Digest of what else its rows depend on: settings of the source, code of the reader."""
    pack: str = ""
    first: int = 0
    batches: int = 0
    documents: int = 0
    quarantined: int = 0
    offset: int = 0
    reason: str = ""
    """The first fault."""
    encoding: str = ""
    skipped: dict[str, int] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    whole: bool = False
    """Whether the file as a whole is faulty."""
    passing: bool = False
    """Whether it is to be tried again the next time."""


ROWS = pa.schema(
    [
        ("key", pa.uint64()),
        ("text", pa.string()),
        ("fields", pa.string()),
        ("conversation", pa.string()),
        ("offset", pa.int64()),
        ("reason", pa.string()),
    ]
)
"""What is kept of a file: documents, whose id is their key unless another row of the source has the same, and faults,
which have a reason. `conversation` is null where a document is one by itself."""


def identity(source: str, text: str, number: int) -> int:
    """A document's id as a number: it depends on source and content only, so that it outlives a moved row or file.

    `number` counts the rows of the source with the same text, from 0.
    """
    return int(digest_of([source, text, number]), 16)


class Pack:
    """A file of Arrow batches of `ROWS` that is being written; it counts once `close` has given it its end."""

    def __init__(self, folder: Path, source: str) -> None:
        self.source = source
        self.name = uuid4().hex
        self.count = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._sink = pa.OSFile(str(folder / f"{self.name}.arrow"), "wb")
        self._out = pa.ipc.new_file(self._sink, ROWS, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    def take(self, rows: list[Made]) -> None:
        """Append rows with their keys."""
        columns = list(zip(*rows, strict=True))
        keys = [0 if text is None else identity(self.source, text, 0) for text in columns[0]]
        arrays = [pa.array(values, kind) for values, kind in zip((keys, *columns), ROWS.types, strict=True)]
        self.add(pa.RecordBatch.from_arrays(arrays, schema=ROWS))

    def add(self, batch: pa.RecordBatch) -> None:
        """Append a batch."""
        self._out.write_batch(batch)
        self.count += 1

    def close(self) -> None:
        """Write the end."""
        self._out.close()
        self._sink.close()


class Kept:
    """The folder of one source: `files.json` names the files that were read last, `*.arrow` hold their rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place = folder / "files.json"
        self._open: dict[str, pa.ipc.RecordBatchFileReader] = {}
        self.entries = self._load()
        self._by_content = {(entry.key, entry.digest): entry for entry in self.entries if not entry.passing}

    def find(self, key: str, digest: str) -> Entry | None:
        """What was read of a file with this content, if its rows are still there."""
        entry = self._by_content.get((key, digest))
        if entry is None or (entry.batches and self._reader(entry.pack) is None):
            return None
        return entry

    def batches(self, entry: Entry) -> Iterator[pa.RecordBatch]:
        """The rows of a file."""
        if entry.batches:
            reader = self._reader(entry.pack)
            assert reader is not None
            for number in range(entry.first, entry.first + entry.batches):
                yield reader.get_batch(number)

    def save(self, entries: Sequence[Entry]) -> None:
        """Keep these and nothing else; many small packs become one."""
        packs = {entry.pack for entry in entries if entry.batches}
        used = sum(entry.batches for entry in entries)
        there = sum(reader.num_record_batches for pack in packs if (reader := self._reader(pack)) is not None)
        if len(packs) > PACKS or there > 2 * used + PACKS:
            entries = self._repacked(entries)
            packs = {entry.pack for entry in entries if entry.batches}
        listing.replace(self._place, json.dumps([asdict(entry) for entry in entries], ensure_ascii=False).encode())
        self.entries = tuple(entries)
        for file in self.folder.glob("*.arrow"):
            if file.stem not in packs:
                file.unlink(missing_ok=True)

    def _repacked(self, entries: Sequence[Entry]) -> list[Entry]:
        pack, moved = Pack(self.folder, ""), []
        done: dict[tuple[str, int], int] = {}
        for entry in entries:
            if entry.batches:
                place = (entry.pack, entry.first)
                if place not in done:
                    done[place] = pack.count
                    for batch in self.batches(entry):
                        pack.add(batch)
                entry = replace(entry, pack=pack.name, first=done[place])
            moved.append(entry)
        pack.close()
        return moved

    def _load(self) -> tuple[Entry, ...]:
        with suppress(OSError, ValueError, TypeError):
            return tuple(Entry(**told) for told in json.loads(self._place.read_bytes()))
        return ()

    def _reader(self, pack: str) -> pa.ipc.RecordBatchFileReader | None:
        if pack not in self._open:
            try:
                self._open[pack] = pa.ipc.open_file(pa.memory_map(str(self.folder / f"{pack}.arrow")))
            except (OSError, pa.ArrowInvalid):
                return None
        return self._open[pack]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else reads this source meanwhile: two tasks may share it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            for file in folder.glob("*.new"):
                file.unlink(missing_ok=True)
