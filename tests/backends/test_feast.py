"""Feast as noria uses it: which online store, what is said of one that does not answer, and silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from noria.backends.feast_store import FeastStore, online_store
from noria.errors import Invalid, Unavailable
from noria.ports import FeatureView

SCRIPT = """
import sys
from datetime import UTC, datetime
from pathlib import Path
import pyarrow as pa
from noria.backends.feast_store import FeastStore
from noria.ports import FeatureView
folder = Path(sys.argv[1])
view = FeatureView("p", "v", "input_id", {"token_ids": "ints"}, folder / "t", {})
at = datetime(2026, 1, 1, tzinfo=UTC)
store = FeastStore("sqlite:///online.db", folder, folder / "state")
store.add(view, pa.table({"input_id": ["1"], "token_ids": [[1]], "event_timestamp": [at], "created": [at]}), "a")
print(store.history(view, pa.table({"input_id": ["1"], "event_timestamp": [at]}))["token_ids"].to_pylist())
print(store.materialize(view, at, at))
"""


def test_the_url_says_which_store(tmp_path: Path) -> None:
    assert online_store("sqlite:///a/b.db", tmp_path) == {"type": "sqlite", "path": str(tmp_path / "a/b.db")}
    assert online_store("redis://:p%40w@cache:6380/2", tmp_path)["connection_string"] == "cache:6380,password=p@w,db=2"
    assert online_store("rediss://cache", tmp_path)["connection_string"] == "cache:6379,ssl=true"
    assert online_store("postgresql+psycopg://me:secret@db/shop", tmp_path) == {
        "type": "postgres", "host": "db", "port": 5432, "database": "shop", "user": "me", "password": "secret",
        "sslmode": "prefer",
    }  # fmt: skip


@pytest.mark.parametrize("url", ["", "mysql://me:secret@db/x", "redis://", "postgresql://host", "sqlite:///"])
def test_other_urls_are_refused_without_their_secrets(url: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no online store") as caught:
        online_store(url, tmp_path)
    assert "secret" not in caught.value.fact


def test_a_password_that_feast_would_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="comma"):
        online_store("redis://:a%2Cb@cache", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "postgresql+psycopg://me:hunter2@127.0.0.1:1/db", "sqlite:///no/such/folder/x.db"]
)
def test_a_store_that_does_not_answer_is_told(url: str, tmp_path: Path) -> None:
    (tmp_path / "no").touch()
    view = FeatureView("p", "v", "input_id", {"token_ids": "ints"}, tmp_path / "t", {})
    with pytest.raises(Unavailable, match="does not answer") as caught:
        FeastStore(url, tmp_path, tmp_path / "state").read(view, ["1"])
    assert "hunter2" not in caught.value.fact


@pytest.mark.slow
def test_feast_says_nothing_of_itself(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[[1]]\n1\n", "")
