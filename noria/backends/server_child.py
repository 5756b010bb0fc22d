"""An engine's server in a child process: how it gets its configuration, and how it tells that it answers.

The child is started as `python -m MODULE CONFIG.json PARENT`: CONFIG.json is what the launcher tells it (mode 0600, it
holds the key), PARENT the launcher's process id. Once the server answers, its file `ready` holds {"url": …}; if it
cannot start, {"error": …}, with "hint" and "code" where the error is one of noria's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from noria.backends.child import last_lines, spawn
from noria.errors import Invalid, Unavailable


def launch(module: str, config: BaseModel, folder: Path, log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the server of a module; `folder` has mode 0700, so that nobody else reads the key."""
    file = folder / "config.json"
    file.write_text(config.model_dump_json())
    return spawn((sys.executable, "-m", module, str(file), str(os.getpid())), log=log, env=env)


def report(ready: Path, **state: str) -> None:
    """In the child: write the ready file in one step; a reader sees all of it or none."""
    part = ready.with_suffix(".part")
    part.write_text(json.dumps(state))
    part.replace(ready)


def wait(process: subprocess.Popen[bytes], ready: Path, log: Path, limit: float, name: str) -> str:
    """Address of the server once it answers; `name` says in errors what did not start.

    Raises Invalid where the child says that it never can, Unavailable where it ends or takes more than `limit` seconds.
    """
    end = time.monotonic() + limit
    while not ready.is_file() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    try:
        state = TypeAdapter(dict[str, str]).validate_json(ready.read_bytes())
    except FileNotFoundError:
        over = process.poll()
        state = {"error": f"no answer in {limit:g} s" if over is None else f"it ended with status {over}"}
    except ValidationError as error:
        state = {"error": str(error)}
    if state.get("code") == Invalid.code:
        raise Invalid(state["error"], state["hint"])
    if "url" not in state:
        said = last_lines(log)
        fact = f"{name} did not start: {state.get('error')}"
        raise Unavailable(fact + (f"\n{said}" if said else ""), state.get("hint") or f"its log is {log}")
    return state["url"]
