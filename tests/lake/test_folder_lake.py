"""The lake on a folder: named by content, all or nothing."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import pytest

from noria.backends import folder_lake
from noria.backends.folder_lake import FolderLake
from noria.errors import Invalid, NotFound
from noria.types import Ref


def fill(folder: Path, **files: str) -> Path:
    (folder / "sub").mkdir()
    for name, text in files.items():
        (folder / "sub" / name).write_text(text)
    return folder


def test_the_same_content_twice_is_one_artifact(tmp_path: Path) -> None:
    lake = FolderLake(tmp_path)
    first = lake.commit(fill(lake.scratch("a"), x="1", y="2"), "dataset", "help")
    second = lake.commit(fill(lake.scratch("b"), y="2", x="1"), "dataset", "help")
    assert first == second
    assert lake.has(first)
    assert (lake.path(first) / "sub" / "x").read_text() == "1"
    assert not any((tmp_path / ".scratch").iterdir())


def test_names_and_contents_both_count(tmp_path: Path) -> None:
    lake = FolderLake(tmp_path)
    variants = [{"x": "1"}, {"x": "2"}, {"y": "1"}, {"x": "1", "y": ""}, {"x": "", "y": "1"}]
    refs = {str(lake.commit(fill(lake.scratch("s"), **files), "k", "n")) for files in variants}
    assert len(refs) == len(variants)


def test_scratch_is_empty_after_a_killed_run(tmp_path: Path) -> None:
    lake = FolderLake(tmp_path)
    (lake.scratch("run-1") / "half").write_text("written")
    assert list(lake.scratch("run-1").iterdir()) == []


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    ref = Ref(kind="dataset", name="help", digest="0" * 16)
    assert not FolderLake(tmp_path).has(ref)
    with pytest.raises(NotFound, match="is not in the lake"):
        FolderLake(tmp_path).path(ref)


@pytest.mark.parametrize("name", ["", "..", "../up", "a/b", ".hidden", "a\n"])
def test_names_cannot_leave_the_lake(tmp_path: Path, name: str) -> None:
    lake = FolderLake(tmp_path)
    with pytest.raises(Invalid, match="cannot name a folder"):
        lake.commit(lake.scratch("s"), "dataset", name)
    with pytest.raises(Invalid):
        lake.scratch(name)
    with pytest.raises(Invalid):
        lake.has(Ref(kind=name, name="x", digest="0" * 16))


def test_links_are_refused(tmp_path: Path) -> None:
    lake = FolderLake(tmp_path / "lake")
    folder = lake.scratch("s")
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(Invalid, match="is a link"):
        lake.commit(folder, "dataset", "help")


def test_an_adapter_is_verified_and_what_changed_is_named(tmp_path: Path) -> None:
    lake = FolderLake(tmp_path)
    folder = lake.scratch("k")
    for name in ("a.json", "b.json", "c.json"):
        (folder / name).write_text(name)
    ref = lake.commit(folder, "adapter", "help")
    place = lake.verified(ref)
    assert place == lake.path(ref)
    (place / "forgotten.json").write_text("[]")
    assert lake.verified(ref) == place
    (place / "a.json").write_text("x.json")
    (place / "b.json").unlink()
    (place / "d.json").write_text("d")
    for each in (lake, FolderLake(tmp_path)):
        with pytest.raises(Invalid, match=r"'a.json' was changed, 'b.json' is gone, 'd.json' was added"):
            each.verified(ref)
    with pytest.raises(NotFound):
        lake.verified(ref.model_copy(update={"digest": "0" * 16}))


def test_what_was_verified_is_not_read_again_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    digest = folder_lake.content_digest

    def counted(folder: Path, besides: Collection[str] = ()) -> str:
        read.append(folder)
        return digest(folder, besides)

    lake = FolderLake(tmp_path)
    folder = lake.scratch("k")
    (folder / "a.json").write_text("a")
    ref = lake.commit(folder, "adapter", "help")
    monkeypatch.setattr(folder_lake, "content_digest", counted)
    for _ in range(3):
        lake.verified(ref)
    assert len(read) == 1
    file = lake.path(ref) / "a.json"
    os.utime(file, ns=(1, 1))
    lake.verified(ref)
    assert len(read) == 2


def test_forgetting_takes_rows_out_of_an_adapter_and_nothing_else(tmp_path: Path) -> None:
    lake = FolderLake(tmp_path)
    folder = lake.scratch("k")
    for name in ("weights", "probes.json"):
        (folder / name).write_text(name)
    ref = lake.commit(folder, "adapter", "help")
    place = lake.path(ref)
    (place / ".forgotten.json.new").write_text("[")
    lake.verified(ref)
    (place / "probes.json").unlink()
    with pytest.raises(Invalid, match=r"'probes.json' is gone"):
        lake.verified(ref)
    (place / ".forgotten.json.new").rename(place / "forgotten.json")
    lake.verified(ref)
    (place / "weights").write_text("others")
    with pytest.raises(Invalid, match="'weights' was changed"):
        lake.verified(ref)
