"""AWS Lambda's entry: the data plane for events of API Gateway, function URLs and load balancers, by Mangum.

It forwards to attached engines. A stream arrives in one piece, since Lambda answers once; interactions are in the lake
before the answer leaves, since nothing of a function's disk is sure to be there later.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

from noria import pseudonyms
from noria import settings as reading
from noria.apps.access import write_private
from noria.backends.clock import SystemClock
from noria.backends.fts import Indexes
from noria.deployment.fleet import Fleet
from noria.errors import Invalid, NoriaError, Unavailable
from noria.gateway.app import Gateway, build
from noria.gateway.limits import Ledger
from noria.gateway.snapshot import SnapshotFile
from noria.gateway.wire import CALLER, JSON, Header, Receive, Scope, Send, answer, error_body, error_headers, read_body
from noria.traffic.segments import SegmentWriter
from noria.traffic.ship import ship

PSEUDONYMS: Final = "NORIA_PSEUDONYMS"
"""The variable with the key of pseudonyms, in hexadecimal, which all instances share."""
WRITABLE: Final = Path("/tmp/noria")
FRESH_SECONDS: Final = 10.0
"""Age at which an event has the engines and the ledger looked at again."""
POLLS: Final = 20
"""Looks at the engines before a cold start gives up, a quarter of a second apart."""


class Held:
    """Port `Recorder`: records of one event in memory, until `flush` has them in the lake."""

    def __init__(self, segments: Path, lake: Path) -> None:
        self._segments = segments
        self._lake = lake
        self._records: list[bytes] = []

    def append(self, record: bytes) -> None:
        """Keep one JSON line."""
        self._records.append(record)

    def close(self) -> None:
        """Of Recorder: nothing is open between two events."""

    def flush(self) -> None:
        """Write what is kept as a segment and ship it; raises OSError, and keeps it then."""
        if not self._records:
            return
        with SegmentWriter(self._segments) as writer:
            for record in self._records:
                writer.append(record)
        self._records = []
        ship(self._segments, self._lake)


class Whole:
    """The gateway's `Caller` of one event: takes the answer, or all pieces of a stream, and has it sent at once."""

    def __init__(self, receive: Receive) -> None:
        self.left: Callable[[], None] | None = None
        self.status = 0
        self.headers: list[Header] = []
        self.pieces: list[bytes] = []
        self._receive = receive

    async def body(self, headers: Mapping[bytes, bytes], most: int) -> bytes:
        """Of Caller."""
        return await read_body(headers, self._receive, most)

    def answer(self, status: int, body: bytes, headers: Sequence[Header]) -> None:
        """Of Caller."""
        self.status, self.headers, self.pieces = status, [*headers], [body]

    def begin(self, headers: Sequence[Header]) -> None:
        """Of Caller."""
        self.status, self.headers = 200, [*headers]

    def write(self, piece: bytes) -> None:
        """Of Caller."""
        self.pieces.append(piece)

    def end(self, piece: bytes) -> None:
        """Of Caller."""
        self.pieces.append(piece)

    @property
    def room(self) -> Awaitable[None] | None:
        """Of Caller: there always is."""
        return None


class Function:
    """The ASGI application that Mangum calls: one event, one answer, its record in the lake before it."""

    def __init__(self, gateway: Gateway, held: Held, look: Callable[[], object]) -> None:
        """`look` takes over what has changed, such as keys that were revoked; it may block."""
        self._gateway = gateway
        self._held = held
        self._look = look
        self._looked = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Of ASGI."""
        # Between two events a function is frozen: nothing looks in the background.
        if time.monotonic() - self._looked > FRESH_SECONDS:
            await asyncio.to_thread(self._look)
            self._looked = time.monotonic()
        caller = Whole(receive)
        told: list[dict[str, Any]] = []

        async def keep(event: dict[str, Any]) -> None:
            told.append(event)

        await self._gateway({**scope, "extensions": {CALLER: caller}}, receive, keep)
        try:
            self._held.flush()
        except OSError as error:
            fault = Unavailable(f"the lake takes no record: {error.strerror}", "is its file system mounted?")
            await answer(send, fault.status, error_body(fault), [JSON, *error_headers(fault)])
            return
        if caller.status:
            await answer(send, caller.status, b"".join(caller.pieces), caller.headers)
            return
        for event in told:
            await send(event)


def opened(root: Path) -> Function:
    """The data plane of the project at `root`, whose folder must be writable.

    Raises Invalid where noria.toml launches engines, which a function cannot keep, and Unavailable where none answers.
    """
    from noria.wiring import local_lake, open_platform

    settings = reading.load(root / "noria.toml")
    for name, engine in settings.engines.items():
        if engine.url is None:
            raise Invalid(
                f"engine '{name}' is launched by noria, and a function only attaches", "url = the engine's address",
                where=settings.place("engines", name),
            )  # fmt: skip
    platform, state = open_platform(settings), settings.state
    (state / "segments").mkdir(exist_ok=True)
    faults: list[str] = []
    file = state / "snapshot.json"
    fleet = Fleet(
        platform, lambda snapshot: _keep(file, snapshot.model_dump_json()), lambda *_: True, faults.append,
        time.monotonic,
    )  # fmt: skip
    for _ in range(POLLS):
        fleet.poll()
        if fleet.snapshot.routes:
            break
        time.sleep(0.25)
    else:
        raise Unavailable(f"no engine answers: {faults[-1] if faults else 'none is attached'}", "noria doctor")
    held = Held(state / "segments", local_lake(settings))
    snapshots = SnapshotFile(file, lambda folder: Indexes().open(folder))
    limits = Ledger(state / "limits.bin", 0, alone=True)

    def look() -> None:
        fleet.poll()
        snapshots.refresh()

    return Function(build(snapshots, held, limits, SystemClock(), pseudonyms.read(state / "secret")), held, look)


def share_pseudonyms(state: Path) -> None:
    """Write the key that all instances have where the gateway reads it; raises Invalid without one.

    With a key of its own each instance would give one user another pseudonym.
    """
    text = (reading.environment(PSEUDONYMS) or "").strip()
    if not text:
        raise Invalid(f"the variable '{PSEUDONYMS}' is not set", "all instances share one: openssl rand -hex 32")
    state.mkdir(parents=True, exist_ok=True)
    write_private(state / "secret", text)


def _keep(file: Path, text: str) -> None:
    file.touch(0o600)
    file.write_text(text)


@cache
def _function() -> Callable[[Any, Any], Any]:
    try:
        from mangum import Mangum
        from mangum.types import ASGI
    except ImportError as error:
        raise Unavailable("Lambda needs mangum", "pip install 'noria[lambda]'") from error
    source = Path(reading.environment("LAMBDA_TASK_ROOT") or ".")
    WRITABLE.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "noria.toml", WRITABLE / "noria.toml")
    share_pseudonyms(WRITABLE / ".noria")
    return Mangum(cast(ASGI, opened(WRITABLE)), lifespan="off")


def handler(event: Mapping[str, Any], context: object) -> Any:
    """What Lambda calls: noria.apps.lambda_handler.handler. The first call of an instance opens the project."""
    try:
        return _function()(event, context)
    except NoriaError as error:
        # In OpenAI's shape; Lambda's own error page would say nothing.
        return {"statusCode": error.status, "headers": {"content-type": "application/json"},
                "body": error_body(error).decode()}  # fmt: skip
