"""Following the traffic log: every record once, in order, whoever ships it away meanwhile."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
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
    st_seed=st.integers(),
)
def test_every_record_comes_once_and_those_of_a_segment_in_order(steps: list[str], st_seed: int) -> None:
    choose, written, found = random.Random(st_seed), list[Record](), list[Record]()
    with tempfile.TemporaryDirectory() as folder:
        segments, lake = Path(folder) / "segments", Path(folder) / "lake"
        log = TrafficLog(segments, lake)
        look = log.follow("helpdesk", BEGAN)
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
            elif step == "torn":
                writer.append(b'{"kind": "interaction", "id"')
            elif step == "ship":
                log.ship()
            elif step == "look":
                found += look()
                assert found == written
            else:
                writer.close()
                writer = SegmentWriter(segments)
        writer.close()
        assert Counter(each.id for each in TrafficLog(segments, lake).follow("helpdesk", BEGAN)()) == Counter(
            each.id for each in written
        )


def test_a_follower_that_begins_later_reads_only_files_of_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = TrafficLog(tmp_path / "segments", tmp_path / "lake")
    with SegmentWriter(tmp_path / "segments") as writer:
        writer.append(interaction(BEFORE).model_dump_json().encode())
        log.ship()
        (old,) = (tmp_path / "lake" / "traffic").glob("*.parquet")
        os.utime(old, (START.timestamp(), START.timestamp()))
        writer.append((new := interaction(AFTER)).model_dump_json().encode())
        log.ship()
    log.ship()
    assert list((tmp_path / "segments").iterdir()) == []
    opened: list[str] = []
    really = pq.read_table
    monkeypatch.setattr(pq, "read_table", lambda file, **more: (opened.append(file.name), really(file, **more))[1])
    assert list(log.follow("helpdesk", BEGAN)()) == [new]
    assert old.name not in opened
