"""`noria mcp`: what can be read of a project, for programs that speak the Model Context Protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from noria.apps.commands.options import HERE, Folder, opened

group = typer.Typer()


@group.command()
def mcp(
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Over HTTP, behind the project's keys; else on stdio.")
    ] = None,
    project: Folder = HERE,
) -> None:
    """Serve status, why, data and reports as an MCP server. Nothing can be changed through it.

    Example: noria mcp            Example: noria mcp --http 127.0.0.1:8002
    """
    from noria.apps import access, mcp_tools

    platform = opened(project)
    if http is None:
        mcp_tools.serve(platform)
        return
    access.admin_key(platform)
    mcp_tools.serve_http(platform, http, lambda line: typer.echo(line, err=True))
