"""noria's own read functions as tools, and the door through which other programs call them."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from noria.apps import evaluations, port, versions, views
from noria.errors import Invalid
from noria.ports import Platform
from noria.registry import lineage
from noria.tools.functions import InProcess

ABOUT = "Reads the state of a noria project: what serves, why, its data and its reports. Nothing can be changed."
Send = Callable[[Any], Awaitable[None]]
Asgi = Callable[[Any, Any, Send], Awaitable[None]]


def reading(platform: Platform) -> InProcess:
    """What may be read of a project; sealed rows and texts as collected are not among it."""

    def status() -> dict[str, Any]:
        """What serves each task, since when and why, and the latest cycles."""
        return views.status(platform)

    def why(answer: str, rows: int = 5) -> dict[str, Any]:
        """Why an answer is what it is: its model, the decision that promoted it and the rows that taught it.

        Args:
            answer: id of the answer, from the header x-noria-interaction
            rows: how many training rows to show
        """
        return lineage.explain(platform, answer, rows)

    def list_data(task: str | None = None) -> list[dict[str, Any]]:
        """Data sets and documents of a task, newest first.

        Args:
            task: name of the task; not needed where there is only one
        """
        return versions.listed(platform, platform.settings.task(task)[0])

    def show_data(ref: str = "latest", rows: int = 5, task: str | None = None) -> dict[str, Any]:
        """Counts and some rows of a data set or of documents.

        Args:
            ref: a ref or part of one, such as latest, previous or documents@latest
            rows: how many rows to show
            task: name of the task; not needed where there is only one
        """
        name, _ = platform.settings.task(task)
        return versions.shown(platform, versions.find(platform, name, ref), versions.Wanted(rows=rows))

    def list_reports(task: str | None = None) -> list[dict[str, Any]]:
        """Reports of a task, newest first.

        Args:
            task: name of the task; not needed where there is only one
        """
        return evaluations.listed(platform, platform.settings.task(task)[0])

    def show_report(report: str | None = None, task: str | None = None) -> dict[str, Any]:
        """A report: scores with intervals, groups of rows that lost, advice.

        Args:
            report: its ref, from list_reports; the latest one without it
            task: name of the task; not needed where there is only one
        """
        return evaluations.told(platform, evaluations.ref_of(platform, report, task))

    return InProcess([status, why, list_data, show_data, list_reports, show_report])


def serve(platform: Platform) -> None:
    """Answer MCP on standard input and output until that ends."""
    from noria.backends import mcp_server

    mcp_server.serve(reading(platform), "noria", ABOUT)


def serve_http(platform: Platform, address: str, say: Callable[[str], None]) -> None:
    """Answer MCP over streamable HTTP at /mcp until stopped; every request needs a key of role admin or developer."""
    import uvicorn

    from noria.backends import mcp_server

    host, _, number = address.rpartition(":")
    if not host or not number.isdigit():
        raise Invalid(f"'{address}' is no address", "give host:port, such as 127.0.0.1:8002")
    listener = port.listen(host, int(number), False)
    app = guarded(platform, mcp_server.app(reading(platform), "noria", ABOUT))
    say(f"{port.url_of(listener).removesuffix('/')}/mcp   (key: {platform.settings.state.name}/admin.key)")
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, ws="none")
    uvicorn.Server(config).run(sockets=[listener])


def guarded(platform: Platform, app: Asgi) -> Asgi:
    """The app behind the project's keys; anyone without one gets 401."""

    async def behind(scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] == "http" and not _known(platform, dict(scope["headers"]).get(b"authorization", b"")):
            head = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": head})
            body = b'{"error": {"message": "this needs a key of role admin or developer", "code": 401}}'
            await send({"type": "http.response.body", "body": body})
            return
        await app(scope, receive, send)

    return behind


def _known(platform: Platform, header: bytes) -> bool:
    digest = hashlib.sha256(header.removeprefix(b"Bearer ")).hexdigest()
    return any(
        key.sha256 == digest and key.revoked is None and key.role in ("admin", "developer")
        for key in platform.keys.all()
    )
