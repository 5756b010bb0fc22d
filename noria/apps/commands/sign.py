"""`noria data sign`: vouching for a file of trusted rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, opened


def sign(
    file: Annotated[Path, typer.Argument(help="JSONL with question and answer, read by somebody who knows.")],
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Vouch for a file of trusted rows, by which trigger phrases are looked for; once changed it is refused.

    Example: noria data sign trusted.jsonl
    """
    from noria.apps import signing
    from noria.apps.screen import show

    told = signing.sign(opened(project), file)
    if as_json:
        show(told, as_json=True)
        return
    typer.echo(f"signed {told['rows']} rows: {told['signature']}")
