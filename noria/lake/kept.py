"""Rows that were read before, kept on this machine: a file that has not changed is not parsed again."""

from __future__ import annotations

import fcntl
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import orjson
import pyarrow as pa

from noria.lake import listing
from noria.lake.documents import Made
from noria.names import digest_of

PACKS = 16
"""Packs of one source beyond which they are written anew as one."""
_BATCH_ROWS, _BATCH_SIZE = 4096, 4 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """What was read of a file: `rows` of a pack, the first of them at `row` of `batch`, and what was counted."""

    name: str
    digest: str
    key: str
    """Digest of what else its rows depend on: settings of the source, code of the reader."""
    pack: str = ""
    batch: int = 0
    row: int = 0
    rows: int = 0
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
        self.name = uuid4().hex
        self.count = 0
        """Rows so far."""
        self._source = source
        folder.mkdir(parents=True, exist_ok=True)
        self._sink = pa.OSFile(str(folder / f"{self.name}.arrow"), "wb")
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        self._out = pa.ipc.new_file(self._sink, ROWS, options=options)
        self._starts: list[int] = []
        self._made: list[Made] = []
        self._waiting: list[pa.RecordBatch] = []
        self._size = 0

    def take(self, rows: list[Made]) -> None:
        """Append rows, which get their keys."""
        self._made += rows
        self._count(len(rows), sum(len(row[0] or "") + len(row[1] or "") for row in rows))

    def add(self, batch: pa.RecordBatch) -> None:
        """Append rows of another pack."""
        self._waiting.append(batch)
        self._count(batch.num_rows, batch.nbytes)

    def place(self, number: int) -> tuple[int, int]:
        """Batch, and row in it, of the row of this number."""
        batch = bisect_right(self._starts, number) - 1
        return (batch, number - self._starts[batch]) if batch >= 0 else (0, 0)

    def close(self) -> None:
        """Write the end."""
        self._write()
        self._out.close()
        self._sink.close()

    def _count(self, rows: int, size: int) -> None:
        """Rows of small files are written together."""
        if not self._size:
            self._starts.append(self.count)
        self.count += rows
        self._size += size + 1
        if self.count - self._starts[-1] >= _BATCH_ROWS or self._size >= _BATCH_SIZE:
            self._write()

    def _write(self) -> None:
        if self._made:
            columns = list(zip(*self._made, strict=True))
            keys = [0 if text is None else identity(self._source, text, 0) for text in columns[0]]
            arrays = [pa.array(values, kind) for values, kind in zip((keys, *columns), ROWS.types, strict=True)]
            self._out.write_batch(pa.RecordBatch.from_arrays(arrays, schema=ROWS))
        if self._waiting:
            self._out.write_batch(pa.Table.from_batches(self._waiting).combine_chunks().to_batches()[0])
        self._made, self._waiting, self._size = [], [], 0


class Kept:
    """The folder of one source: `files.json` names the files that were read last, `*.arrow` hold their rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place = folder / "files.json"
        self._open: dict[str, pa.ipc.RecordBatchFileReader] = {}
        self._last: tuple[str, int, pa.RecordBatch] = ("", 0, None)
        self.entries, self._sizes = self._load()
        self._by_content = {(entry.key, entry.digest): entry for entry in self.entries if not entry.passing}

    def find(self, key: str, digest: str) -> Entry | None:
        """What was read of a file with this content, if its rows are still there."""
        entry = self._by_content.get((key, digest))
        if entry is None or (entry.rows and self._reader(entry.pack) is None):
            return None
        return entry

    def batches(self, entry: Entry) -> Iterator[pa.RecordBatch]:
        """The rows of a file."""
        left, number, row = entry.rows, entry.batch, entry.row
        while left > 0:
            batch = self._batch(entry.pack, number).slice(row, left)
            yield batch
            left, number, row = left - batch.num_rows, number + 1, 0

    def save(self, entries: Sequence[Entry], pack: Pack) -> None:
        """Keep these and nothing else; many packs, or some with little that is still used, become one."""
        sizes = {**self._sizes, pack.name: pack.count}
        packs = {entry.pack for entry in entries if entry.rows}
        used = sum(entry.rows for entry in entries)
        if len(packs) > PACKS or sum(sizes.get(name, 0) for name in packs) > 2 * used + _BATCH_ROWS:
            entries, pack = self._repacked(entries)
            sizes, packs = {pack.name: pack.count}, {pack.name}
        self._sizes = {name: size for name, size in sizes.items() if name in packs}
        listing.replace(self._place, orjson.dumps({"packs": self._sizes, "files": entries}))
        self.entries = tuple(entries)
        for file in self.folder.glob("*.arrow"):
            if file.stem not in packs:
                file.unlink(missing_ok=True)

    def _repacked(self, entries: Sequence[Entry]) -> tuple[list[Entry], Pack]:
        moved: list[Entry] = []
        with closing(Pack(self.folder, "")) as pack:
            for entry in entries:
                began = pack.count
                for batch in self.batches(entry):
                    pack.add(batch)
                if entry.rows:
                    number, row = pack.place(began)
                    entry = replace(entry, pack=pack.name, batch=number, row=row)
                moved.append(entry)
        return moved, pack

    def _batch(self, pack: str, number: int) -> pa.RecordBatch:
        if self._last[:2] != (pack, number):
            reader = self._reader(pack)
            assert reader is not None
            self._last = (pack, number, reader.get_batch(number))
        return self._last[2]

    def _load(self) -> tuple[tuple[Entry, ...], dict[str, int]]:
        with suppress(OSError, ValueError, TypeError, KeyError):
            told = orjson.loads(self._place.read_bytes())
            return tuple(Entry(**entry) for entry in told["files"]), told["packs"]
        return (), {}

    def _reader(self, pack: str) -> pa.ipc.RecordBatchFileReader | None:
        if pack not in self._open:
            try:
                options = pa.ipc.IpcReadOptions(use_threads=False)
                file = pa.memory_map(str(self.folder / f"{pack}.arrow"))
                self._open[pack] = pa.ipc.open_file(file, options=options)
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
