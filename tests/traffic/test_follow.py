"""Following the traffic log: every record once, whoever ships it away meanwhile."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from traffic_records import START, feedback, interaction

from noria.traffic.follow import Record
from noria.traffic.log import TrafficLog
from noria.traffic.segments import SegmentWriter

BEFORE, AFTER = 0, 1_000_000
"""Numbers of records a long time before and after the beginning of what is followed."""
BEGAN = interaction(500_000).at


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["write", "old", "torn", "ship", "look", "rotate"]), max_size=40),
    seed=st.integers(),
)
def test_every_record_comes_once_whoever_ships_it(steps: list[str], seed: int) -> None:
    choose, written, found = random.Random(seed), list[Record](), list[Record]()
    arms = ("champion", "control")
    with tempfile.TemporaryDirectory() as folder:
        segments, lake = Path(folder) / "segments", Path(folder) / "lake"
        log = TrafficLog(segments, lake)
        look = log.follow("helpdesk", arms, BEGAN)
        writer = SegmentWriter(segments)
        for number, step in enumerate([*steps, "look"]):
            if step == "write":
                one = interaction(AFTER + number)
                record: Record = feedback(one) if choose.random() < 0.4 else one
                writer.append(record.model_dump_json().encode())
                written.append(record)
            elif step == "old":
                writer.append(interaction(BEFORE + number).model_dump_json().encode())
                writer.append(interaction(AFTER, task="other").model_dump_json().encode())
                writer.append(interaction(AFTER, arm="challenger").model_dump_json().encode())
            elif step == "torn":
                writer.append(b'{"kind": "interaction", "id"')
            elif step == "ship":
                log.ship()
            elif step == "look":
                found += look()
                assert sorted(found, key=_id) == sorted(written, key=_id)
            else:
                writer.close()
                writer = SegmentWriter(segments)
        writer.close()
        again = list(TrafficLog(segments, lake).follow("helpdesk", arms, BEGAN)())
        assert sorted(again, key=_id) == sorted(written, key=_id)


def _id(record: Record) -> str:
    return record.id


def test_a_follower_that_begins_later_reads_only_files_of_its_time(tmp_path: Path) -> None:
    log = TrafficLog(tmp_path / "segments", tmp_path / "lake")
    with SegmentWriter(tmp_path / "segments") as writer:
        writer.append(interaction(BEFORE).model_dump_json().encode())
        log.ship()
        (old,) = (tmp_path / "lake" / "traffic").glob("*.parquet")
        writer.append((new := interaction(AFTER)).model_dump_json().encode())
        log.ship()
    log.ship()
    assert list((tmp_path / "segments").iterdir()) == []
    old.write_bytes(b"whoever opens this fails")
    os.utime(old, (START.timestamp(), START.timestamp()))
    assert list(log.follow("helpdesk", ("champion",), BEGAN)()) == [new]
