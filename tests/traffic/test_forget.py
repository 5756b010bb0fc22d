"""A person's records leave the log, shipped or not, while the gateway goes on writing."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from traffic_records import feedback, interaction

from noria.errors import NotFound
from noria.traffic.forget import find, forget
from noria.traffic.log import TrafficLog
from noria.traffic.segments import SegmentWriter
from noria.types import Feedback, Interaction

PERSON = "a" * 16


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "segments", tmp_path / "lake"


def line(record: Interaction | Feedback) -> bytes:
    return record.model_dump_json().encode()


def everything(places: tuple[Path, Path]) -> bytes:
    return b"".join(
        path.read_bytes() if path.suffix != ".parquet" else "".join(pq.read_table(path)["record"].to_pylist()).encode()
        for folder in places
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )


def test_only_the_person_is_forgotten_and_the_writer_goes_on(places: tuple[Path, Path]) -> None:
    log = TrafficLog(*places)
    mine = [interaction(n, user=PERSON, conversation=f"m{n}") for n in range(4)]
    others = [interaction(n) for n in range(10, 14)]
    said_of_mine = feedback(mine[0]).model_copy(update={"user": "b" * 16})
    with SegmentWriter(places[0]) as writer:
        for each in (*map(line, (*mine[:2], *others[:2])), line(said_of_mine), line(feedback(others[0]))):
            writer.append(each)
        before = log.mark()
        for record in (mine[2], others[2]):
            writer.append(line(record))
        person = find(*places, PERSON)
        assert person.interactions == {each.id for each in mine[:3]}
        assert person.conversations == {"m0", "m1", "m2"}
        assert person.feedback == {said_of_mine.id}
        writer.append(line(mine[3]))
        forget(*places, person)
        writer.append(line(others[3]))
        after = log.mark()
    assert after != before
    interactions, notes = log.read(log.mark())
    assert [each.id for each in interactions] == [each.id for each in others]
    assert [each.interaction for each in notes] == [others[0].id]
    assert log.interaction(mine[3].id) is None
    assert PERSON.encode() not in everything(places)
    with pytest.raises(NotFound, match="is no longer in the lake"):
        log.read(before)


def test_forgetting_twice_and_everything_keeps_what_is_shipped(places: tuple[Path, Path]) -> None:
    log = TrafficLog(*places)
    with SegmentWriter(places[0]) as writer:
        writer.append(line(interaction(1, user=PERSON)))
    for _ in range(2):
        forget(*places, find(*places, PERSON))
    assert log.read(log.mark()) == ([], [])
    assert find(*places, PERSON).interactions == set()
    with SegmentWriter(places[0]) as writer:
        writer.append(line(interaction(2)))
        assert log.ship() == 1
        assert log.ship() == 0


def test_what_the_person_said_of_others_is_found_by_their_conversations(places: tuple[Path, Path]) -> None:
    mine, judged, other = interaction(1, user=PERSON), interaction(2), interaction(3)
    said = [feedback(each).model_copy(update={"user": PERSON}) for each in (mine, judged)]
    with SegmentWriter(places[0]) as writer:
        # Feedback may stand before what it speaks of.
        for each in (*map(line, (*said, feedback(other))), *map(line, (mine, judged, other))):
            writer.append(each)
        person = find(*places, PERSON)
        assert person.conversations == {mine.conversation}
        assert person.judged_conversations == {judged.conversation}
        forget(*places, person)
    log = TrafficLog(*places)
    assert [each.id for each in log.read(log.mark())[0]] == [judged.id, other.id]


def test_torn_lines_of_the_person_go_too(places: tuple[Path, Path]) -> None:
    with SegmentWriter(places[0]) as writer:
        writer.append(line(interaction(1, user=PERSON)) + b" broken")
    forget(*places, find(*places, PERSON))
    assert PERSON.encode() not in everything(places)
