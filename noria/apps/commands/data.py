"""`noria data`: what the models learn from."""

from __future__ import annotations

import typer

from noria.apps.commands.sign import sign

group = typer.Typer(no_args_is_help=True, help="What the models learn from.\n\nExample: noria data sign trusted.jsonl")


@group.callback()
def about_data() -> None:
    """What the models learn from."""


group.command("sign")(sign)
