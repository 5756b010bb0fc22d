"""Taking in an uploaded file: it goes to the disk while it comes, and is forgotten where anything is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from functools import partial
from typing import Any, Final

from noria.errors import Invalid
from noria.gateway.batch.files import FileStore, Upload, new_file
from noria.gateway.batch.form import Form, Part
from noria.gateway.wire import Receive, TooLarge, pieces
from noria.ports import Clock
from noria.settings import GatewaySettings
from noria.types import new_id

PURPOSES: Final = ("batch", "fine-tune", "assistants", "vision", "user_data", "evals")
"""What a client may upload a file for; batches write theirs for `batch_output`."""
FORM_BYTES: Final = 64 * 1024
"""The most that a form may have besides the file."""
FIELD_BYTES: Final = 1024
FLUSH_BYTES: Final = 1024 * 1024
"""An upload is written to the disk in pieces of this size."""
SHORTEST_SECONDS: Final = 3600
LONGEST_SECONDS: Final = 30 * 86400


async def take(
    store: FileStore, owner: str, rules: GatewaySettings, headers: Mapping[bytes, bytes], receive: Receive, clock: Clock
) -> dict[str, Any]:
    """Store the file in a request's form; returns what is told of it. Raises Invalid, ClientGone or OSError."""
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > rules.file_bytes + FORM_BYTES:
        raise _too_large(int(length), rules.file_bytes)
    form = Form(headers.get(b"content-type", b""))
    at = clock.now()
    identity = f"file-{new_id(at).replace('-', '')}"
    room = partial(store.require_room, owner, rules.files_bytes)
    await asyncio.to_thread(room)
    with closing(await asyncio.to_thread(store.begin, owner, identity)) as upload:
        coming = _Coming(upload, rules.file_bytes, room)
        async for piece in pieces(receive):
            coming.take(form.feed(piece))
            if len(coming.held) >= FLUSH_BYTES:
                await asyncio.to_thread(coming.flush)
        form.close()
        await asyncio.to_thread(coming.flush)
        told = coming.told(identity, at.timestamp())
        await asyncio.to_thread(upload.keep, told)
    return told


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


def _too_large(size: int, most: int) -> TooLarge:
    return TooLarge(
        f"the file has {size} bytes or more; the most is {most}", "send less, or raise [gateway] file_bytes"
    )
