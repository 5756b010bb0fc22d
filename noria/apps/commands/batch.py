"""`noria batch`: many requests, answered when there is room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, opened

group = typer.Typer(
    no_args_is_help=True, help="Many requests, answered when there is room.\n\nExample: noria batch submit in.jsonl"
)


@group.command("submit")
def submit_batch(
    file: Annotated[Path, typer.Argument(help="One request a line, in the form of OpenAI's Batch API.", exists=True)],
    hours: Annotated[int, typer.Option(min=1, max=720, help="Lines not answered by then expire.")] = 24,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Have the requests in a file answered; its first line says by which endpoint.

    Example: noria batch submit in.jsonl
    """
    from noria.apps import batches
    from noria.apps.screen import show

    told = batches.submit(opened(project), file, hours)
    show(told if as_json else told["id"], as_json)


@group.command("list")
def list_batches(as_json: AsJson = False, project: Folder = HERE) -> None:
    """List the batches of the CLI's own key, newest first.

    Example: noria batch list
    """
    from noria.apps import batches
    from noria.apps.screen import show, table_of

    found = batches.ask(opened(project), "GET", "/batches?limit=100")["data"]
    show(found, as_json, table_of(["id", "status", "done", "failed", "of"], [*map(batches.row, found)]))


@group.command("show")
def show_batch(
    identity: Annotated[str, typer.Argument(help="Id, from `noria batch list`.")],
    output: Annotated[Path | None, typer.Option(help="Write the answers of one that has ended here.")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """How far a batch is, and its answers.

    Example: noria batch show batch_0193… --output out.jsonl
    """
    from noria.apps import batches
    from noria.apps.screen import show, table_of

    told = batches.look(opened(project), identity, output)
    show(told, as_json, table_of(["id", "status", "done", "failed", "of"], [batches.row(told)]))


@group.command("cancel")
def cancel_batch(
    identity: Annotated[str, typer.Argument(help="Id, from `noria batch list`.")], project: Folder = HERE
) -> None:
    """Stop a batch; what was answered stays.

    Example: noria batch cancel batch_0193…
    """
    from noria.apps import batches

    typer.echo(batches.ask(opened(project), "POST", f"/batches/{identity}/cancel")["status"])
