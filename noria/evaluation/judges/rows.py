"""What is judged: rows of a file, logged traffic, or the answers of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson
from pydantic import Field, ValidationError, model_validator

from noria import prompts
from noria.errors import Invalid, NotFound
from noria.settings import Need
from noria.types import Interaction, Record, Report, digest_of


class JudgeRow(Record):
    """A question with its answer, or with two. `by` says whose answer it is, `conversation` which rows belong together.

    `seconds`, `tokens` and `cost` are what the answer took, where that is known.
    """

    id: str = ""
    question: str
    answer: str = ""
    other: str | None = None
    context: str | None = None
    target: str | None = None
    conversation: str = ""
    by: str = ""
    other_by: str = ""
    seconds: float | None = None
    tokens: int | None = None
    cost: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        """A row without an id is named by its content; one without a conversation is one of its own."""
        if not isinstance(data, dict):
            return data
        content = {name: data.get(name) for name in ("question", "answer", "other", "context", "target")}
        identity = str(data.get("id") or digest_of(content))
        return {**data, "id": identity, "conversation": str(data.get("conversation") or identity)}


class Label(JudgeRow):
    """A row with what a person says: a score on the judge's scale, or 1, 0.5 or 0 for a pair.

    `weight` is the inverse of the chance with which the row was chosen for a label, in any unit.
    """

    score: float
    labeller: str = "a person"
    weight: float = Field(default=1.0, gt=0.0)

    def row(self) -> JudgeRow:
        """The row alone."""
        return JudgeRow.model_validate(self.model_dump(include=set(JudgeRow.model_fields)))

    @model_validator(mode="after")
    def _said(self) -> Self:
        if not self.answer.strip():
            raise ValueError("a label is about an answer, and there is none")
        return self


class _Unlabelled(JudgeRow):
    """A row of a file that may be one of labels."""

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, data: Any) -> Any:
        more = set(Label.model_fields) - set(JudgeRow.model_fields)
        return {name: value for name, value in data.items() if name not in more} if isinstance(data, dict) else data


Row = TypeVar("Row", bound=JudgeRow)


def read_rows(file: Path) -> list[JudgeRow]:
    """The rows of a JSONL file, labelled or not; raises NotFound, and Invalid with the line of the first fault."""
    return [_read(_Unlabelled, line, where) for line, where in _lines(file)]


def read_labels(file: Path) -> list[Label]:
    """The labels of a JSONL file, one line for each row and labeller; raises as `read_rows`."""
    return [_read(Label, line, where) for line, where in _lines(file)]


def from_traffic(interactions: Sequence[Interaction], task: str) -> list[JudgeRow]:
    """The task's answered interactions whose texts were kept; the question is the user's last message."""
    found = []
    for each in interactions:
        asked = [message for message in each.messages if message.get("role") == "user"]
        if each.task != task or each.status != 200 or not each.answer.strip() or not asked:
            continue
        if not prompts.is_text(asked[-1].get("content")):
            continue
        tokens = (each.prompt_tokens or 0) + (each.completion_tokens or 0)
        found.append(
            JudgeRow(
                id=each.id, question=prompts.text_of(asked[-1].get("content")), answer=each.answer,
                context=each.context, conversation=each.conversation, by=each.served_by, seconds=each.seconds,
                tokens=tokens, cost=each.cost,
            )
        )  # fmt: skip
    return found


def from_report(report: Report, pairs: bool) -> list[JudgeRow]:
    """The answers of both sides of a report: as pairs, the candidate's first, or one after the other."""
    old, new = str(report.champion.ref), str(report.candidate.ref)
    found = []
    for row in report.rows:
        base = {"question": row.question, "target": row.target, "conversation": row.conversation}
        if pairs:
            said = {"answer": row.candidate, "other": row.champion, "by": new, "other_by": old}
            found.append(JudgeRow.model_validate({**base, **said, "id": row.id}))
            continue
        for by, answer in ((old, row.champion), (new, row.candidate)):
            found.append(JudgeRow.model_validate({**base, "answer": answer, "by": by, "id": f"{row.id}-{by[-16:]}"}))
    return found


def check(rows: Sequence[JudgeRow], wants: Sequence[Need], pairs: bool, where: str) -> None:
    """Raise Invalid for the first row that lacks what the judge needs."""
    if not rows:
        raise Invalid(f"there is nothing to judge in {where}", 'such as {"question": "…", "answer": "…"}')
    for number, row in enumerate(rows, 1):
        needed = ("answer", *(("other",) if pairs else ()), *wants)
        if missing := [name for name in needed if not (getattr(row, name) or "").strip()]:
            raise Invalid(
                f"row {number} of {where} has no '{missing[0]}', which this judge needs",
                "give it, or set `needs` in the judge's table",
            )


def _lines(file: Path) -> Iterator[tuple[bytes, str]]:
    if not file.is_file():
        raise NotFound(f"there is no file '{file}'", "one JSON object a line, with question and answer")
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if line.strip():
            yield line, f"{file.name}:{number}"


def _read(model: type[Row], line: bytes, where: str) -> Row:
    try:
        return model.model_validate(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        raise Invalid(f"not JSON: {error}", "one object a line", where=where) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the row"
        reason = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        raise Invalid(f"'{field}': {reason}", "correct that line", where=where) from error
