"""Reading what the gateway has logged as it grows, without shipping it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria.traffic.segments import SUFFIX
from noria.traffic.ship import PARQUET, parsed
from noria.types import Feedback, Interaction

Record = Interaction | Feedback


@dataclass(frozen=True, slots=True)
class _Taken:
    """Up to which byte a segment was taken; of that, `records` good ones from byte `base` on."""

    end: int = 0
    base: int = 0
    records: int = 0


class Follower:
    """Each call yields what is new since the last one: from the segments and, where these were shipped, from the lake.

    Every record comes exactly once, those of one segment in the order in which they were written.
    """

    def __init__(self, segments: Path, lake: Path, task: str, began: datetime) -> None:
        """`lake` is the folder of the Parquet files; yields interactions of `task` and all feedback since `began`."""
        self._segments = segments
        self._lake = lake
        self._task = task
        self._began = began
        self._taken: dict[str, _Taken] = {}

    def __call__(self) -> Iterator[Record]:
        """What is new."""
        # Segments first: what a shipper moves away in between is then in the lake when that is searched.
        for file in sorted(self._segments.glob(f"*{SUFFIX}")):
            yield from self._from_segment(file)
        for segment, start, end, parquet in self._shipped():
            if end > self._taken.get(segment, _Taken()).end:
                yield from self._from_lake(segment, start, end, parquet)

    def _from_segment(self, path: Path) -> Iterator[Record]:
        taken = self._taken.get(path.stem, _Taken())
        try:
            with path.open("rb") as file:
                file.seek(taken.end)
                data = file.read()
        except FileNotFoundError:
            return
        end, records = taken.end, taken.records
        for line in io.BytesIO(data[: data.rfind(b"\n") + 1]):
            end += len(line)
            record = parsed(line)
            records += record is not None
            self._taken[path.stem] = _Taken(end, taken.base, records)
            if record is not None and self._wanted(record):
                yield record

    def _shipped(self) -> list[tuple[str, int, int, Path]]:
        """Files of the lake that may hold wanted records, those of a segment in order: segment, start, end, path."""
        found = []
        for file in self._lake.glob(f"[!.]*{PARQUET}"):
            segment, start, end = file.stem.rsplit("-", 2)
            # A file is written after the last of its records was.
            if file.stat().st_mtime >= self._began.timestamp():
                found.append((segment, int(start), int(end), file))
        return sorted(found)

    def _from_lake(self, segment: str, start: int, end: int, file: Path) -> Iterator[Record]:
        table = pq.read_table(file, columns=["kind", "task", "at", "record"])
        rest = table.slice(self._known(segment, start))
        self._taken[segment] = _Taken(end, end)
        since = pc.greater_equal(rest["at"], self._began)
        mine = pc.or_kleene(pc.equal(rest["kind"], "feedback"), pc.equal(rest["task"], self._task))
        for text in rest.filter(pc.and_kleene(since, mine))["record"].to_pylist():
            record = parsed(text.encode())
            if record is not None:
                yield record

    def _known(self, segment: str, start: int) -> int:
        """How many records of the lake's file that begins at this byte were taken from the segment before."""
        taken = self._taken.get(segment, _Taken())
        if start >= taken.end:
            return 0
        files = [(int(file.stem.rsplit("-", 2)[1]), file) for file in self._lake.glob(f"{segment}-*{PARQUET}")]
        before = sum(int(pq.read_metadata(file).num_rows) for begin, file in files if taken.base <= begin < start)
        return taken.records - before

    def _wanted(self, record: Record) -> bool:
        return record.at >= self._began and (isinstance(record, Feedback) or record.task == self._task)
