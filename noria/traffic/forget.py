"""Taking a person's records out of the log: out of the lake's Parquet files, and out of segments that grow.

A Parquet file that loses rows is replaced by one whose name has one more zero before its start: the listing still says
what is shipped (`noria.traffic.ship`), and a mark of the log taken before does not fit any more. In a segment the line
is overwritten by blanks where it stands: its writer, which only appends, is not disturbed, and blank lines are none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria.traffic.segments import SUFFIX
from noria.traffic.ship import FOLDER, NOTHING, PARQUET, TORN, locked, parsed, place, ship
from noria.types import Feedback, Interaction

Kinds = tuple[type[Interaction] | type[Feedback], ...]


@dataclass(slots=True)
class Person:
    """What the log has of a person: ids of interactions and of feedback, names of conversations."""

    user: str
    """As the log has it: a keyed hash."""
    interactions: set[str] = field(default_factory=set)
    conversations: set[str] = field(default_factory=set)
    feedback: set[str] = field(default_factory=set)
    judged: set[str] = field(default_factory=set)
    """Ids of interactions of others of which this person said something."""
    judged_conversations: set[str] = field(default_factory=set)
    said_by_others: bool = False
    """Whether others said something of what is this person's."""

    def record(self, text: str) -> Interaction | Feedback | None:
        """A line of the log if it is this person's, or says something of what is."""
        if self.user not in text and "feedback" not in text:
            return None
        found = parsed(text.encode())
        return found if found is not None and self.mine(found) else None

    def mine(self, record: Interaction | Feedback) -> bool:
        """Whether a record is this person's, or says something of what is."""
        if isinstance(record, Feedback):
            return record.user == self.user or record.interaction in self.interactions
        return record.user == self.user

    def take(self, record: Interaction | Feedback) -> None:
        """Count a record that is this person's."""
        if isinstance(record, Feedback):
            self.feedback.add(record.id)
            self.said_by_others |= record.user != self.user
            if record.interaction not in self.interactions:
                self.judged.add(record.interaction)
        else:
            self.interactions.add(record.id)
            self.conversations.add(record.conversation)


def find(segments: Path, lake: Path, user: str) -> Person:
    """Everything that the log has of a user, shipped or not."""
    person = Person(user)
    ship(segments, lake)
    with locked(lake / FOLDER / ".lock"):
        # Feedback may come in another file, and sooner, than what it speaks of.
        for wanted in (Interaction, Feedback):
            for text in _records(segments, lake / FOLDER):
                record = person.record(text)
                if isinstance(record, wanted):
                    person.take(record)
        for text in _records(segments, lake / FOLDER) if person.judged else ():
            said = parsed(text.encode())
            if isinstance(said, Interaction) and said.id in person.judged:
                person.judged_conversations.add(said.conversation)
    return person


def forget(segments: Path, lake: Path, person: Person) -> None:
    """Remove what `find` has found, and what has come of this user since.

    A kill in between leaves some of it: run it again. What others said of an answer is found by that answer, so it
    goes first. A cycle must not run meanwhile.
    """
    with locked(lake / FOLDER / ".lock"):
        for kinds in ((Feedback,), (Feedback, Interaction)) if person.said_by_others else ((Feedback, Interaction),):
            for file in sorted((lake / FOLDER).glob(f"[!.]*{PARQUET}")):
                _out_of_parquet(file, person, kinds)
            for file in sorted(segments.glob(f"*{SUFFIX}")):
                _out_of_segment(file, person, kinds)
        for file in (lake / FOLDER / TORN).glob("[!.]*.bin"):
            if person.user.encode() in file.read_bytes():
                file.unlink()


def _records(segments: Path, folder: Path) -> Iterator[str]:
    for file in sorted(folder.glob(f"[!.]*{PARQUET}")):
        yield from pq.read_table(file, columns=["record"])["record"].to_pylist()
    for file in sorted(segments.glob(f"*{SUFFIX}")):
        yield from (line.decode(errors="replace") for line in file.read_bytes().splitlines())


def _out_of_parquet(file: Path, person: Person, kinds: Kinds) -> None:
    table = pq.read_table(file)
    mine = [isinstance(person.record(text), kinds) for text in table["record"].to_pylist()]
    if not any(mine):
        return
    segment, start, end = file.stem.rsplit("-", 2)
    fresh = file.with_name(f"{segment}-0{start}-{end}")
    kept = table.filter(pc.invert(pa.array(mine)))
    if kept.num_rows:
        # Renamed first: a kill in between leaves one file, which says what is shipped and still has the rows.
        target = file.rename(fresh.with_name(fresh.name + PARQUET))
        sink = pa.BufferOutputStream()
        pq.write_table(kept, sink, compression="zstd")
        place(target, sink.getvalue())
    else:
        place(fresh.with_name(fresh.name + NOTHING), b"")
        file.unlink()


def _out_of_segment(file: Path, person: Person, kinds: Kinds) -> None:
    """Blank this person's whole lines; the last line may still be on its way and is left."""
    fd = os.open(file, os.O_RDWR)
    try:
        at = 0
        for line in file.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n") and isinstance(person.record(line.decode(errors="replace")), kinds):
                os.pwrite(fd, b" " * (len(line) - 1), at)
            at += len(line)
        os.fsync(fd)
    finally:
        os.close(fd)
