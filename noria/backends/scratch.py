"""Folders that belong to one living process: what is left of a killed one is found by its lock, and removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def claim(folder: Path) -> int:
    """Lock a folder for this process; the file descriptor that holds the lock.

    The lock is on the folder itself (flock), so that nothing of it is seen inside, and it ends with the process
    however that ends. Raises OSError where another process holds it, and for a folder that is gone.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who swept it in between has removed another folder than the one that stands there now.
        if not os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            raise FileNotFoundError(str(folder))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time in the block, of all that name this folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep(parent: Path, pattern: str) -> None:
    """Remove the folders of this user that match and that no living process has claimed; unclaimed files stay."""
    for folder in parent.glob(pattern):
        # Files, links and what others hold, or have removed just now, are none of ours.
        with suppress(OSError):
            if folder.lstat().st_uid == os.getuid():
                descriptor = claim(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)


@contextmanager
def temporary(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder of mode 0700 for the time of the block, after removing what killed processes left under this prefix.

    `parent` is the system's folder for temporary files unless it is given; `prefix` must be nobody else's.
    """
    where = parent or Path(tempfile.gettempdir())
    sweep(where, f"{prefix}*")
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
        # Another process may sweep the folder away before it is claimed.
        with suppress(OSError):
            descriptor = claim(folder)
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)
