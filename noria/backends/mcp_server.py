"""Any source of tools as an MCP server, by the official SDK: on standard input and output, or as an ASGI app."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from noria import __version__
from noria.backends.mcp_client import needed
from noria.ports import ToolSource

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server
    from starlette.applications import Starlette

SECONDS: Final = 60.0
LIMIT: Final = 100_000
"""Characters of a result."""


def serve(source: ToolSource, name: str, about: str) -> None:
    """Answer on standard input and output until that ends. Raises Unavailable without the SDK."""
    needed()
    asyncio.run(_serve(_server(source, name, about)))


def app(source: ToolSource, name: str, about: str) -> Starlette:
    """The server over streamable HTTP, at the path /mcp; who may use it is decided in front of it."""
    needed()
    return _server(source, name, about).streamable_http_app(json_response=True, stateless_http=True)


async def _serve(server: Server[Any]) -> None:
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def _server(source: ToolSource, name: str, about: str) -> Server[Any]:
    import mcp_types as types
    from mcp.server.lowlevel import Server

    async def listed(context: Any, given: Any) -> types.ListToolsResult:
        hints = types.ToolAnnotations(read_only_hint=True)
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=each.name, description=each.description, input_schema=each.parameters, annotations=hints
                )
                for each in source.specs()
            ]
        )

    async def called(context: Any, given: Any) -> types.CallToolResult:
        there = {each.name for each in source.specs()}
        if given.name not in there:
            text, failed = f"there is no tool '{given.name}'; there are: {', '.join(sorted(there))}", True
        else:
            found = await asyncio.to_thread(source.call, given.name, given.arguments or {}, SECONDS, LIMIT)
            text, failed = found.text, found.outcome != "ok"
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=failed)

    return Server(name, version=__version__, instructions=about, on_list_tools=listed, on_call_tool=called)
