"""`noria forget`: what is known of a person goes, and what was learned from it is named."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, opened, person

group = typer.Typer()


@group.command()
def forget(
    user: Annotated[str, typer.Argument(help="The user, as clients name it in the field `user`, or a key's name.")],
    logged: Annotated[bool, typer.Option("--logged", help="USER is the keyed hash that the log has.")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Tell what would be removed, and remove nothing.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge/--no-purge", help="Take the rows out of data sets, features and reports too.")
    ] = True,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Remove a person's interactions, feedback, files and rows; name the adapters and releases that learned from them.

    Adapters stay until they are replaced, and no training goes on from them. Texts of others that mention the person
    are not found. The act is recorded without saying whom it was about.

    Example: noria forget customer-17 --dry-run
    """
    from noria.apps.forgetting import forget as forget_user
    from noria.apps.screen import show, table_of

    told = forget_user(opened(project), user, person(), logged=logged, dry=dry, purge=purge)
    if as_json:
        show(told, as_json=True)
        return
    show(None, False, table_of(["", "would go" if dry else "gone"], _rows(told)))
    for line in _lines(told):
        typer.echo(line)


def _rows(told: dict[str, Any]) -> list[list[str]]:
    names = ("interactions", "feedback", "files", "batches", "lines")
    rows = [[name, str(told[name])] for name in names]
    return [*rows, *([ref, f"{number} rows"] for ref, number in told["rows"].items())]


def _lines(told: dict[str, Any]) -> list[str]:
    return [
        *(f"learned from the rows: {ref}" for ref in told["adapters"]),
        *(f"model version {each['version']} of '{each['task']}': {each['candidate']}" for each in told["versions"]),
        *([f"not tagged in MLflow: {told['untagged']}; later: noria registry sync"] if told.get("untagged") else []),
        *(f"serves as {each['role']} of '{each['task']}': {each['candidate']}" for each in told["serving"]),
        *(f"still runs: {batch}; cancel it or wait, then forget again" for batch in told["open_batches"]),
        *(f"next: {line}" for line in told["retrain"]),
        f"note: {told['not_reached']}",
    ]
