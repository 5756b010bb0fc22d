"""What a request took is given back at its end, not when the garbage collector comes by."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_fakes import FakeEngine, Plane, asking, wait_for

pytestmark = pytest.mark.slow

PROGRAM = """
import collections, gc, json, runpy, signal, sys
def told(*_):
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    found = collections.Counter(type(each).__qualname__ for each in gc.garbage if type(each).__module__ != "builtins")
    gc.set_debug(0)
    gc.garbage.clear()
    with open(sys.argv[sys.argv.index("--state") + 1] + "/garbage.json", "w") as file:
        json.dump(found, file)
signal.signal(signal.SIGUSR2, told)
gc.disable()
runpy.run_module("noria.apps.gateway", run_name="__main__")
"""


def garbage(plane: Plane) -> dict[str, int]:
    assert plane.process is not None
    os.kill(plane.process.pid, signal.SIGUSR2)

    def whole() -> dict[str, int] | None:
        # The handler runs when the event loop wakes up, and the file is there before it is written.
        try:
            return {"": 0, **json.loads((plane.state / "garbage.json").read_text())}
        except (FileNotFoundError, json.JSONDecodeError):
            httpx.get(f"{plane.url}/health")
            return None

    found = wait_for(whole)
    (plane.state / "garbage.json").unlink()
    return {name: count for name, count in found.items() if count >= 10}


def leave(plane: Plane, **more: Any) -> None:
    with plane.client() as client, client.stream("POST", "/v1/chat/completions", json=asking("slow", **more)) as answer:
        next(answer.iter_raw())


def test_requests_leave_nothing_behind(engine: FakeEngine, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    plane = Plane(state)
    plane.program = ("-c", PROGRAM)
    plane.publish(engine.url)
    plane.start()
    try:
        with plane.client() as client:
            assert client.post("/v1/chat/completions", json=asking("hi")).status_code == 200
            garbage(plane)
            for number in range(30):
                assert client.post("/v1/chat/completions", json=asking("hi", stream=number % 2 == 0)).status_code == 200
                assert client.post("/v1/chat/completions", json={"model": "nobody"}).status_code == 404
                with plane.client() as other:
                    assert other.get("/v1/models").status_code == 200
        for _ in range(20):
            leave(plane, stream=True)
        assert garbage(plane) == {}
    finally:
        plane.stop(signal.SIGKILL)
