"""The child process in which llama.cpp's server runs: python -m noria.backends.llamacpp_server CONFIG.json PARENT.

CONFIG.json is a `ServerConfig`; `server_child` says how the launcher hears of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from noria.backends.child import die_with_parent
from noria.backends.server_child import report

HTTP_THREADS = 256
DRAIN = 20.0
"""Most seconds to wait for the answers in flight before the process ends."""


class ServerConfig(BaseModel):
    """What the launcher tells this process. `adapters` are GGUF files; their place in the list is their id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    alias: str
    slots: int
    context: int
    """Tokens per slot."""
    threads: int
    key: str
    adapters: tuple[str, ...]
    ready: str


def start(config: ServerConfig) -> Any:
    """A running xllamacpp.Server on a free port of the loopback; raises RuntimeError when it cannot start."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = config.model
    # Without an alias every answer would show the model file's full path.
    params.model_alias = {config.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config.key]
    params.cors_origins = ""
    params.ui = False
    params.endpoint_metrics = True
    params.n_parallel = config.slots
    # Each request in flight holds a thread, those that wait for a slot too: health must find a free one.
    params.n_threads_http = HTTP_THREADS
    params.n_ctx = config.slots * config.context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config.threads
    # The default is a prompt cache of up to 8 GiB in host memory.
    params.cache_ram_mib = 0
    # Scale 0: an adapter answers only where the request names it.
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in config.adapters]
    params.verbosity = 1
    return xllamacpp.Server(params)


def busy(url: str, key: str) -> bool:
    """Whether a slot is at work; raises OSError when the server does not answer."""
    request = urllib.request.Request(f"{url}/slots", headers={"Authorization": f"Bearer {key}"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=5.0) as response:
        return any(slot["is_processing"] for slot in json.load(response))


def drain(url: str, key: str, limit: float) -> None:
    """Wait until no slot has work, at most `limit` seconds, or until the server answers no more.

    Idle must be seen twice: between two looks a request that waited for a slot gets one, and an answer that was
    just finished reaches its client.
    """
    end = time.monotonic() + limit
    idle = 0
    while idle < 2 and time.monotonic() < end:
        try:
            idle = 0 if busy(url, key) else idle + 1
        except OSError:
            return
        time.sleep(0.05)


def main() -> None:
    """Serve until SIGTERM, then finish what is in flight and end."""
    config = ServerConfig.model_validate_json(Path(sys.argv[1]).read_bytes())
    die_with_parent(int(sys.argv[2]))
    try:
        server = start(config)
    except (RuntimeError, OSError, ImportError) as error:
        report(Path(config.ready), error=str(error))
        sys.exit(1)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    report(Path(config.ready), url=server.listening_address)
    ended.wait()
    drain(server.listening_address, config.key, DRAIN)
    # The server's destructor never returns when a request is in flight or arrives meanwhile.
    os._exit(0)


if __name__ == "__main__":
    main()
