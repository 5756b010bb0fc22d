"""Only what is new or changed is read, and the product is the same as if everything had been."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import exploding
import pytest
from small_project import Project

from noria.errors import Conflict, Invalid
from noria.lake import kept, parsers, read
from noria.lake.listing import sha256

LINES = 'kind = "jsonl"\npath = "data/*.jsonl"'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "data").mkdir()
    for name in "abc":
        (tmp_path / "data" / f"{name}.jsonl").write_text(f'{{"q": "{name}"}}\n{{"q": "the same"}}\n')
    return Project(tmp_path, LINES)


def product(project: Project) -> bytes:
    project.run()
    return b"".join(file.read_bytes() for file in sorted((project.root / "out").iterdir()))


def parsed(project: Project) -> list[str]:
    """The files that the last run parsed."""
    return [note.removeprefix("data: ") for note in project.heard.notes if note.startswith("data: ")]


def anew(project: Project) -> bytes:
    shutil.rmtree(project.root / ".noria")
    return product(project)


def test_only_new_and_changed_files_are_parsed_and_deleted_ones_are_seen(project: Project) -> None:
    data = project.root / "data"
    first = product(project)
    assert project.told["files"] == {"new": 3, "changed": 0, "unchanged": 0, "deleted": 0}
    project.heard.notes.clear()
    assert product(project) == first
    assert parsed(project) == []
    (data / "a.jsonl").write_text('{"q": "other"}\n')
    (data / "b.jsonl").unlink()
    (data / "d.jsonl").write_text('{"q": "new"}\n{"q": "the same"}\nbroken\n')
    second = product(project)
    assert parsed(project) == ["data/a.jsonl", "data/d.jsonl"]
    assert project.told["files"] == {"new": 1, "changed": 1, "unchanged": 1, "deleted": 1}
    assert (project.told["documents"], project.told["quarantined"]) == (5, 1)
    assert second == anew(project)


def test_a_renamed_file_is_not_parsed_again(project: Project) -> None:
    product(project)
    project.heard.notes.clear()
    (project.root / "data" / "c.jsonl").rename(project.root / "data" / "0.jsonl")
    renamed = product(project)
    assert parsed(project) == []
    assert renamed == anew(project)


def test_other_settings_read_everything_again(project: Project) -> None:
    product(project)
    project.heard.notes.clear()
    with (project.root / "noria.toml").open("a") as file:
        file.write("limits = { row_chars = 5 }\n")
    project.run()
    assert len(parsed(project)) == 3
    assert project.told["quarantined"] == 3


def test_files_at_rest_are_not_digested_again_and_younger_ones_are(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def digest(path: str) -> str:
        asked.append(Path(path).name)
        return sha256(path)

    monkeypatch.setattr(read, "sha256", digest)
    project.observed()
    project.observed()
    assert asked == ["a.jsonl", "b.jsonl", "c.jsonl"] * 2
    monkeypatch.setattr("noria.lake.listing.RACE", 0.0)
    project.observed()
    asked.clear()
    project.observed()
    assert asked == []
    file = project.root / "data" / "b.jsonl"
    before = file.stat()
    file.write_text(file.read_text().replace("b", "x"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    project.observed()
    assert asked == ["b.jsonl"]


def test_a_file_that_changes_between_finding_and_reading_is_a_conflict(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "sha256", lambda path: "0" * 64)
    with pytest.raises(Conflict, match=r"'data/a.jsonl' changed while it was read"):
        project.run()


def test_what_is_kept_may_be_lost_at_any_time(project: Project) -> None:
    first = product(project)
    folder = project.root / ".noria" / "read" / "data"
    for name in ("files.json", "digests.json"):
        (folder / name).write_bytes(b"{")
    assert product(project) == first
    (pack,) = folder.glob("*.arrow")
    pack.write_bytes(pack.read_bytes()[:-20])
    assert product(project) == first
    (pack,) = folder.glob("*.arrow")
    pack.unlink()
    assert product(project) == first


@pytest.mark.slow
def test_packs_become_one_and_what_is_unused_goes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "PACKS", 3)
    for number in range(8):
        (project.root / "data" / f"n{number}.jsonl").write_text(f'{{"q": "{number}"}}\n')
        last = product(project)
        assert len(list((project.root / ".noria/read/data").glob("*.arrow"))) <= 4
    project.heard.notes.clear()
    assert product(project) == last
    assert parsed(project) == []
    assert last == anew(project)


def test_faults_of_the_hour_are_tried_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parsers.PARSERS, "jsonl", exploding.exits)
    (project.root / "data" / "m.jsonl").write_text("exit")
    product(project)
    assert project.told["quarantined"] == 1
    project.heard.notes.clear()
    product(project)
    assert parsed(project) == ["data/m.jsonl"]


class Shop:
    """A database with a table that has a watermark."""

    def __init__(self, root: Path) -> None:
        self.file = root / "shop.db"
        self.change("create table orders (id integer, item text, changed integer)")

    def change(self, *statements: str) -> None:
        with sqlite3.connect(self.file) as database:
            for statement in statements:
                database.execute(statement)
        database.close()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def orders(root: Path, watermark: str = 'watermark = "changed"\n') -> Project:
    return Project(root, f'kind = "sql"\nurl = "sqlite:///shop.db"\nquery = "select * from orders;"\n{watermark}')


def fetched(root: Path) -> dict[str, Any]:
    """What the query gives with the watermark; without it, it gives the same."""
    told = orders(root).run()
    plain = orders(root, "").run()
    assert [row["text"] for row in told["documents"]] == [row["text"] for row in plain["documents"]]
    assert told == plain
    return {row["text"].split("\n")[1]: row for row in told["documents"]}


def test_a_watermark_gives_what_a_full_read_gives(tmp_path: Path, shop: Shop) -> None:
    shop.change("insert into orders values (1, 'Bowl', 1), (2, 'Cup', 2), (3, 'Fork', null)")
    assert len(fetched(tmp_path)) == 3
    shop.change("insert into orders values (4, 'Knife', 4)")
    assert len(fetched(tmp_path)) == 4
    shop.change("update orders set item = 'Mug', changed = 5 where id = 2")
    assert "item: Mug" in fetched(tmp_path)
    assert "item: Cup" not in fetched(tmp_path)
    shop.change("delete from orders where id = 4")
    assert "item: Knife" not in fetched(tmp_path)
    shop.change("insert into orders values (6, 'Late', 1)")
    assert "item: Late" in fetched(tmp_path)


def test_below_the_watermark_nothing_is_fetched_again(tmp_path: Path, shop: Shop) -> None:
    shop.change("insert into orders values (1, 'Bowl', 1), (2, 'Cup', 2)")
    project = orders(tmp_path)
    before = project.observed()
    shop.change("update orders set item = 'unseen' where id = 1")
    assert project.observed() == before
    shop.change("insert into orders values (3, 'Fork', 3)")
    rows = project.run()["documents"]
    assert {row["text"] for row in rows} == {
        "id: 1\nitem: Bowl\nchanged: 1",
        "id: 2\nitem: Cup\nchanged: 2",
        "id: 3\nitem: Fork\nchanged: 3",
    }


def test_a_wrong_watermark_is_refused(tmp_path: Path, shop: Shop) -> None:
    with pytest.raises(Invalid, match="no such column"):
        orders(tmp_path, 'watermark = "when"\n').run()
    shop.change("insert into orders values (1, 'Bowl', x'00')")
    with pytest.raises(Invalid, match="column 'changed' holds no watermark: bytes"):
        orders(tmp_path).run()
