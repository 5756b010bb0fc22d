"""Object stores: through fsspec's memory, and through servers that speak the protocols of S3 and Azure."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from small_project import Project

from noria.errors import Invalid, NotFound, Unavailable
from noria.lake import objects
from noria.lake.listing import File

CSV = b"q,a\nWhy?,So.\n"


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    store = fsspec.filesystem("memory")
    store.pipe({"/shop/a.csv": CSV, "/shop/deep/b.csv": b"q,a\nWho?,I.\n", "/shop/c.txt": b"no"})
    yield store
    store.rm("/shop", recursive=True)


def test_files_of_a_store_are_read_and_only_new_ones_fetched(
    tmp_path: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path, 'kind = "csv"\npath = "memory://shop/**/*.csv"')
    rows = project.run()["documents"]
    assert {(row["file"], row["text"]) for row in rows} == {
        ("memory://shop/a.csv", "q: Why?\na: So."),
        ("memory://shop/deep/b.csv", "q: Who?\na: I."),
    }
    assert not (tmp_path / ".noria/read/data/fetched").exists()
    monkeypatch.setattr("noria.lake.listing.RACE", 0.0)
    project.observed()
    fetched: list[str] = []
    left: list[bool] = []
    fetch = objects.Store.fetch

    def told(self: objects.Store, file: File, place: Path) -> str:
        fetched.append(file.name)
        left.append(any(place.parent.glob("*")))
        return fetch(self, file, place)

    monkeypatch.setattr(objects.Store, "fetch", told)
    monkeypatch.setattr("noria.lake.read._GROUP", 1)
    memory.pipe("/shop/a.csv", b"q,a\nWhy?,Then.\n")
    memory.pipe("/shop/d.csv", b"q,a\nHow?,So.\n")
    memory.rm("/shop/deep/b.csv")
    assert {row["text"] for row in project.run()["documents"]} == {"q: Why?\na: Then.", "q: How?\na: So."}
    assert fetched == ["memory://shop/a.csv", "memory://shop/d.csv"]
    assert left == [False, False]
    assert project.told["files"] == {"new": 1, "changed": 1, "unchanged": 0, "deleted": 1}


def test_looking_at_a_store_leaves_nothing_of_it_on_this_machine(
    tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    project = Project(tmp_path, 'kind = "csv"\npath = "memory://shop/**/*.csv"')
    kept = tmp_path / ".noria/read/data"
    (kept / "fetched").mkdir(parents=True)
    (kept / "fetched" / "new").write_bytes(CSV)
    project.observed()
    (kept / "digests.json").unlink(missing_ok=True)
    project.observed()
    assert [file.name for file in kept.rglob("*") if file.read_bytes() == CSV or file.parent != kept] == []


def test_what_is_too_large_is_not_fetched(tmp_path: Path, memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("/shop/z.csv", CSV * 1000)
    tables = Project(tmp_path, 'kind = "csv"\npath = "memory://shop/*.csv"\nlimits = { file_mb = 0.01 }').run()
    assert [row["file"] for row in tables["documents"]] == ["memory://shop/a.csv"]
    assert [(row["file"], row["reason"]) for row in tables["quarantine"]] == [
        ("memory://shop/z.csv", "it has 0.0 MiB, more than file_mb = 0.01")
    ]


def test_a_store_without_a_match_or_of_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no file matches 'memory://none") as caught:
        Project(tmp_path, 'kind = "csv"\npath = "memory://none/*.csv"').run()
    assert caught.value.where == "noria.toml:14"
    with pytest.raises(Invalid, match="'nonesuch://' is no known kind of store"):
        Project(tmp_path, 'kind = "csv"\npath = "nonesuch://x/*.csv"').run()


def test_a_driver_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, path, extra in (("s3fs", "s3://x/*.csv", "s3"), ("adlfs", "abfs://x/*.csv", "azure")):
        monkeypatch.setitem(sys.modules, module, None)
        # A test before this one may have used the driver.
        monkeypatch.delitem(vars(sys.modules["fsspec.registry"])["_registry"], path.partition(":")[0], raising=False)
        with pytest.raises(Unavailable) as caught:
            Project(tmp_path, f'kind = "csv"\npath = "{path}"').run()
        assert caught.value.hint == f"pip install 'noria[{extra}]'"


def test_a_file_address_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    (row,) = Project(tmp_path, f'kind = "csv"\npath = "file://{tmp_path}/*.csv"').run()["documents"]
    assert row["file"] == "a.csv"


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Connection string, also in the environment, of Azurite, the emulator of Azure's blobs."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("Azurite is not installed (npm install -g azurite)")
    key = base64.b64encode(os.urandom(64)).decode()
    monkeypatch.setenv("AZURITE_ACCOUNTS", f"shop:{key}")
    command = [program, "--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    try:
        url = next(line.split()[-1] for line in server.stdout if "successfully listen" in line)
        account = f"DefaultEndpointsProtocol=http;AccountName=shop;AccountKey={key}"
        connection = f"{account};BlobEndpoint={url}/shop;"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
        yield connection
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()


@pytest.mark.slow
def test_azure_by_its_protocol(tmp_path: Path, azure: str) -> None:
    check(tmp_path, fsspec.filesystem("abfs", connection_string=azure), "abfs", "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_s3_by_its_protocol(tmp_path: Path, s3: str) -> None:
    storage = f'storage = {{ endpoint_url = "{s3}" }}'
    check(tmp_path, fsspec.filesystem("s3", endpoint_url=s3), "s3", storage)


def check(folder: Path, store: fsspec.AbstractFileSystem, protocol: str, storage: str) -> None:
    """Files are read once, again when they change, and a bucket that is not there is told."""
    store.mkdir("shop")
    store.pipe({"shop/a.csv": CSV, "shop/b.csv": b"q,a\nWho?,I.\n"})
    project = Project(folder, f'kind = "csv"\npath = "{protocol}://shop/*.csv"\n{storage}')
    rows = project.run()["documents"]
    assert {row["file"] for row in rows} == {f"{protocol}://shop/a.csv", f"{protocol}://shop/b.csv"}
    before = project.observed()
    store.pipe("shop/b.csv", b"q,a\nWho?,You.\n")
    assert project.observed() != before
    project.run()
    assert project.told["files"] == {"new": 0, "changed": 1, "unchanged": 1, "deleted": 0}
    with pytest.raises((NotFound, Unavailable, Invalid), match="none-such"):
        Project(folder, f'kind = "csv"\npath = "{protocol}://none-such/*.csv"\n{storage}').run()
