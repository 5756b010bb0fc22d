"""Folders of one living process: claimed while it lives, swept away after it was killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from noria.backends.folder_lake import FolderLake
from noria.backends.scratch import claim, sweep, temporary
from noria.errors import Conflict

HOLDS = """
import sys, time
from pathlib import Path
from noria.backends.folder_lake import FolderLake
from noria.backends.scratch import temporary
root = Path(sys.argv[1])
(FolderLake(root).scratch("held") / "half").write_text("written")
with temporary("noria-test.", root) as folder:
    (root / "ready").touch()
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)])
    try:
        while not (tmp_path / "ready").is_file():
            assert process.poll() is None
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def test_what_a_killed_process_left_goes_with_the_next_start(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    lake = FolderLake(tmp_path)
    lake.scratch("other")
    with temporary("noria-test.", tmp_path) as mine:
        assert len(list(tmp_path.glob("noria-test.*"))) == 2
    with pytest.raises(Conflict, match="held"):
        lake.scratch("held")
    holder.kill()
    holder.wait()
    with temporary("noria-test.", tmp_path) as mine:
        assert list(tmp_path.glob("noria-test.*")) == [mine]
        assert mine.stat().st_mode & 0o777 == 0o700
    lake.scratch("third")
    assert sorted(path.name for path in (tmp_path / ".scratch").iterdir()) == ["other", "third"]
    assert list(lake.scratch("held").iterdir()) == []


def test_only_folders_of_ours_that_nobody_holds_are_swept(tmp_path: Path) -> None:
    for name in ("a-1", "a-2", "b-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "a-file").touch()
    (tmp_path / "a-link").symlink_to(tmp_path / "b-1")
    held = claim(tmp_path / "a-1")
    assert held >= 0
    sweep(tmp_path, "a-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1", "a-file", "a-link", "b-1"]
    with pytest.raises(OSError, match="temporarily unavailable"):
        claim(tmp_path / "a-1")
    with pytest.raises(FileNotFoundError):
        claim(tmp_path / "none")
