"""Options that many commands take, and what they open with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria.errors import Invalid

if TYPE_CHECKING:
    from noria.names import Ref
    from noria.ports import Platform

# Heavy rooms are imported inside the commands, so that `noria --help` answers at once.

Folder = Annotated[Path, typer.Option("--project", help="Folder of noria.toml (or one below it).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Task = Annotated[str | None, typer.Option("--task", help="Which task; not needed where there is only one.")]
Candidate = Annotated[str, typer.Argument(help="candidate:TASK@DIGEST, as `noria status` and reports name it.")]
HERE = Path()


def opened(project: Path) -> Platform:
    """The platform of the project at or above this folder."""
    from noria.wiring import open_project

    return open_project(project.resolve())


def reference(candidate: str) -> Ref:
    """The ref of a candidate as it was typed; raises Invalid."""
    from noria.names import Ref

    try:
        return Ref.parse(candidate)
    except ValueError as error:
        raise Invalid(str(error), "such as candidate:helpdesk@0123456789abcdef") from error


def registered(platform: Platform, task: str) -> None:
    """Let the registry follow a release that was made just now; one that is away is told and changes nothing.

    One in which no cycle has put anything yet is left alone.
    """
    from noria.registry import versions

    if versions.due(platform, task):
        versions.best_effort(platform, task, lambda line: typer.echo(line, err=True))


def person() -> str:
    """Who is at the keyboard, for the ledger."""
    from noria.settings import environment

    return environment("USER") or environment("LOGNAME") or "a person"
