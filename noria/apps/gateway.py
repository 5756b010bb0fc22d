"""The gateway's process: `python -m noria.apps.gateway --state DIR --host H --port P`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
import uvloop

from noria import pseudonyms
from noria.apps import port as ports
from noria.apps.logs import configure
from noria.backends.clock import SystemClock
from noria.errors import NoriaError, Unavailable
from noria.gateway.app import Place, build
from noria.gateway.edge import Edge
from noria.gateway.limits import Ledger
from noria.gateway.snapshot import SnapshotFile
from noria.gateway.spans import Exporter
from noria.ports import Index
from noria.traffic.segments import SegmentWriter

DRAIN_SECONDS = 20
_PR_SET_PDEATHSIG = 1


class GatewayServer(uvicorn.Server):
    """uvicorn's server, which says when it listens and stops when its parent is gone."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None], parent: int) -> None:
        super().__init__(config)
        self._on_listening = on_listening
        self._parent = parent

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Of uvicorn."""
        _require_fast_stack(self.config)
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        # What a request allocates is freed by reference counts; the collector has next to nothing to find.
        gc.set_threshold(50_000, 50, 50)
        self._on_listening()

    async def on_tick(self, counter: int) -> bool:
        """Of uvicorn, ten times a second: whether to stop."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in [each for each in self.server_state.connections if isinstance(each, Edge)]:
                connection.check(now)
        return await super().on_tick(counter) or os.getppid() != self._parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; returns the exit status."""
    options = _options(arguments)
    configure(options.worker)
    try:
        _die_with(options.parent)
        with contextlib.closing(ports.listen(options.host, options.port, options.workers is not None)) as listener:
            serve(options.state, listener, options.parent, options.worker, options.workers or 1)
    except NoriaError as error:
        hint = f"; {error.hint}" if error.hint else ""
        sys.stderr.write(f"noria: {error.fact}{hint}\n")
        return 1
    return 0


def serve(state: Path, listener: socket.socket, parent: int, worker: int, workers: int) -> None:
    """Serve on a listening socket as one of so many workers; writes its address to `gateway.url`. Raises NoriaError.

    After SIGTERM or SIGINT no connection is taken any more and requests in flight have DRAIN_SECONDS to finish.
    """
    snapshots = SnapshotFile(state / "snapshot.json", _open_index)
    secret = pseudonyms.read(state / "secret")
    with contextlib.ExitStack() as stack:
        recorder = stack.enter_context(_open_segments(state / "segments"))
        limits = stack.enter_context(contextlib.closing(Ledger(state / "limits.bin", worker, alone=workers == 1)))
        config = uvicorn.Config(
            build(snapshots, recorder, limits, SystemClock(), secret, Place(state / "workers", worker), _open_exporter),
            http=Edge, ws="none", lifespan="on", interface="asgi3", access_log=False, log_config=None,
            log_level="warning", server_header=False, proxy_headers=False, backlog=ports.BACKLOG,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )  # fmt: skip
        server = GatewayServer(config, lambda: _write_url(state / "gateway.url", listener), parent)
        # uvicorn raises the signal that ended it once more when it is done; the recorder must be closed all the same.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.serve(sockets=[listener]))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="noria-gateway", description="The OpenAI-compatible data plane of noria.")
    parser.add_argument("--state", type=Path, required=True, help="folder with snapshot.json, secret and segments")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--worker", type=int, default=0, help="number of this one of several workers, from 0")
    parser.add_argument("--workers", type=int, help="how many share the port; without it, nobody does")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process to die with (default: the starter)")
    return parser.parse_args(arguments)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process with its parent; raises Unavailable when that is gone already.

    The kernel's parent is the thread that started this process: a starter must not let that thread end.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise Unavailable(f"the starting process {parent} is gone", "start noria up again")


def _open_index(folder: Path) -> Index:
    from noria.backends.fts import Indexes

    return Indexes().open(folder)


def _open_exporter(address: str) -> Exporter:
    from noria.backends import otlp

    return otlp.open(address)


def _open_segments(folder: Path) -> SegmentWriter:
    try:
        return SegmentWriter(folder)
    except OSError as error:
        raise Unavailable(f"'{folder}' cannot be written: {error.strerror}", "check its owner and disk") from error


def _write_url(file: Path, listener: socket.socket) -> None:
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_text(ports.url_of(listener))
    fresh.replace(file)


def _require_fast_stack(config: uvicorn.Config) -> None:
    """Refuse to serve on uvicorn's slow fall-backs, which it takes without a word."""
    if config.http_protocol_class is not Edge:
        raise Unavailable("uvicorn does not use the gateway's protocol", "install the version in constraints.txt")
    if not isinstance(asyncio.get_running_loop(), uvloop.Loop):
        raise Unavailable("the event loop is not uvloop's", "pip install uvloop")


if __name__ == "__main__":
    sys.exit(main())
