"""The logs of engines: kept, put aside when they grow, and read from their end."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

KEPT: Final = 3
"""Older files of a log: FILE.1 is the youngest."""


def files_of(logs: Path, engine: str) -> list[Path]:
    """The logs of an engine's replicas and of their whole models, in use now."""
    mine = [logs / f"engine-{engine}.log", *logs.glob(f"engine-{engine}-[0-9]*.log")]
    models = logs.glob(f"engine-{engine}-model-[0-9]*.log")
    return sorted(file for file in {*mine, *models} if file.is_file())


def rotate(file: Path, most: int) -> None:
    """Put a log of more than `most` bytes aside and empty it.

    The engine goes on writing to the same file, which it has opened to append; what it writes between the copy and
    the emptying is lost. Where the disk is full all of it is lost; nothing is raised.
    """
    with suppress(OSError):
        if file.stat().st_size <= most:
            return
        for number in range(KEPT - 1, 0, -1):
            with suppress(OSError):
                _aside(file, number).replace(_aside(file, number + 1))
        try:
            shutil.copyfile(file, _aside(file, 1))
        except OSError:
            # A full disk: emptying makes room, and must not wait for it.
            with suppress(OSError):
                _aside(file, 1).unlink(missing_ok=True)
        os.truncate(file, 0)


def tail(file: Path, lines: int, most: int = 1 << 20) -> list[str]:
    """The last lines of a log, of its last `most` bytes at the most."""
    with file.open("rb") as source:
        source.seek(max(0, file.stat().st_size - most))
        return source.read().decode(errors="replace").splitlines()[-lines:]


def _aside(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")
