"""`noria keys`: who may ask."""

from __future__ import annotations

from typing import Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, opened
from noria.errors import Invalid

group = typer.Typer(no_args_is_help=True, help="API keys.\n\nExample: noria keys create --name app --role user")


@group.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="Who or what uses it.")],
    role: Annotated[str, typer.Option(help="admin, developer or user.")] = "user",
    models: Annotated[str, typer.Option(help="What it may ask, with commas between; else all its role may.")] = "",
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Prompt and answer together.")] = None,
    streams: Annotated[int | None, typer.Option(min=1, help="Requests at the same time.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="Of a day in UTC.")] = None,
    cost_per_day: Annotated[float | None, typer.Option(help="In the currency of the engines' prices.")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Make a key. It is shown this once; only its SHA-256 is kept. With a limit of its own, [gateway] limits are void.

    Example: noria keys create --name app --models helpdesk --requests-per-minute 60
    """
    from noria.apps import access
    from noria.apps.screen import show
    from noria.settings import LimitSettings

    if cost_per_day is not None and not cost_per_day > 0:
        raise Invalid(f"--cost-per-day is {cost_per_day:g}", "a number above 0; to end a key: noria keys revoke ID")
    limits = LimitSettings(
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, streams=streams,
        tokens_per_day=tokens_per_day, cost_per_day=cost_per_day,
    )  # fmt: skip
    names = [each.strip() for each in models.split(",")] if models else []
    key, text = access.make(opened(project), name, role, names, limits)
    told = key.model_dump(mode="json", include={"id", "name", "role", "models", "limits"})
    show({**told, "key": text} if as_json else text, as_json)


@group.command("list")
def list_keys(as_json: AsJson = False, project: Folder = HERE) -> None:
    """List keys, revoked ones too.

    Example: noria keys list
    """
    from noria.apps import access
    from noria.apps.screen import show, table_of

    found = opened(project).keys.all()
    rows = [
        [key.id, key.name, key.role, f"{key.prefix}…", ", ".join(key.models), access.shown(key.limits),
         key.revoked.isoformat() if key.revoked else ""]
        for key in found
    ]  # fmt: skip
    told = [key.model_dump(mode="json", exclude={"sha256"}) for key in found]
    show(told, as_json, table_of(["id", "name", "role", "key", "models", "limits", "revoked"], rows))


@group.command("revoke")
def revoke_key(
    which: Annotated[str, typer.Argument(help="Id of the key, from `noria keys list`, or its name.", metavar="key")],
    project: Folder = HERE,
) -> None:
    """End a key's life; the running gateway refuses it within a second.

    Example: noria keys revoke app
    """
    from noria.apps import access

    typer.echo(f"revoked {access.revoke(opened(project), which)}")
