"""Work in a child process, whose memory goes when it ends: the launcher's half and the child's.

The child is started as `python -m MODULE JOB.json PARENT`: JOB.json is its job, PARENT the launcher's process id. Its
standard output carries one JSON object a line, last of all {"result": …} or {"error", "hint", "code"}. What libraries
print goes to standard error.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from noria.backends.child import last_lines, stop
from noria.backends.scratch import temporary
from noria.errors import Invalid, NoriaError, Unavailable
from noria.settings import child_environment, environment

GRACE = 2.0
"""Seconds that an interrupted worker has to end by itself."""
Say = Callable[[dict[str, JsonValue]], None]


def run(
    module: str,
    job: BaseModel,
    heard: Callable[[dict[str, Any]], None],
    word: str,
    variables: Mapping[str, str] | None = None,
) -> dict[str, JsonValue]:
    """Run a job to its end; `heard` gets every line, `word` says in errors what the process is for.

    `variables` stand in its environment beside those of every worker.

    Raises Invalid where the same job cannot succeed, Unavailable when the worker was killed, the disk is full or a
    package is missing.
    """
    with temporary("noria-worker.") as folder:
        file, log = folder / "job.json", folder / "log"
        file.write_text(job.model_dump_json())
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(file), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**_environment(), **(variables or {})},
                start_new_session=True,
            )
        try:
            last = _listen(process, heard)
            status = process.wait()
        finally:
            stop(process, GRACE)
        return _result(status, last, log, word)


def serve(
    do: Callable[[Say], dict[str, JsonValue]], speaks: Callable[[], bool] = lambda: True, extra: str = "train"
) -> int:
    """Do the child's work and say what came of it; returns the exit status. Nothing is said where it `speaks` not.

    `extra` is what brings the packages that the work needs.
    """
    # Libraries print to standard output as they like; the launcher reads JSON lines there.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(line: dict[str, JsonValue]) -> None:
        if speaks():
            channel.write(json.dumps(line) + "\n")
            channel.flush()

    def failed(error: NoriaError) -> int:
        say({"error": error.fact, "hint": error.hint, "code": error.code})
        return 1

    try:
        say({"result": do(say)})
    except NoriaError as error:
        return failed(error)
    except ModuleNotFoundError as error:
        return failed(Unavailable(f"'{error.name}' is not installed", f"pip install 'noria[{extra}]'"))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return failed(_full(error))
    return 0


def _full(error: OSError) -> Unavailable:
    place = Path(error.filename).parent if error.filename else "the lake or the project's folder .noria"
    return Unavailable(f"the disk is full: '{place}' could not be written", "free some space, then try again")


def _listen(process: subprocess.Popen[bytes], heard: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Pass progress on until the worker closes its output; returns its last line, empty when there was none."""
    last: dict[str, Any] = {}
    assert process.stdout is not None
    with process.stdout as lines:
        for text in lines:
            # A killed worker may leave half a line.
            with suppress(json.JSONDecodeError):
                last = json.loads(text)
            heard(last)
    return last


def _result(status: int, last: dict[str, Any], log: Path, word: str) -> dict[str, JsonValue]:
    if status == 0 and "result" in last:
        return dict(last["result"])
    if "error" in last:
        kind = Unavailable if last["code"] == Unavailable.code else Invalid
        raise kind(last["error"], last["hint"])
    if status < 0:
        raise Unavailable(
            f"the {word} process was killed by signal {-status}",
            "most often memory ran out: close other programs, or take a smaller model or max_length",
        )
    raise Invalid(
        f"the {word} process failed with status {status}", last_lines(log, 8) or "it said nothing", where=word
    )


def _environment() -> dict[str, str]:
    return child_environment(
        HF_HUB_OFFLINE="1",
        PYTHONWARNINGS="ignore",
        # Threads that spin while they wait make everything crawl when something else needs the same cores.
        GOMP_SPINCOUNT=environment("GOMP_SPINCOUNT", "1000") or "1000",
        # The order of sets must not differ between two runs of the same job.
        PYTHONHASHSEED="0",
        # Rows differ in length: for each length oneDNN and PyTorch keep a kernel with its buffers, 1024 of them unless
        # told otherwise, which took a gigabyte and saved no time.
        ONEDNN_PRIMITIVE_CACHE_CAPACITY="32",
        LRU_CACHE_CAPACITY="32",
        # Glibc's arenas hold what tensors of other sizes cannot use.
        MALLOC_ARENA_MAX="1",
    )
