"""MCP servers as sources of tools, by the official SDK: launched on standard input and output, or over HTTP.

Specification: https://modelcontextprotocol.io/specification. Only tools are used; a server that asks for sampling,
elicitation or roots gets none.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import JsonValue

from noria.errors import NoriaError, Unavailable
from noria.ports import ToolResult, ToolSpec

if TYPE_CHECKING:
    from mcp import Client

Connect = Callable[[], AbstractAsyncContextManager["Client"]]
READY_SECONDS: Final = 60.0
CLOSE_SECONDS: Final = 10.0
CLOSED_CODE: Final = -32000
"""The SDK's CONNECTION_CLOSED."""


def launched(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Server:
    """A server that is started in `folder`, and again after a call that did not end in time. Raises Unavailable."""
    needed()

    def connect() -> Client:
        from mcp import Client, StdioServerParameters

        start = StdioServerParameters(
            command=command[0], args=list(command[1:]), env=dict(environment), cwd=str(folder)
        )
        return Client(start)

    return Server(connect, " ".join(command), restarts=True)


def attached(url: str, key: str | None = None) -> Server:
    """A server over streamable HTTP; `key` is sent as a bearer token. Raises Unavailable."""
    needed()

    @asynccontextmanager
    async def connect() -> AsyncIterator[Client]:
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30.0, read=None)) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            yield client

    return Server(connect, url, restarts=False)


def needed() -> None:
    """Raise Unavailable where the SDK is not installed."""
    try:
        import mcp  # noqa: F401  it is asked for before a thread needs it
    except ImportError as error:
        raise Unavailable("MCP servers need the package mcp", "pip install 'noria[tools]'") from error


class Server:
    """Port `ToolSource` on one connection, which lives in a thread with an event loop of its own."""

    def __init__(self, connect: Connect, name: str, restarts: bool) -> None:
        self._connect, self._name, self._restarts = connect, name, restarts
        self._guard = threading.Lock()
        self._live: _Session | None = _Session(connect, name)
        self._specs = self._live.specs

    def specs(self) -> Sequence[ToolSpec]:
        """Its tools, as it listed them when it was opened."""
        return self._specs

    def call(self, name: str, arguments: Mapping[str, JsonValue], seconds: float, limit: int) -> ToolResult:
        """Carry out a call. A launched server that does not answer in time is ended; the result is not cut here."""
        try:
            with self._guard:
                if self._live is None:
                    self._live = _Session(self._connect, self._name)
                session = self._live
        except Unavailable as error:
            return ToolResult(error.fact, "failed")
        found = session.call(name, arguments, seconds)
        if session.dead or (found.outcome == "late" and self._restarts):
            with self._guard:
                if self._live is session:
                    self._live = None
            session.close()
        return found

    def close(self) -> None:
        """End the connection, and a launched server."""
        with self._guard:
            session, self._live = self._live, None
        if session is not None:
            session.close()


class _Session:
    def __init__(self, connect: Connect, name: str) -> None:
        self.dead = False
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready: Future[Client] = Future()
        self._thread = threading.Thread(target=self._run, args=(connect,), name="mcp", daemon=True)
        self._thread.start()
        try:
            self._client = self._ready.result(READY_SECONDS)
            found = asyncio.run_coroutine_threadsafe(self._listed(), self._loop).result(READY_SECONDS)
            self.specs = tuple(ToolSpec(each.name, each.description or "", each.input_schema) for each in found)
        except TimeoutError as error:
            self.close()
            raise Unavailable(f"the MCP server '{name}' does not answer", "start it by hand and look") from error
        except NoriaError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise Unavailable(f"the MCP server '{name}' fails: {_first(error)}", "start it by hand and look") from error

    def call(self, name: str, arguments: Mapping[str, JsonValue], seconds: float) -> ToolResult:
        from mcp import MCPError

        called = self._called(name, arguments, seconds)
        try:
            waiting = asyncio.run_coroutine_threadsafe(called, self._loop)
        except RuntimeError:
            called.close()
            self.dead = True
            return ToolResult("the MCP server has ended", "failed")
        # The loop itself ends the call in time; should it hang, this thread does not.
        try:
            text, failed = waiting.result(seconds + 1)
        except TimeoutError:
            waiting.cancel()
            return ToolResult(f"it was stopped after {seconds:g} seconds", "late")
        except Exception as error:  # noqa: BLE001  whatever a server does is told to the model
            # A server that answers with an error lives; a connection that is closed is one in the SDK, too.
            self.dead = not isinstance(error, MCPError) or error.code == CLOSED_CODE
            return ToolResult(f"the MCP server failed: {error}", "failed")
        return ToolResult(text, "failed" if failed else "ok")

    def close(self) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(CLOSE_SECONDS)

    def _run(self, connect: Connect) -> None:
        try:
            self._loop.run_until_complete(self._held(connect))
        except BaseException as error:  # noqa: BLE001  it is raised again by who waits for the connection
            if not self._ready.done():
                self._ready.set_exception(Unavailable(f"the MCP server cannot be reached: {_first(error)}"))
        finally:
            self._loop.close()

    async def _held(self, connect: Connect) -> None:
        async with connect() as client:
            self._ready.set_result(client)
            await self._stop.wait()

    async def _listed(self) -> list[Any]:
        page = await self._client.list_tools()
        found = list(page.tools)
        while page.next_cursor:
            page = await self._client.list_tools(cursor=page.next_cursor)
            found += page.tools
        return found

    async def _called(self, name: str, arguments: Mapping[str, JsonValue], seconds: float) -> tuple[str, bool]:
        async with asyncio.timeout(seconds):
            result = await self._client.call_tool(name, dict(arguments))
        parts = [str(each.text) if each.type == "text" else f"[{each.type}]" for each in result.content]
        if not parts and result.structured_content is not None:
            parts = [json.dumps(result.structured_content, ensure_ascii=False)]
        return "\n".join(parts), bool(result.is_error)


def _first(error: BaseException) -> str:
    """The innermost reason: task groups wrap what went wrong."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
