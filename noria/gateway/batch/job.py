"""One batch while it is worked on: which lines are left, and the answers, which go to the disk one by one.

What is in the output and error files was answered and is not asked again; a last line that a kill has torn is cut off.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from noria.gateway.batch.files import FileStore, new_file
from noria.gateway.batch.lines import Check, Fault, Line, answered, read_line, unanswered, usage_of
from noria.gateway.batch.store import BatchStore
from noria.ports import Clock
from noria.types import new_id

PIECE_BYTES: Final = 256 * 1024
"""An input file is read in pieces of about this size."""
ENVELOPE_BYTES: Final = 4096
"""What a line may have besides the body of its request."""
TRIES: Final = 4
"""How often a line is asked whose engine answers with 500, 502 or 504."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
PROGRESS_SECONDS: Final = 0.5
"""How old the counts that the API tells may be. Those of the work itself are in the files of answers."""
LONGEST_WAIT: Final = 300.0
"""Seconds: a limit may be raised before a caller's allowance has come back."""
_BUSY: Final = (429, 503)
_FAULTY: Final = (500, 502, 504)


class Job:
    """Blocking; used by one task at a time.

    `due` is when it may be asked on, by a monotonic clock; `running` how many of its lines are being answered; `halted`
    whether no further line shall be asked.
    """

    def __init__(self, store: BatchStore, files: FileStore, clock: Clock, owner: str, record: dict[str, Any]) -> None:
        self.owner = owner
        self.due = 0.0
        self.running = 0
        self.halted = False
        self._store = store
        self._files = files
        self._clock = clock
        self._record = record
        self._told: dict[str, Any] = record["told"]
        self._folder = store.folder(owner, self.id)
        self._again: deque[Line] = deque()
        self._tries: dict[str, int] = {}
        self._pauses = 0
        self._saved = 0.0
        self._done: set[str] = set()
        self._read = False
        self._input: BinaryIO | None = None
        self._results: dict[str, BinaryIO] = {}

    @property
    def id(self) -> str:
        """The batch's id."""
        return str(self._told["id"])

    @property
    def status(self) -> str:
        """As the API tells it, but for `cancelling`."""
        return str(self._told["status"])

    @property
    def endpoint(self) -> str:
        """The path that its requests are for."""
        return str(self._told["endpoint"])

    @property
    def trainable(self) -> bool:
        """Whether may be learned from its lines."""
        return bool(self._record["trainable"])

    @property
    def exhausted(self) -> bool:
        """Whether every line was handed out."""
        return self._read and not self._again

    def ready(self, now: float) -> bool:
        """Whether a line of it may be asked now."""
        return not self.halted and self.due <= now and not self.exhausted

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for its cancellation."""
        return self._store.cancelling(self.owner, self.id) is not None

    @property
    def late(self) -> bool:
        """Whether its completion window is over."""
        return bool(self._now() >= self._told["expires_at"])

    def pieces(self, most: int) -> Generator[list[tuple[bytes, bool]], None, None]:
        """The input's lines, some at a time, and whether each came to its end within `most` bytes of body."""
        longest = most + ENVELOPE_BYTES
        with (self._folder / "input.jsonl").open("rb") as file:
            while True:
                found: list[tuple[bytes, bool]] = []
                size = 0
                while size < PIECE_BYTES and (text := file.readline(longest + 1)):
                    size += len(text)
                    found.append((text, len(text) <= longest))
                if not found:
                    return
                yield found

    def checked(self, check: Check) -> None:
        """Take over what the validation found: the batch begins, or fails. Raises OSError."""
        if faults := check.finish():
            self.fail(faults)
            return
        self._told |= {"status": "in_progress", "in_progress_at": int(self._now()), "model": check.model}
        self._told["request_counts"]["total"] = len(check.seen)
        self._record["results"] = [f"file-{new_id(self._clock.now()).replace('-', '')}" for _ in range(2)]
        self._save()

    def open(self) -> None:
        """Find out what was answered before, and be ready for the rest; raises OSError."""
        self.close()
        counts, usage = self._told["request_counts"], [0, 0]
        self._done.clear()
        for name, counted in (("output", "completed"), ("errors", "failed")):
            path = self._folder / f"{name}.jsonl"
            before = len(self._done)
            self._done.update(_recover(path, usage if name == "output" else [0, 0]))
            counts[counted] = len(self._done) - before
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._results[name] = os.fdopen(fd, "ab", 0)
        self._told["usage"] = _usage(*usage)
        self._input = (self._folder / "input.jsonl").open("rb")
        self._read = False
        self._save()

    def close(self) -> None:
        """Let go of its files."""
        for file in (*self._results.values(), *([] if self._input is None else [self._input])):
            file.close()
        self._results, self._input = {}, None

    def next(self) -> Line | None:
        """A line that is to be asked, or None when there is none for now."""
        if self._again:
            return self._again.popleft()
        while not self._read and self._input is not None:
            text = self._input.readline()
            if not text:
                self._read = True
            elif text.strip() and (line := read_line(text)).custom_id not in self._done:
                return line
        return None

    def back(self, line: Line) -> None:
        """A line was not asked after all."""
        self._again.appendleft(line)

    def took(self, line: Line, status: int, wait: float, request: str, body: bytes, now: float) -> None:
        """Write an answer down, or see to it that the line is asked again; raises OSError, and then it is.

        `wait` is what the answer's retry-after says (seconds), `now` the time of the clock that `due` is by.
        """
        tries = self._tries[line.custom_id] = self._tries.get(line.custom_id, 0) + (status in _FAULTY)
        if status in _BUSY or (status in _FAULTY and tries < TRIES):
            self._pauses += 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._pauses - 1, 10))
            self.due = max(self.due, now + min(LONGEST_WAIT, max(wait, pause)))
            self._again.append(line)
            return
        try:
            self._write(status == 200, answered(line.custom_id, status, request, body))
        except OSError:
            self.due = now + FIRST_PAUSE
            self._again.append(line)
            raise
        self._pauses = 0
        self._tries.pop(line.custom_id)
        self._done.add(line.custom_id)
        if now - self._saved >= PROGRESS_SECONDS:
            self._saved = now
            self._save()

    def expire(self) -> None:
        """Tell of every line that is left that its time was up; raises OSError."""
        self._told["expired_at"] = self._told["expired_at"] or int(self._now())
        self._save()
        while (line := self.next()) is not None:
            message = "This request could not be executed before the completion window expired."
            self._write(False, unanswered(line.custom_id, "batch_expired", message))
            self._done.add(line.custom_id)

    def finish(self) -> None:
        """Hand over the results and end the batch; raises OSError, and may be called again then."""
        now = int(self._now())
        if self._told["finalizing_at"] is None:
            self._told |= {"status": "finalizing", "finalizing_at": now}
            self._save()
        kept = self._record["kept"]
        expires = None if kept is None else now + kept
        told = ("output_file_id", "error_file_id")
        for (name, file), field, identity in zip(self._results.items(), told, self._record["results"], strict=True):
            if size := os.fstat(file.fileno()).st_size:
                os.fsync(file.fileno())
                told_file = new_file(now, identity, f"{self.id}_{name}.jsonl", "batch_output", size, expires)
                self._files.publish(self.owner, self._folder / f"{name}.jsonl", told_file)
                self._told[field] = identity
        if self._told["errors"] is not None:
            status = "failed"
        elif self._told["expired_at"] is not None:
            status = "expired"
        else:
            status = "cancelled" if self.cancelled else "completed"
        self._end(status)

    def fail(self, faults: list[Fault]) -> None:
        """End the batch for what is wrong with it as a whole, its answers so far handed over; raises OSError."""
        self._told["errors"] = {"object": "list", "data": faults}
        if "results" in self._record:
            self.finish()
        else:
            self._end("failed")

    def drop(self) -> None:
        """End a batch that was cancelled before it began; raises OSError."""
        self._end("cancelled")

    def _end(self, status: str) -> None:
        self.close()
        since = self._store.cancelling(self.owner, self.id)
        if status == "cancelled":
            self._told["cancelling_at"] = since
        self._told |= {"status": status, f"{status}_at": int(self._now())}
        self._save()
        self._store.ended(self.owner, self.id)

    def _write(self, good: bool, text: bytes) -> None:
        file = self._results["output" if good else "errors"]
        size = os.fstat(file.fileno()).st_size
        try:
            written = file.write(text)
            if written != len(text):
                raise OSError("the disk took only a part of an answer")
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise
        self._told["request_counts"]["completed" if good else "failed"] += 1
        if good:
            prompt, completion = usage_of(orjson.loads(text))
            usage = self._told["usage"]
            self._told["usage"] = _usage(usage["input_tokens"] + prompt, usage["output_tokens"] + completion)

    def _save(self) -> None:
        self._store.write(self.owner, self._record)

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _recover(path: Path, usage: list[int]) -> Iterator[str]:
    """The custom_ids in a file of answers, whose tokens are added to `usage`; its torn end is cut off."""
    if not path.exists():
        return
    whole = 0
    with path.open("r+b") as file:
        for text in file:
            try:
                found = orjson.loads(text) if text.endswith(b"\n") else None
            except orjson.JSONDecodeError:
                found = None
            if found is None:
                break
            whole += len(text)
            prompt, completion = usage_of(found)
            usage[0] += prompt
            usage[1] += completion
            yield found["custom_id"]
        file.truncate(whole)


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    """As `BatchUsage`."""
    return {
        "input_tokens": prompt, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": prompt + completion,
    }  # fmt: skip
