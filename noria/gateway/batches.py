"""The Batch API (`/v1/batches`), as the official clients speak it. The work is done by `batchwork`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Final

import orjson

from noria.errors import Invalid, NotFound
from noria.gateway.batchstore import BatchStore
from noria.gateway.files import Query, after, lifetime, limit_of, page
from noria.gateway.filestore import FileStore
from noria.gateway.wire import Receive, Send, WrongMethod, answer, read_body, read_object
from noria.ports import Clock
from noria.settings import GatewaySettings
from noria.types import new_id

PAGE: Final = 20
LONGEST_PAGE: Final = 100
_WINDOW = re.compile(r"([1-9]\d{0,2})([hd])")
_MOST_DAYS: Final = 30


class BatchDesk:
    """Serves the Batch API to a key, which sees its own batches only. `created` is called for each new one."""

    def __init__(
        self, store: BatchStore, files: FileStore, clock: Clock, endpoints: Collection[str], created: Callable[[], None]
    ) -> None:
        self._store = store
        self._files = files
        self._clock = clock
        self._endpoints = endpoints
        self._created = created

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
        """Serve one request; `path` is what follows `/v1/batches`. Raises NoriaError."""
        if not path and method == "POST":
            wanted = read_object(await read_body(headers, receive, rules.body_bytes))
            told = await asyncio.to_thread(self._create, owner, wanted)
            self._created()
        elif not path and method == "GET":
            told = await asyncio.to_thread(self._list, owner, query)
        elif not path:
            raise WrongMethod(f"'/v1/batches' does not take {method}", "use GET or POST", allow="GET, POST")
        elif len(path) > 2 or path[1:] not in ([], ["cancel"]):
            raise NotFound("there is no such path of a batch", "known are: /v1/batches/ID, /v1/batches/ID/cancel")
        elif method != ("POST" if path[1:] else "GET"):
            allow = "POST" if path[1:] else "GET"
            raise WrongMethod(f"this path of a batch does not take {method}", f"use {allow}", allow=allow)
        else:
            if path[1:]:
                now = self._clock.now().timestamp()
                await asyncio.to_thread(self._store.cancel, owner, path[0], now)
            told = await asyncio.to_thread(self._store.told, owner, path[0])
        await answer(send, 200, orjson.dumps(told))

    def _create(self, owner: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        endpoint, window = wanted.get("endpoint"), _window(wanted.get("completion_window"))
        if endpoint not in self._endpoints:
            raise Invalid(f"'endpoint' is '{endpoint}'", f"one of: {', '.join(sorted(self._endpoints))}")
        identity = wanted.get("input_file_id")
        if not isinstance(identity, str):
            raise Invalid("'input_file_id' is missing", "upload a file first: POST /v1/files")
        metadata = _metadata(wanted.get("metadata"))
        expiry = wanted.get("output_expires_after")
        kept = None if expiry is None else lifetime(expiry)
        at = self._clock.now()
        now = at.timestamp()
        file = self._files.get(owner, identity, now)
        if file["purpose"] != "batch":
            raise Invalid(f"the file's purpose is '{file['purpose']}'", "upload it with the purpose 'batch'")
        told = {
            "id": f"batch_{new_id(at).replace('-', '')}", "object": "batch", "endpoint": endpoint, "model": None,
            "errors": None, "input_file_id": identity, "completion_window": wanted["completion_window"],
            "status": "validating", "output_file_id": None, "error_file_id": None, "created_at": int(now),
            "in_progress_at": None, "expires_at": int(now) + window, "finalizing_at": None, "completed_at": None,
            "failed_at": None, "expired_at": None, "cancelling_at": None, "cancelled_at": None,
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "usage": None, "metadata": metadata,
        }  # fmt: skip
        self._store.create(owner, told, self._files.path(owner, identity, now), kept)
        return told

    def _list(self, owner: str, query: Query) -> dict[str, Any]:
        limit = limit_of(query, PAGE, LONGEST_PAGE)
        found = []
        for identity in after(self._store.identities(owner), query.get("after")):
            # It may be on its way in or out.
            with suppress(NotFound):
                found.append(self._store.told(owner, identity))
            if len(found) > limit:
                break
        return page(found, limit)


def _window(text: object) -> int:
    """Seconds of a completion window: `24h` as OpenAI's, or any other number of hours or days."""
    found = _WINDOW.fullmatch(text) if isinstance(text, str) else None
    seconds = int(found[1]) * (3600 if found[2] == "h" else 86400) if found else 0
    if not 0 < seconds <= _MOST_DAYS * 86400:
        raise Invalid(
            f"'completion_window' is '{text}'", f"24h, or another one such as 2h or 7d, at most {_MOST_DAYS}d"
        )
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
