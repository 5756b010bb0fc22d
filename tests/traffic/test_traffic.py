"""The traffic log: what was appended arrives in the lake once, whatever happens on the way."""

from __future__ import annotations

import errno
import random
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import traffic_records
from traffic_records import feedback, interaction

from noria.errors import Invalid, NotFound
from noria.traffic.log import TrafficLog
from noria.traffic.segments import SegmentWriter
from noria.traffic.ship import Shipment, ship
from noria.types import Interaction


def append(writer: SegmentWriter, *records: Interaction) -> None:
    for record in records:
        writer.append(record.model_dump_json().encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "segments"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def test_records_come_back_in_order_of_time_and_a_mark_holds_still(folder: Path, lake: Path) -> None:
    log = TrafficLog(folder, lake)
    assert log.mark() == []
    late, early, after = interaction(9), interaction(1), interaction(5)
    with SegmentWriter(folder) as writer:
        append(writer, late, early)
        writer.append(feedback(early).model_dump_json().encode())
        mark = log.mark()
        append(writer, after)
        assert log.ship() == 1
        assert log.ship() == 0
    assert log.read(mark) == ([early, late], [feedback(early).model_copy(update={"id": log.read(mark)[1][0].id})])
    assert log.mark() != mark
    assert log.read(log.mark())[0] == [early, after, late]


def test_parquet_has_the_promised_columns(folder: Path, lake: Path) -> None:
    with SegmentWriter(folder) as writer:
        append(writer, one := interaction(3))
        writer.append(feedback(one).model_dump_json().encode())
    ship(folder, lake)
    (file,) = (lake / "traffic").glob("*.parquet")
    rows = pq.read_table(file).to_pylist()
    assert [(row["kind"], row["task"], row["at"]) for row in rows] == [
        ("interaction", "helpdesk", one.at),
        ("feedback", None, one.at),
    ]
    assert rows[0]["record"] == one.model_dump_json()


def test_an_interaction_is_found_wherever_it_is(folder: Path, lake: Path) -> None:
    log = TrafficLog(folder, lake)
    with SegmentWriter(folder) as writer:
        append(writer, one := interaction(1))
        writer.append(feedback(one).model_dump_json().encode())
        assert log.interaction(one.id) == one
        log.ship()
        append(writer, two := interaction(2))
        assert log.interaction(one.id) == one
    log.ship()
    assert list(folder.iterdir()) == []
    assert log.interaction(one.id) == one
    assert log.interaction(two.id) == two
    assert log.interaction(interaction(3).id) is None


def test_a_living_writers_segment_stays_and_a_dead_ones_goes(folder: Path, lake: Path) -> None:
    writer = SegmentWriter(folder)
    append(writer, interaction(1))
    ship(folder, lake)
    assert len(list(folder.iterdir())) == 1
    writer.close()
    writer.close()
    ship(folder, lake)
    assert list(folder.iterdir()) == []


def test_every_writer_has_its_own_segment_and_full_ones_are_sealed(folder: Path, lake: Path) -> None:
    with SegmentWriter(folder, segment_bytes=2_000) as one, SegmentWriter(folder) as two:
        append(one, *map(interaction, range(10)))
        append(two, interaction(11))
        assert len(list(folder.iterdir())) >= 3
        assert ship(folder, lake).records == 11


def test_the_unfinished_line_of_a_living_writer_waits(folder: Path, lake: Path) -> None:
    with SegmentWriter(folder) as writer:
        append(writer, interaction(1))
        (segment,) = folder.iterdir()
        line = interaction(2).model_dump_json().encode()
        with segment.open("ab") as behind:
            behind.write(line[:40])
            behind.flush()
            assert ship(folder, lake) == Shipment(1, 0)
            behind.write(line[40:] + b"\n")
        assert ship(folder, lake) == Shipment(1, 0)


def test_torn_lines_are_kept_and_never_fatal(folder: Path, lake: Path) -> None:
    folder.mkdir()
    good = interaction(1).model_dump_json().encode()
    torn = [b'{"kind":"interaction","id":"x"', b"\xff\xfe\r\xff", b'{"kind": "other"}']
    (folder / "0001-ab.jsonl").write_bytes(b"\n".join([torn[0], good, torn[1], b"", torn[2], good[:99]]))
    (folder / "0002-ab.jsonl").write_bytes(good[:50])
    assert ship(folder, lake) == Shipment(1, 5)
    assert ship(folder, lake) == Shipment(0, 0)
    kept = sorted(file.read_bytes().rstrip(b"\n") for file in (lake / "traffic" / "torn").iterdir())
    assert kept == sorted([*torn, good[:99], good[:50]])
    assert list(folder.iterdir()) == []
    assert len(TrafficLog(folder, lake).read(TrafficLog(folder, lake).mark())[0]) == 1


def test_a_write_cut_short_by_a_full_disk_does_not_spoil_the_next(folder: Path, lake: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with SegmentWriter(folder) as writer:
        append(writer, one := interaction(1))
        (segment,) = folder.iterdir()
        resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size + 30, hard))
        try:
            with pytest.raises(OSError, match="30 of"):
                append(writer, interaction(2))
            with pytest.raises(OSError, match="File too large"):
                append(writer, interaction(3))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        append(writer, four := interaction(4))
    assert ship(folder, lake) == Shipment(2, 1)
    log = TrafficLog(folder, lake)
    assert log.read(log.mark())[0] == [one, four]


def test_a_failed_sync_is_told_to_the_next_caller(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()

    def broken(fd: int) -> None:
        told.set()
        raise OSError(errno.EIO, "Input/output error")

    with SegmentWriter(folder) as writer:
        monkeypatch.setattr("noria.traffic.segments.os.fsync", broken)
        append(writer, interaction(1))
        assert told.wait(10)
        time.sleep(0.1)
        monkeypatch.undo()
        with pytest.raises(OSError, match="Input/output error"):
            append(writer, interaction(2))
        append(writer, interaction(2))


def test_records_of_several_lines_and_closed_writers_are_refused(folder: Path) -> None:
    with SegmentWriter(folder) as writer, pytest.raises(ValueError, match="one line"):
        writer.append(b"{\n}")
    with pytest.raises(ValueError, match="closed"):
        writer.append(b"{}")


def test_threads_may_share_a_writer_and_shippers_may_meet(folder: Path, lake: Path) -> None:
    with SegmentWriter(folder, segment_bytes=5_000) as writer:
        writers = [
            threading.Thread(target=append, args=(writer, *map(interaction, range(at * 50, at * 50 + 50))))
            for at in range(4)
        ]
        shippers = [threading.Thread(target=lambda: [ship(folder, lake) for _ in range(3)]) for _ in range(3)]
        for thread in [*writers, *shippers]:
            thread.start()
        for thread in [*writers, *shippers]:
            thread.join()
    log = TrafficLog(folder, lake)
    found, _ = log.read(log.mark())
    assert [each.conversation for each in found] == [str(number) for number in range(200)]


def test_a_mark_must_be_one(folder: Path, lake: Path) -> None:
    log = TrafficLog(folder, lake)
    for wrong in ("a", ["../x.parquet"], ["x.txt"]):
        with pytest.raises(Invalid):
            log.read(wrong)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        log.read(["0001-ab-0-9.parquet"])


@pytest.mark.slow
def test_kills_while_writing_and_shipping_neither_lose_nor_double(folder: Path, lake: Path) -> None:
    """Rounds of a writer and a shipper that are killed at random moments; then all that was confirmed is there once."""
    chance = random.Random(7)
    (lake / "traffic").mkdir(parents=True)
    command = [sys.executable, traffic_records.__file__]
    confirmed = 0
    for _ in range(6):
        with (
            subprocess.Popen([*command, "write", folder], stdout=subprocess.PIPE) as writer,
            subprocess.Popen([*command, "ship", folder, lake], stdout=subprocess.PIPE) as shipper,
        ):
            assert writer.stdout is not None
            assert shipper.stdout is not None
            confirmed += writer.stdout.readline().count(b"\n")
            shipper.stdout.readline()
            time.sleep(chance.random() * 0.4)
            shipper.kill()
            time.sleep(chance.random() * 0.1)
            writer.kill()
            confirmed += writer.stdout.read().count(b"\n")
    shipped = ship(folder, lake)
    log = TrafficLog(folder, lake)
    found, _ = log.read(log.mark())
    ids = [each.id for each in found]
    assert len(ids) == len(set(ids))
    # A record may be safe without its writer having lived to say so: one per round at most.
    assert confirmed <= len(ids) <= confirmed + 6
    assert confirmed > 100
    assert shipped.torn <= 6
    assert list(folder.iterdir()) == []
