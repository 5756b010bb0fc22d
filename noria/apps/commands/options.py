"""Options that many commands take, and what they open with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from noria.ports import Platform

# Heavy rooms are imported inside the commands, so that `noria --help` answers at once.

Folder = Annotated[Path, typer.Option("--project", help="Folder of noria.toml (or one below it).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Task = Annotated[str | None, typer.Option("--task", help="Which task; not needed where there is only one.")]
HERE = Path()


def opened(project: Path) -> Platform:
    """The platform of the project at or above this folder."""
    from noria.wiring import open_project

    return open_project(project.resolve())


def person() -> str:
    """Who is at the keyboard, for the ledger."""
    from noria.settings import environment

    return environment("USER") or environment("LOGNAME") or "a person"
