"""Reading what the gateway has logged as it grows, without shipping it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria.traffic.segments import SUFFIX
from noria.traffic.ship import PARQUET, parsed
from noria.types import Feedback, Interaction

Record = Interaction | Feedback


class Follower:
    """Each call yields what is new since the last one: from the segments and, where these were shipped, from the lake.

    Every record comes exactly once. The order is that of the log within a segment; several workers have several.
    """

    def __init__(self, segments: Path, lake: Path, task: str, arms: Sequence[str], began: datetime) -> None:
        """`lake` is the folder of the Parquet files; wanted are these arms of the task, and all feedback."""
        self._segments = segments
        self._lake = lake
        self._task = task
        self._arms = arms
        self._began = began
        names = "|".join(map(re.escape, arms))
        # Nearly all of the traffic is other arms': what cannot be wanted is not parsed.
        self._likely = f'"kind": ?"feedback"|"arm": ?"({names})"'
        self._pattern = re.compile(self._likely.encode())
        self._ends: dict[str, int] = {}
        """By segment: up to which byte it was taken."""
        self._ids: dict[str, set[str]] = {}
        """By segment: what was taken from it before it was shipped."""

    def __call__(self) -> Iterator[Record]:
        """What is new."""
        # Segments first: what a shipper moves away in between is then in the lake when that is searched.
        for file in sorted(self._segments.glob(f"*{SUFFIX}")):
            yield from self._from_segment(file)
        for segment, end, parquet in self._shipped():
            if end > self._ends.get(segment, 0):
                yield from self._from_lake(segment, end, parquet)

    def _from_segment(self, file: Path) -> Iterator[Record]:
        segment = file.stem
        try:
            with file.open("rb") as lines:
                lines.seek(self._ends.get(segment, 0))
                for line in lines:
                    if not line.endswith(b"\n"):
                        return
                    self._ends[segment] = self._ends.get(segment, 0) + len(line)
                    record = self._wanted(line) if self._pattern.search(line) else None
                    if record is not None:
                        self._ids.setdefault(segment, set()).add(record.id)
                        yield record
        except FileNotFoundError:
            return

    def _shipped(self) -> list[tuple[str, int, Path]]:
        """Files of the lake that may hold wanted records, those of a segment in order: segment, end, path."""
        found = []
        for file in self._lake.glob(f"[!.]*{PARQUET}"):
            # A file is written after the last of its records was.
            if file.stat().st_mtime >= self._began.timestamp():
                segment, start, end = file.stem.rsplit("-", 2)
                found.append((segment, int(start), int(end), file))
        return [(segment, end, file) for segment, _, end, file in sorted(found)]

    def _from_lake(self, segment: str, end: int, file: Path) -> Iterator[Record]:
        table = pq.read_table(file, columns=["at", "record"])
        likely = pc.match_substring_regex(table["record"], self._likely)
        known = self._ids.get(segment, set())
        for text in table.filter(pc.and_(likely, pc.greater_equal(table["at"], self._began)))["record"].to_pylist():
            record = self._wanted(text.encode())
            if record is not None and record.id not in known:
                yield record
        self._ends[segment] = end

    def _wanted(self, line: bytes) -> Record | None:
        record = parsed(line)
        if record is None or record.at < self._began:
            return None
        mine = isinstance(record, Feedback) or (record.task == self._task and record.arm in self._arms)
        return record if mine else None
