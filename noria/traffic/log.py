"""What production said, as one log: the port `Traffic` over segments and the lake."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pydantic import JsonValue, ValidationError

from noria.errors import Invalid, NotFound
from noria.traffic.segments import SUFFIX
from noria.traffic.ship import FOLDER, PARQUET, ship
from noria.types import Feedback, Interaction


class TrafficLog:
    """Interactions and feedback; the port `Traffic`.

    `segments` is where gateways of this machine write, `lake` the local folder whose subfolder `traffic` holds the
    Parquet files.
    """

    def __init__(self, segments: Path, lake: Path) -> None:
        self._segments = segments
        self._lake = lake
        self._folder = lake / FOLDER

    def ship(self) -> int:
        """Move what the gateway has logged into the lake, exactly once; returns the number of records."""
        return ship(self._segments, self._lake).records

    def mark(self) -> JsonValue:
        """The names of the Parquet files, in order, after everything logged until now was shipped."""
        self.ship()
        return [*self._files()]

    def read(self, mark: JsonValue) -> tuple[list[Interaction], list[Feedback]]:
        """Everything that was there at `mark`, in order of time, then of id.

        Raises Invalid for a value that `mark` did not return and NotFound where one of its files is gone.
        """
        interactions: list[Interaction] = []
        feedback: list[Feedback] = []
        for name in _names(mark):
            for kind, record in self._records(name):
                if kind == "interaction":
                    interactions.append(Interaction.model_validate_json(record))
                else:
                    feedback.append(Feedback.model_validate_json(record))
        interactions.sort(key=lambda found: (found.at, found.id))
        feedback.sort(key=lambda found: (found.at, found.id))
        return interactions, feedback

    def interaction(self, identity: str) -> Interaction | None:
        """One interaction by its id, shipped or not."""
        # Segments first: what a shipper moves away in between is then in the lake when that is searched.
        return self._in_segments(identity) or self._in_lake(identity)

    def _files(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob(f"[!.]*{PARQUET}"))

    def _records(self, name: str) -> list[tuple[str, str]]:
        try:
            table = pq.read_table(self._folder / name, columns=["kind", "record"])
        except FileNotFoundError as error:
            raise NotFound(
                f"the traffic file '{name}' is no longer in the lake", "run the cycle again: it takes a new mark"
            ) from error
        return list(zip(table["kind"].to_pylist(), table["record"].to_pylist(), strict=True))

    def _in_segments(self, identity: str) -> Interaction | None:
        wanted = identity.encode()
        for path in sorted(self._segments.glob(f"*{SUFFIX}"), reverse=True):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            if wanted not in data:
                continue
            for line in data.splitlines():
                if wanted in line and (found := _interaction(line)) and found.id == identity:
                    return found
        return None

    def _in_lake(self, identity: str) -> Interaction | None:
        files = [str(self._folder / name) for name in self._files()]
        if not files:
            return None
        # Ids grow with time, so the statistics of nearly every file rule it out unread.
        wanted = (ds.field("id") == identity) & (ds.field("kind") == "interaction")
        rows = ds.dataset(files, format="parquet").to_table(columns=["record"], filter=wanted)
        return Interaction.model_validate_json(rows["record"][0].as_py()) if rows.num_rows else None


def _interaction(line: bytes) -> Interaction | None:
    try:
        return Interaction.model_validate_json(line)
    except ValidationError:
        return None


def _names(mark: JsonValue) -> list[str]:
    if not isinstance(mark, list):
        raise Invalid("a mark of the traffic log is a list of file names", "pass what mark() returned")
    names = [str(name) for name in mark]
    for name in names:
        if "/" in name or not name.endswith(PARQUET):
            raise Invalid(f"'{name}' is not a file of the traffic log", "pass what mark() returned")
    return names
