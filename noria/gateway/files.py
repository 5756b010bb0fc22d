"""The Files API (`/v1/files`), as the official clients speak it. An upload goes to the disk while it comes in."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from noria.errors import Invalid, NotFound, Unavailable
from noria.gateway.filestore import FileStore, Upload, new_file
from noria.gateway.multipart import Multipart, Part
from noria.gateway.wire import ClientGone, Header, Receive, Send, TooLarge, WrongMethod, answer
from noria.ports import Clock
from noria.settings import GatewaySettings
from noria.types import new_id

PURPOSES: Final = ("batch", "fine-tune", "assistants", "vision", "user_data", "evals")
"""What a client may upload a file for; batches write theirs for `batch_output`."""
PAGE: Final = 10_000
FORM_BYTES: Final = 64 * 1024
"""The most that a form may have besides the file."""
FIELD_BYTES: Final = 1024
FLUSH_BYTES: Final = 1024 * 1024
"""An upload is written to the disk in pieces of this size."""
READ_BYTES: Final = 256 * 1024
SHORTEST_SECONDS: Final = 3600
LONGEST_SECONDS: Final = 30 * 86400

Query = Mapping[str, str]


class FileDesk:
    """Serves the Files API to a key, which sees its own files only."""

    def __init__(self, store: FileStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def serve(
        self,
        method: str,
        path: list[str],
        query: Query,
        owner: str,
        rules: GatewaySettings,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        """Serve one request; `path` is what follows `/v1/files`. Raises NoriaError."""
        now = self._clock.now().timestamp()
        if not path and method == "POST":
            try:
                told = await self._create(owner, rules, headers, receive)
            except OSError as error:
                raise Unavailable(f"the file could not be stored ({error.strerror})", "the disk may be full") from error
            await answer(send, 200, orjson.dumps(told))
        elif not path and method == "GET":
            await answer(send, 200, orjson.dumps(await asyncio.to_thread(self._list, owner, query, now)))
        elif not path:
            raise WrongMethod(f"'/v1/files' does not take {method}", "use GET or POST", allow="GET, POST")
        elif len(path) > 2 or path[1:] not in ([], ["content"]):
            raise NotFound("there is no such path of a file", "known are: /v1/files/ID, /v1/files/ID/content")
        elif len(path) == 2 and method == "GET":
            await self._content(owner, path[0], now, send)
        elif len(path) == 1 and method == "GET":
            await answer(send, 200, orjson.dumps(await asyncio.to_thread(self._store.get, owner, path[0], now)))
        elif len(path) == 1 and method == "DELETE":
            await asyncio.to_thread(self._store.delete, owner, path[0], now)
            await answer(send, 200, orjson.dumps({"id": path[0], "object": "file", "deleted": True}))
        else:
            allow = "GET" if path[1:] else "GET, DELETE"
            raise WrongMethod(f"this path of a file does not take {method}", f"use {allow}", allow=allow)

    async def _create(
        self, owner: str, rules: GatewaySettings, headers: Mapping[bytes, bytes], receive: Receive
    ) -> dict[str, Any]:
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > rules.file_bytes + FORM_BYTES:
            raise _too_large(int(length), rules.file_bytes)
        form = Multipart(headers.get(b"content-type", b""))
        at = self._clock.now()
        identity = f"file-{new_id(at).replace('-', '')}"
        room = partial(self._store.require_room, owner, rules.files_bytes)
        with closing(await asyncio.to_thread(self._begin, owner, identity, room)) as upload:
            coming = _Coming(upload, rules.file_bytes, room)
            while True:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise ClientGone
                coming.take(form.feed(event.get("body", b"")))
                if len(coming.held) >= FLUSH_BYTES:
                    await asyncio.to_thread(coming.flush)
                if not event.get("more_body", False):
                    break
            form.close()
            await asyncio.to_thread(coming.flush)
            told = coming.told(identity, at.timestamp())
            await asyncio.to_thread(upload.keep, told)
        return told

    def _begin(self, owner: str, identity: str, room: Callable[[], None]) -> Upload:
        room()
        return self._store.begin(owner, identity)

    def _list(self, owner: str, query: Query, now: float) -> dict[str, Any]:
        wanted = query.get("purpose")
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise Invalid(f"'order' is '{order[:20]}'", "asc or desc")

        def known() -> Iterable[dict[str, Any]]:
            identities = self._store.identities(owner)
            for identity in after(identities if order == "asc" else identities[::-1], query.get("after"), order):
                # Its time may be up by now.
                with suppress(NotFound):
                    found = self._store.get(owner, identity, now)
                    if wanted is None or found["purpose"] == wanted:
                        yield found

        return page(known(), limit_of(query, PAGE, PAGE))

    async def _content(self, owner: str, identity: str, now: float, send: Send) -> None:
        told = await asyncio.to_thread(self._store.get, owner, identity, now)
        path = self._store.path(owner, identity, now)
        with closing(await asyncio.to_thread(_reader, path)) as file:
            name = urllib.parse.quote(told["filename"], safe="")
            head: list[Header] = [
                (b"content-type", b"application/octet-stream"),
                (b"content-length", b"%d" % told["bytes"]),
                (b"content-disposition", f"attachment; filename*=UTF-8''{name}".encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await _pour(file, told["bytes"], send)


class _Coming:
    """The fields of a form, as far as they have come. `held` is what is not on the disk yet."""

    def __init__(self, upload: Upload, most: int, room: Callable[[], None]) -> None:
        self.held = bytearray()
        self._upload = upload
        self._most = most
        self._room = room
        self._field = ""
        self._fields: dict[str, bytearray] = {}
        self._filename: str | None = None

    def take(self, events: Iterable[Part | bytes]) -> None:
        """Sort in what has come; raises Invalid."""
        for event in events:
            if isinstance(event, Part):
                self._begin(event)
            elif self._field == "file":
                self.held += event
                if self._upload.size + len(self.held) > self._most:
                    raise _too_large(self._upload.size + len(self.held), self._most)
            else:
                field = self._fields[self._field]
                field += event
                if len(field) > FIELD_BYTES:
                    raise Invalid(f"the field '{self._field[:40]}' is too long", f"at most {FIELD_BYTES} bytes")

    def flush(self) -> None:
        """Write to the disk what is held; raises Invalid when the key has no room for it."""
        self._upload.write(bytes(self.held))
        self.held.clear()
        self._room()

    def told(self, identity: str, at: float) -> dict[str, Any]:
        """The file as the API tells of it; raises Invalid where a field is missing or wrong."""
        if self._filename is None:
            raise Invalid("the form has no file", "send it in the field 'file', with a filename")
        purpose = self._text("purpose")
        if purpose not in PURPOSES:
            raise Invalid(f"'purpose' is '{purpose or ''}'", f"one of: {', '.join(PURPOSES)}")
        seconds = self._text("expires_after[seconds]")
        expires = None
        if seconds is not None:
            if not seconds.isdecimal():
                raise Invalid(f"'expires_after[seconds]' is '{seconds}'", "send a whole number of seconds")
            expires = at + lifetime({"anchor": self._text("expires_after[anchor]"), "seconds": int(seconds)})
        return new_file(at, identity, self._filename, purpose, self._upload.size, expires)

    def _begin(self, part: Part) -> None:
        if part.name in self._fields or (part.name == "file" and self._filename is not None):
            raise Invalid(f"the field '{part.name[:40]}' comes twice", "send it once")
        self._field = part.name
        if part.name == "file":
            self._filename = part.filename or "file"
        else:
            self._fields[part.name] = bytearray()

    def _text(self, name: str) -> str | None:
        found = self._fields.get(name)
        return None if found is None else found.decode(errors="replace").strip()


def lifetime(wanted: object) -> int:
    """Seconds for which a file is kept, from `expires_after` of a request; raises Invalid."""
    if not isinstance(wanted, Mapping) or wanted.get("anchor") != "created_at":
        raise Invalid("the anchor of the time is not 'created_at'", 'send {"anchor": "created_at", "seconds": 3600}')
    seconds = wanted.get("seconds")
    if not isinstance(seconds, int) or not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise Invalid(f"'seconds' is '{seconds}'", f"from {SHORTEST_SECONDS} to {LONGEST_SECONDS}")
    return seconds


def limit_of(query: Query, default: int, most: int) -> int:
    """How many a page shall have; raises Invalid."""
    text = query.get("limit", str(default))
    if not text.isdecimal() or not 1 <= int(text[:9]) <= most:
        raise Invalid(f"'limit' is '{text[:20]}'", f"a whole number from 1 to {most}")
    return int(text[:9])


def after(identities: list[str], cursor: str | None, order: str = "desc") -> list[str]:
    """What follows `cursor`, which need not be there any more: ids are sorted by time."""
    if cursor is None:
        return identities
    return [each for each in identities if (each > cursor if order == "asc" else each < cursor)]


def page(found: Iterable[dict[str, Any]], limit: int) -> dict[str, Any]:
    """The first `limit` of what was found, as OpenAI's API lists it."""
    data: list[dict[str, Any]] = []
    more = False
    for each in found:
        if len(data) == limit:
            more = True
            break
        data.append(each)
    return {
        "object": "list", "data": data, "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None, "has_more": more,
    }  # fmt: skip


def _reader(path: Path) -> BinaryIO:
    return path.open("rb")


async def _pour(file: BinaryIO, size: int, send: Send) -> None:
    left = size
    while left:
        data = await asyncio.to_thread(file.read, min(left, READ_BYTES))
        if not data:
            raise OSError("a stored file is shorter than it was")
        left -= len(data)
        await send({"type": "http.response.body", "body": data, "more_body": left > 0})
    if not size:
        await send({"type": "http.response.body", "body": b""})


def _too_large(size: int, most: int) -> TooLarge:
    return TooLarge(
        f"the file has {size} bytes or more; the most is {most}", "send less, or raise [gateway] file_bytes"
    )
