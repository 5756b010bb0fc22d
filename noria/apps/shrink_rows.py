"""Rows with which a smaller model is calibrated and measured: a file's, a data set's, or noria's own."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from noria import cycle
from noria.backends.shrink_job import TextRow
from noria.errors import Invalid, NoriaError, NotFound
from noria.messages import Message
from noria.names import Ref
from noria.ports import Platform

MEASURED, CALIBRATING = 16, 64
"""Rows at the most."""
_WANTED = '{"question": "…", "answer": "…"}, {"messages": […]} or {"text": "…"}'


@dataclass(frozen=True, slots=True)
class Rows:
    """What is measured with, and what is calibrated with: no row is both. `origin` says where they are from."""

    measured: tuple[TextRow, ...]
    calibrating: tuple[TextRow, ...]
    origin: str


def rows_of(text: str | None, platform: Platform | None, task: str | None) -> Rows:
    """The rows of a JSONL file, of `dataset:NAME@DIGEST`, of the task's latest data set, or noria's forty questions.

    Of a data set only training rows are taken: the sealed ones are for the gate, which counts who looks at them.
    Raises NotFound, Invalid.
    """
    if text is None and task is not None and platform is not None:
        found, origin = _of_task(platform, task)
    elif text is not None and text.startswith("dataset:") and platform is not None:
        found, origin = _of_dataset(platform, text), text
    elif text is not None:
        found, origin = _of_file(Path(text)), Path(text).name
    else:
        found, origin = _own(), "everyday questions"
    every = [*islice(found, 2 * CALIBRATING)]
    if len(every) < 2:
        raise Invalid(f"'{origin}' has {len(every)} rows, and two are the least", "give more rows: --rows FILE.jsonl")
    return Rows(tuple(every[::2][:MEASURED]), tuple(every[1::2][:CALIBRATING]), origin)


def _own() -> Iterator[TextRow]:
    text = (files("noria.evaluation") / "everyday.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        yield TextRow(messages=(Message(role="user", content=row["question"]),), answer=row["answer"])


def _of_task(platform: Platform, task: str) -> tuple[Iterator[TextRow], str]:
    try:
        ref = cycle.latest(platform, task, "dataset").ref
    except NotFound:
        return _own(), "everyday questions"
    return _of_dataset(platform, str(ref)), str(ref)


def _of_dataset(platform: Platform, text: str) -> Iterator[TextRow]:
    import pyarrow.parquet as pq

    try:
        ref = Ref.parse(text)
    except ValueError as error:
        raise Invalid(str(error), "such as dataset:helpdesk@0123456789abcdef, or a JSONL file") from error
    task = platform.settings.tasks.get(ref.name)
    system = [Message(role="system", content=task.system)] if task is not None and task.system else []
    for row in pq.read_table(platform.lake.path(ref) / "train.parquet").to_pylist():
        messages = [Message.model_validate(each) for each in json.loads(row["messages"])]
        yield TextRow(messages=(*system, *messages), answer=row["target"])


def _of_file(file: Path) -> Iterator[TextRow]:
    if not file.is_file():
        raise NotFound(f"there is no file '{file}'", f"a JSONL file whose lines are {_WANTED}")
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            yield _row(line, f"{file.name}:{number}")


def _row(line: str, where: str) -> TextRow:
    try:
        told = json.loads(line)
        return _read(told)
    except NoriaError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"'{line[:60]}' is no row", f"such as {_WANTED}", where=where) from error


def _read(told: Mapping[str, Any]) -> TextRow:
    if told.get("text"):
        return TextRow(text=str(told["text"]))
    if "messages" in told:
        messages = [Message(role=each["role"], content=each["content"]) for each in told["messages"]]
        last = messages.pop().content if messages[-1].role == "assistant" else str(told.get("answer", ""))
        return TextRow(messages=tuple(messages), answer=last)
    question = told.get("question") or told["prompt"]
    answer = told.get("answer") or told.get("completion") or ""
    return TextRow(messages=(Message(role="user", content=str(question)),), answer=str(answer))
