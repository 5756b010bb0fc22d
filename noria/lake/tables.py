"""Readers of record files: CSV, JSON, JSON lines and YAML. Every value stays the string that stood in the file."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import yaml

from noria.lake.rows import Fault, Item, Row, Skip, as_text, broken, decode, size

_DELIMITERS = ",;\t|"
_PROBE = 20
_QUOTE = re.compile(r'(?:^|\t)"', re.MULTILINE)


def csv_rows(data: bytes) -> Iterator[Item]:
    """Rows of a CSV file with a header line; the delimiter is found out, the offset is that of the row's first byte.

    A row with more or fewer values than the header is a fault, as is one with a quote that is never closed.
    """
    text, start = decode(data)
    lines = _Lines(text, start)
    yield from _table(lines, csv.reader(lines, delimiter=_delimiter(text), strict=True))


def tsv_rows(data: bytes) -> Iterator[Item]:
    """Rows of a file of tab-separated values with a header line; offsets and faults as in CSV.

    IANA's text/tab-separated-values has no quotes, spreadsheets write them: they count where reading the whole file
    with them gives every row as many values as the header has, and are part of the values otherwise.
    """
    text, start = decode(data)
    lines = _Lines(text, start)
    style: Literal[0, 3] = csv.QUOTE_MINIMAL if _quoted(text) else csv.QUOTE_NONE
    yield from _table(lines, csv.reader(lines, delimiter="\t", quoting=style, strict=True))


def _table(lines: _Lines, reader: Iterator[list[str]]) -> Iterator[Item]:
    header: list[str] | None = None
    while True:
        offset = lines.offset
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Fault(offset, f"not valid CSV: {error}")
            continue
        if not any(value.strip() for value in values):
            continue
        if header is None:
            header = [value.strip() for value in values]
            if twice := [name for name, count in Counter(header).items() if count > 1]:
                yield Fault(offset, f"two columns are called '{twice[0]}'")
                return
        elif len(values) != len(header):
            yield Fault(offset, f"the row has {len(values)} values, the header has {len(header)}")
        else:
            yield _record(dict(zip(header, values, strict=True)), offset)


def json_rows(data: bytes) -> Iterator[Item]:
    """Rows of a JSON file that holds an array of objects, or one object; the offset is the row's number."""
    text, _ = decode(data)
    try:
        value = parse_json(text)
    except ValueError as error:
        yield Fault(0, f"not valid JSON: {error}")
        return
    yield from _records(value)


def jsonl_rows(data: bytes) -> Iterator[Item]:
    """Rows of a file with one JSON object per line; the offset is that of the line's first byte."""
    text, offset = decode(data)
    for line in text.split("\n"):
        if line.strip():
            yield _line(line, offset)
        offset += size(line) + 1


def yaml_rows(data: bytes) -> Iterator[Item]:
    """Rows of a YAML file that holds a list of mappings, one mapping, or conversations.

    `conversations: [[question, answer, question, answer, …], …]` becomes one row per question and its answer, with
    the fields `question` and `answer`; the rows of one list share their conversation.
    """
    text, _ = decode(data)
    if reason := broken(text):
        yield Fault(0, reason)
        return
    try:
        value = yaml.load(text, Loader=_strings())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        yield Fault(mark.index if mark else 0, f"not valid YAML{place}: {getattr(error, 'problem', None) or error}")
        return
    if isinstance(value, dict) and isinstance(value.get("conversations"), list):
        for number, turns in enumerate(value["conversations"]):
            yield from _pairs(turns, number)
    else:
        yield from _records(value)


def _strings() -> Any:
    """A safe loader that makes strings of all scalars but null: `01234`, `1.10` and `no` stay what they are."""
    kept = (":null", ":merge")
    resolvers = {
        first: [rule for rule in rules if rule[0].endswith(kept)]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return type("Strings", (yaml.SafeLoader,), {"yaml_implicit_resolvers": resolvers})


class _Lines:
    """Lines of a text for the CSV reader, knowing at which byte the next one starts."""

    def __init__(self, text: str, start: int) -> None:
        self.offset = start
        self._lines = io.StringIO(text, newline="")

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.offset += size(line)
        return line


def _quoted(text: str) -> bool:
    """Whether the tab-separated values of a text stand in quotes where they need to."""
    if not _QUOTE.search(text):
        return False
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
        return len({len(row) for row in rows if any(value.strip() for value in row)}) == 1
    except csv.Error:
        return False


def _delimiter(text: str) -> str:
    """The delimiter that cuts most of the first lines into as many columns as the header has, two at least."""
    head = text.splitlines()[:_PROBE]

    def score(delimiter: str) -> tuple[int, int]:
        try:
            widths = [len(row) for row in csv.reader(head, delimiter=delimiter) if row]
        except csv.Error:
            return 0, 0
        if not widths or widths[0] < 2:
            return 0, 0
        return sum(width == widths[0] for width in widths), widths[0]

    return max(_DELIMITERS, key=score)


def parse_json(text: str) -> Any:
    """A JSON value; raises ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _line(line: str, offset: int) -> Item:
    if reason := broken(line):
        return Fault(offset, reason)
    try:
        value = parse_json(line)
    except ValueError as error:
        return Fault(offset, f"not valid JSON: {error}")
    if not isinstance(value, dict):
        return Fault(offset, "the line is not a JSON object")
    return _record(value, offset)


def _records(value: object) -> Iterator[Item]:
    rows = value if isinstance(value, list) else [value]
    for number, row in enumerate(rows):
        if isinstance(row, dict):
            yield _record(row, number)
        else:
            yield Fault(number, f"row {number} is not an object with columns")


def _record(row: dict[Any, Any], offset: int) -> Item:
    try:
        fields = {str(name): as_text(value) for name, value in row.items()}
    except (ValueError, RecursionError) as error:
        return Fault(offset, f"a column cannot be written as text: {error}")
    return Row(fields, offset)


def _pairs(turns: object, number: int) -> Iterator[Item]:
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        yield Fault(number, f"conversation {number} is not a list of texts")
        return
    from noria.names import digest_of

    conversation = digest_of(["conversation", *turns])
    for at in range(0, len(turns) - 1, 2):
        yield Row({"question": turns[at], "answer": turns[at + 1]}, number, conversation=conversation)
    if len(turns) % 2:
        yield Skip("last turn without an answer")
