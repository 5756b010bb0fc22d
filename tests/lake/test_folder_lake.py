"""The lake on a folder: named by content, all or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

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
