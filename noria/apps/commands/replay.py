"""`noria replay`: is what was trained what the same inputs train again?"""

from __future__ import annotations

from typing import Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, opened

group = typer.Typer()


@group.command()
def replay(
    what: Annotated[str, typer.Argument(help="candidate:TASK@…, adapter:TASK@…, the key of a run, or a cycle's id.")],
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Make a training again from its recorded inputs, in another folder and process, and compare the two.

    The same kind of processor gives the same digest; else exit code 1. On another kind how far the two lie apart is
    stored: the gate, the report, the card and `noria why` tell it.

    Example: noria replay candidate:helpdesk@0123456789abcdef
    """
    from noria.apps.replaying import replay as make_again
    from noria.apps.screen import Screen, show, table_of

    with Screen() as screen:
        made, found = make_again(opened(project), what, screen)
    if as_json:
        show({"adapter": str(made.ref), **found.model_dump(mode="json")}, as_json=True)
    else:
        typer.echo(f"{made.ref}: {found.words()}")
        rows = [["made on", found.made_on or "not recorded"], ["made again on", found.machine]]
        rows += [["differs", name] for name in found.files]
        show(None, False, table_of(["", ""], rows))
    if not found.same and found.same_machine:
        raise typer.Exit(1)
