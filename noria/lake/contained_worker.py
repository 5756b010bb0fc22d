"""The process that reads files for `contained`: a parser that hangs, crashes or eats memory takes only this one down.

It is given JSON lines: a job, the files of it, the next job. It answers in frames: four bytes each for the lengths of
header and body, a JSON header, and as body rows in JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, BinaryIO

import orjson

from noria.errors import Unavailable
from noria.lake.documents import Job, Maker
from noria.lake.encoding import Recoder
from noria.lake.limited import Input, Offsets, TooMuch
from noria.lake.rows import Fault, Item, Row, Skip
from noria.lake.traits import BINARY, BYTE_OFFSETS, DECLARING

if TYPE_CHECKING:
    from pydantic import JsonValue

    from noria.lake.parsers import Parser

PIECE_OF_TIME = 16 << 20
"""Bytes of a file for each of which it has `limits.seconds` more."""
_LOOK = 0.5


def main() -> None:
    """Read files until standard input ends."""
    threading.Thread(target=_watch, args=(int(sys.argv[1]),), daemon=True).start()
    # What a parser prints, or reads, must not be taken for what this process says.
    orders, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    job, parser = _job(orders.readline(), out)
    for line in orders:
        order = json.loads(line)
        if "file" not in order:
            job, parser = _job(line, out)
            continue
        _bound_time(job.limits.seconds, order["size"])
        _read(job, parser, order["file"], out)


def _job(line: bytes, out: BinaryIO) -> tuple[Job, Parser]:
    job = Job.of(line)
    module, _, name = job.parser.partition(":")
    parser: Parser = partial(getattr(import_module(module), name), **job.options)
    _bound_memory(job.limits.memory_mb << 20)
    _say(out, {"ready": True})
    return job, parser


def _read(job: Job, parser: Parser, path: str, out: BinaryIO) -> None:
    """Send a file's rows, and at last what became of it."""
    recoder = Recoder(job.encoding, job.kind in DECLARING)
    maker = Maker(job, lambda rows: _say(out, {"offset": maker.offset}, orjson.dumps(rows)))
    try:
        with Input(path, job.kind, job.limits) as data:
            for base, piece in data.pieces(recoder):
                for item in _items(job, parser, base, piece, recoder):
                    maker.take(item, data.unpacked)
            digest = data.digest()
        maker.flush()
    except TooMuch as error:
        _say(out, {"fault": error.reason, "offset": maker.offset if error.offset is None else error.offset})
    except MemoryError:
        reason = f"its reader needs more than memory_mb = {job.limits.memory_mb}"
        _say(out, {"fault": reason, "offset": maker.offset, "again": True})
    except Unavailable as error:
        _say(out, {"unavailable": [error.fact, error.hint]})
    except Exception as error:  # noqa: BLE001 - whatever a parser throws is a fault of its file
        said = f"{type(error).__name__}: {error}"[:300].encode("utf-8", "backslashreplace").decode()
        _say(out, {"fault": f"its reader failed: {said}", "offset": maker.offset})
    else:
        first = maker.first or Fault(0, "")
        told: dict[str, JsonValue] = {
            "digest": digest,
            "documents": maker.documents,
            "quarantined": maker.quarantined,
            "offset": first.offset,
            "reason": first.reason,
            "encoding": "" if job.kind in BINARY else recoder.told(),
            "skipped": {**maker.skipped},
            "columns": {**maker.columns.types},
        }
        _say(out, told)


def _items(job: Job, parser: Parser, base: int, piece: bytes | Fault, recoder: Recoder) -> Iterator[Item]:
    if isinstance(piece, Fault):
        yield piece
        return
    told = piece if job.kind in BINARY else recoder.utf8(piece)
    if job.kind not in BYTE_OFFSETS or not (base or recoder.change):
        yield from parser(told)
        return
    offsets = Offsets(base + len(recoder.mark), told, recoder.change if told is not piece else "")
    for item in parser(told):
        if isinstance(item, Row):
            yield Row(item.fields, offsets.of(item.offset), item.text, item.conversation)
        else:
            yield item if isinstance(item, Skip) else Fault(offsets.of(item.offset), item.reason)


def _say(out: BinaryIO, header: Mapping[str, JsonValue], body: bytes = b"") -> None:
    head = json.dumps(header).encode()
    out.write(len(head).to_bytes(4, "big") + len(body).to_bytes(4, "big") + head)
    out.write(body)
    out.flush()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def _bound_memory(most: int) -> None:
    """Limit data memory, counted from what the libraries take already; no core files, and no large ones."""
    taken = 0
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[5]) * resource.getpagesize()
    _bound(resource.RLIMIT_DATA, taken + most)
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_FSIZE, 64 << 20)


def _bound_time(seconds: float, size: int) -> None:
    """A second line behind the parent's watch: the kernel ends a process that spins when nobody watches any more."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _bound(resource.RLIMIT_CPU, 30 + int(usage.ru_utime + usage.ru_stime + 4 * allowed(seconds, size)))


def _bound(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def allowed(seconds: float, size: int) -> float:
    """Seconds that a file of `size` bytes may take."""
    return seconds * (1 + size / PIECE_OF_TIME)
