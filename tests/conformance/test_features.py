"""What every feature store keeps: point-in-time rows for training, and the same rows online, on real servers."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.backends.fake_features import FakeFeatures
from noria.backends.feast_store import FeastStore
from noria.errors import Invalid, NotFound
from noria.ports import FeatureStore, FeatureView
from noria.types import digest_of

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LONG_AGO = START - 1000 * DAY


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real Redis server of this test run."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("Redis is not installed (apt-get install redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port, folder = probe.getsockname()[1], tmp_path_factory.mktemp("redis")
    line = [
        server,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(folder),
    ]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"redis://127.0.0.1:{port}/0"
        process.terminate()


REAL = [pytest.param(name, marks=pytest.mark.slow) for name in ("sqlite", "redis", "postgres")]


@pytest.fixture(params=["fake", *REAL])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeatureStore]:
    if request.param == "fake":
        yield FakeFeatures()
        return
    url = "sqlite:///online.db" if request.param == "sqlite" else request.getfixturevalue(request.param)
    with contextlib.closing(FeastStore(url, tmp_path, tmp_path / "state")) as opened:
        yield opened


@pytest.fixture
def view(tmp_path: Path) -> FeatureView:
    return view_in(tmp_path)


def view_in(folder: Path) -> FeatureView:
    project = f"help_{digest_of(str(folder))[:12]}"
    return FeatureView(
        project, "llm_training_features", "input_id",
        {"token_ids": "ints", "attention_mask": "ints", "meta": "text", "n_tokens": "int", "weights": "floats"},
        folder / "table", {"version": "1"},
    )  # fmt: skip


def rows(*given: tuple[str, list[int], datetime, datetime]) -> pa.Table:
    return pa.table(
        {
            "input_id": [row[0] for row in given],
            "token_ids": [row[1] for row in given],
            "attention_mask": [[1] * len(row[1]) for row in given],
            "meta": [f"of {row[0]}" for row in given],
            "n_tokens": [len(row[1]) for row in given],
            "weights": pa.array([[0.5]] * len(given), pa.list_(pa.float32())),
            "event_timestamp": [row[2] for row in given],
            "created": [row[3] for row in given],
        }
    )


def asked(*given: tuple[str, datetime]) -> pa.Table:
    return pa.table(
        {
            "input_id": pa.array([each[0] for each in given], pa.string()),
            "event_timestamp": pa.array([each[1] for each in given], pa.timestamp("us", "UTC")),
        }
    )


def test_history_is_what_was_known_at_the_time(store: FeatureStore, view: FeatureView) -> None:
    store.add(view, rows(("1", [1, 2], START, START), ("2", [3], START, START)), "a")
    store.add(view, rows(("1", [9, 9, 9], START + 2 * DAY, START + 2 * DAY)), "b")
    store.add(view, rows(("2", [4], START, START + DAY)), "c")
    store.add(view, rows(("2", [5], START + DAY, START + DAY)), "a")
    found = store.history(
        view,
        asked(("1", START + 3 * DAY), ("2", START), ("1", START + DAY), ("1", START - DAY), ("?", START), ("1", START)),
    )
    assert found["input_id"].to_pylist() == ["1", "2", "1", "1", "?", "1"]
    assert found["token_ids"].to_pylist() == [[9, 9, 9], [4], [1, 2], None, None, [1, 2]]
    assert found["n_tokens"].to_pylist() == [3, 1, 2, None, None, 2]
    assert found["event_timestamp"].to_pylist()[2] == START + DAY
    assert found.schema.field("token_ids").type == pa.list_(pa.int64())


def test_online_are_the_latest_rows(store: FeatureStore, view: FeatureView) -> None:
    store.add(view, rows(("1", [1, 2], START, START), ("2", [3], START, START)), "a")
    store.add(view, rows(("1", [9, 9, 9], START + 2 * DAY, START)), "b")
    assert store.materialize(view, LONG_AGO, START + DAY) == 2
    assert store.read(view, ["1"])["token_ids"].to_pylist() == [[1, 2]]
    assert store.materialize(view, LONG_AGO, START + 3 * DAY) == 2
    found = store.read(view, ["2", "none", "1"])
    assert found["token_ids"].to_pylist() == [[3], None, [9, 9, 9]]
    assert found["meta"].to_pylist() == ["of 2", None, "of 1"]
    assert found["weights"].to_pylist() == [[0.5], None, [0.5]]
    assert store.read(view, ["1"], ["n_tokens", "meta"]).to_pylist() == [
        {"input_id": "1", "n_tokens": 3, "meta": "of 1"}
    ]
    assert store.materialize(view, START + 5 * DAY, START + 6 * DAY) == 0


def test_offline_and_online_agree_value_by_value(store: FeatureStore, view: FeatureView) -> None:
    made = rows(*((str(n), list(range(n, 2 * n + 1)), START + n * DAY, START) for n in range(60)))
    store.add(view, made, "a")
    store.materialize(view, LONG_AGO, START + 100 * DAY)
    ids = [str(n) for n in range(60)]
    there = store.history(view, asked(*((each, START + 100 * DAY) for each in ids)))
    assert store.read(view, ids).to_pylist() == there.drop_columns(["event_timestamp"]).to_pylist()


def test_pushed_rows_serve_at_once(store: FeatureStore, view: FeatureView) -> None:
    store.push(view, rows(("123", [101, 2129, 2064], START, START), ("124", [101, 2023, 2003], START, START)))
    assert store.read(view, ["123", "124"])["token_ids"].to_pylist() == [[101, 2129, 2064], [101, 2023, 2003]]
    store.push(view, rows(("123", [7], START + DAY, START + DAY)))
    assert store.read(view, ["123"])["attention_mask"].to_pylist() == [[1]]


def test_removed_rows_are_gone_everywhere(store: FeatureStore, view: FeatureView) -> None:
    store.add(view, rows(("1", [1], START, START), ("1", [2], START + DAY, START), ("2", [3], START, START)), "a")
    store.materialize(view, LONG_AGO, START + 2 * DAY)
    assert store.remove(view, ["1", "nobody"], START + 3 * DAY) == 2
    assert store.read(view, ["1", "2"])["token_ids"].to_pylist() == [None, [3]]
    assert store.history(view, asked(("1", START + 9 * DAY)))["token_ids"].to_pylist() == [None]
    store.materialize(view, LONG_AGO, START + 9 * DAY)
    assert store.read(view, ["1"])["token_ids"].to_pylist() == [None]


def test_versions_do_not_meet(store: FeatureStore, view: FeatureView, tmp_path: Path) -> None:
    other = view_in(tmp_path / "other")
    store.push(view, rows(("1", [1], START, START)))
    store.push(other, rows(("1", [2], START, START)))
    assert store.read(view, ["1"])["token_ids"].to_pylist() == [[1]]
    assert store.read(other, ["1"])["token_ids"].to_pylist() == [[2]]


def test_what_is_not_there_or_does_not_fit_is_refused(store: FeatureStore, view: FeatureView) -> None:
    with pytest.raises(NotFound, match="no history"):
        store.history(view, asked(("1", START)))
    with pytest.raises(NotFound, match="no history"):
        store.materialize(view, LONG_AGO, START)
    with pytest.raises(Invalid, match="no column 'meta'"):
        store.push(view, rows(("1", [1], START, START)).drop_columns(["meta"]))
    with pytest.raises(Invalid, match="other types"):
        store.push(view, rows(("1", [1], START, START)).set_column(4, "n_tokens", pa.array(["many"])))


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=30),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-1, 10)), min_size=1, max_size=20),
)
def test_feast_joins_as_brute_force_does(
    tmp_path_factory: pytest.TempPathFactory, had: list[tuple[str, int, int]], wanted: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("joined")
    view, feast, brute = view_in(folder), FeastStore("sqlite:///o.db", folder, folder / "state"), FakeFeatures()
    # Two rows with the same event and the same creation have no order.
    unique = {(key, day, made): n for n, (key, day, made) in enumerate(had)}
    table = rows(*((key, [n], START + day * DAY, START + made * DAY) for (key, day, made), n in unique.items()))
    asking = asked(*((key, START + day * DAY) for key, day in wanted))
    for store in (feast, brute):
        store.add(view, table, "a")
    assert feast.history(view, asking).to_pylist() == brute.history(view, asking).to_pylist()
