"""The Files and Batch APIs (`/v1/files`, `/v1/batches`), as the official clients speak them."""

from __future__ import annotations

import asyncio
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from noria.errors import Invalid, NotFound, Unavailable
from noria.gateway.batch import uploads
from noria.gateway.batch.files import FileStore
from noria.gateway.batch.store import BatchStore
from noria.gateway.endpoints import APIS
from noria.gateway.wire import Header, Receive, Send, WrongMethod, answer, read_body, read_object
from noria.ports import Clock
from noria.settings import GatewaySettings
from noria.types import new_id

ENDPOINTS: Final = {
    f"/v1{path}": APIS[path]
    for path in ("/chat/completions", "/completions", "/responses", "/embeddings", "/rerank", "/classify")
}
"""What the lines of a batch may ask."""
FILES_PAGE: Final = (10_000, 10_000)
BATCHES_PAGE: Final = (20, 100)
"""How many a page has, and the most that it can have."""
READ_BYTES: Final = 256 * 1024
TRAIN: Final = b"x-noria-train"
"""The header that says whether may be learned from a conversation."""
MOST_DAYS: Final = 30
_WINDOW: Final = re.compile(r"([1-9]\d{0,2})([hd])")


@dataclass(frozen=True, slots=True)
class Call:
    """One request: whose it is, and the connection that it came by. `path` is below `/v1`."""

    owner: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    rules: GatewaySettings
    receive: Receive
    send: Send

    @property
    def identity(self) -> str:
        """The id in the path, of one that has it."""
        return self.path.split("/")[2]


class Desk:
    """Serves both to a key, which sees only what is its own. `created` is called for each new batch."""

    def __init__(self, files: FileStore, batches: BatchStore, clock: Clock, created: Callable[[], None]) -> None:
        self._files = files
        self._batches = batches
        self._clock = clock
        self._created = created
        self._routes: Mapping[str, Mapping[str, Callable[[Call], Awaitable[None]]]] = {
            "files": {"GET": self._list_files, "POST": self._upload},
            "files/ID": {"GET": self._file, "DELETE": self._delete},
            "files/ID/content": {"GET": self._content},
            "batches": {"GET": self._list_batches, "POST": self._create},
            "batches/ID": {"GET": self._batch},
            "batches/ID/cancel": {"POST": self._cancel},
        }

    async def serve(self, call: Call) -> None:
        """Serve one request. Raises NoriaError."""
        kind, *rest = call.path.removeprefix("/").split("/")
        handlers = self._routes.get("/".join([kind, *("ID" for _ in rest[:1]), *rest[1:]]))
        if handlers is None:
            raise NotFound(f"there is no path '/v1{call.path}'", f"known are: /v1/{', /v1/'.join(self._routes)}")
        handler = handlers.get(call.method)
        if handler is None:
            allow = ", ".join(handlers)
            raise WrongMethod(f"'/v1{call.path}' does not take {call.method}", f"use {allow}", allow=allow)
        try:
            await handler(call)
        except OSError as error:
            raise Unavailable(f"the disk failed ({error.strerror})", "it may be full; try again later") from error

    async def _upload(self, call: Call) -> None:
        rules, headers, receive = call.rules, call.headers, call.receive
        await _tell(call, await uploads.take(self._files, call.owner, rules, headers, receive, self._clock))

    async def _file(self, call: Call) -> None:
        await _tell(call, await asyncio.to_thread(self._files.get, call.owner, call.identity, self._now()))

    async def _delete(self, call: Call) -> None:
        await asyncio.to_thread(self._files.delete, call.owner, call.identity, self._now())
        await _tell(call, {"id": call.identity, "object": "file", "deleted": True})

    async def _content(self, call: Call) -> None:
        told, file = await asyncio.to_thread(self._files.open, call.owner, call.identity, self._now())
        with closing(file):
            left, name = told["bytes"], urllib.parse.quote(told["filename"], safe="")
            head: list[Header] = [
                (b"content-type", b"application/octet-stream"),
                (b"content-length", b"%d" % left),
                (b"content-disposition", f"attachment; filename*=UTF-8''{name}".encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
            await call.send({"type": "http.response.start", "status": 200, "headers": head})
            while data := await asyncio.to_thread(file.read, min(left, READ_BYTES)):
                left -= len(data)
                await call.send({"type": "http.response.body", "body": data, "more_body": True})
            await call.send({"type": "http.response.body", "body": b""})

    async def _list_files(self, call: Call) -> None:
        order, wanted, now = call.query.get("order", "desc"), call.query.get("purpose"), self._now()
        if order not in ("asc", "desc"):
            raise Invalid(f"'order' is '{order[:20]}'", "asc or desc")

        def known() -> Iterator[dict[str, Any]]:
            for identity in _after(call, self._files.identities(call.owner), order):
                # Its time may be up by now.
                with suppress(NotFound):
                    found = self._files.get(call.owner, identity, now)
                    if wanted is None or found["purpose"] == wanted:
                        yield found

        await _tell(call, await asyncio.to_thread(_page, call, known(), FILES_PAGE))

    async def _list_batches(self, call: Call) -> None:
        def known() -> Iterator[dict[str, Any]]:
            for identity in _after(call, self._batches.identities(call.owner), "desc"):
                # It may be on its way in or out.
                with suppress(NotFound):
                    yield self._batches.told(call.owner, identity)

        await _tell(call, await asyncio.to_thread(_page, call, known(), BATCHES_PAGE))

    async def _batch(self, call: Call) -> None:
        await _tell(call, await asyncio.to_thread(self._batches.told, call.owner, call.identity))

    async def _cancel(self, call: Call) -> None:
        await asyncio.to_thread(self._batches.cancel, call.owner, call.identity)
        await self._batch(call)

    async def _create(self, call: Call) -> None:
        wanted = read_object(await read_body(call.headers, call.receive, call.rules.body_bytes))
        told = await asyncio.to_thread(self._begin, call, wanted)
        self._created()
        await _tell(call, told)

    def _begin(self, call: Call, wanted: Mapping[str, Any]) -> dict[str, Any]:
        endpoint, window = wanted.get("endpoint"), _window(wanted.get("completion_window"))
        if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
            raise Invalid(f"'endpoint' is '{endpoint}'", f"one of: {', '.join(ENDPOINTS)}")
        identity = wanted.get("input_file_id")
        if not isinstance(identity, str):
            raise Invalid("'input_file_id' is missing", "upload a file first: POST /v1/files")
        metadata = _metadata(wanted.get("metadata"))
        expiry = wanted.get("output_expires_after")
        kept = None if expiry is None else uploads.lifetime(expiry)
        at = self._clock.now()
        now = at.timestamp()
        purpose = self._files.get(call.owner, identity, now)["purpose"]
        if purpose != "batch":
            raise Invalid(f"the file's purpose is '{purpose}'", "upload it with the purpose 'batch'")
        told = {
            "id": f"batch_{new_id(at).replace('-', '')}", "object": "batch", "endpoint": endpoint, "model": None,
            "errors": None, "input_file_id": identity, "completion_window": wanted["completion_window"],
            "status": "validating", "output_file_id": None, "error_file_id": None, "created_at": int(now),
            "in_progress_at": None, "expires_at": int(now) + window, "finalizing_at": None, "completed_at": None,
            "failed_at": None, "expired_at": None, "cancelling_at": None, "cancelled_at": None,
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "usage": None, "metadata": metadata,
        }  # fmt: skip
        # What the header forbids, it forbids for every line.
        refused = call.headers.get(TRAIN, b"").lower() == b"no"
        record = {"told": told, "kept": kept, "trainable": not refused}
        self._batches.create(call.owner, record, self._files.path(call.owner, identity, now), call.rules)
        return told

    def _now(self) -> float:
        return self._clock.now().timestamp()


async def _tell(call: Call, told: Mapping[str, Any]) -> None:
    await answer(call.send, 200, orjson.dumps(told))


def _after(call: Call, identities: list[str], order: str) -> list[str]:
    """Newest or oldest first, what follows the cursor, which need not be there any more: ids are sorted by time."""
    cursor = call.query.get("after")
    if order == "asc":
        return [each for each in identities if cursor is None or each > cursor]
    return [each for each in reversed(identities) if cursor is None or each < cursor]


def _page(call: Call, found: Iterable[dict[str, Any]], sizes: tuple[int, int]) -> dict[str, Any]:
    """As much of what was found as the request wants, in the form of OpenAI's lists; raises Invalid."""
    usual, most = sizes
    text = call.query.get("limit", str(usual))
    if not text.isdecimal() or not 1 <= int(text[:9]) <= most:
        raise Invalid(f"'limit' is '{text[:20]}'", f"a whole number from 1 to {most}")
    data: list[dict[str, Any]] = []
    more = False
    for each in found:
        more = len(data) == int(text[:9])
        if more:
            break
        data.append(each)
    return {
        "object": "list", "data": data, "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None, "has_more": more,
    }  # fmt: skip


def _window(text: object) -> int:
    """Seconds of a completion window: `24h` as OpenAI's, or any other number of hours or days."""
    found = _WINDOW.fullmatch(text) if isinstance(text, str) else None
    seconds = int(found[1]) * (3600 if found[2] == "h" else 86400) if found else 0
    if not 0 < seconds <= MOST_DAYS * 86400:
        raise Invalid(f"'completion_window' is '{text}'", f"24h, or another one such as 2h or 7d, at most {MOST_DAYS}d")
    return seconds


def _metadata(found: object) -> dict[str, str] | None:
    if found is None:
        return None
    if not isinstance(found, dict) or len(found) > 16:
        raise Invalid("'metadata' is not an object of at most 16 pairs", 'send {"name": "value"}')
    for name, value in found.items():
        if not isinstance(value, str) or len(name) > 64 or len(value) > 512:
            raise Invalid(f"'metadata.{name[:64]}' is not a string of at most 512 characters", "shorten it")
    return found
