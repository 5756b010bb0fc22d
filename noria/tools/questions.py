"""How well a model uses tools: questions with known calls and answers, scored without a judge."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, ValidationError

from noria.errors import Invalid, NotFound
from noria.names import Record
from noria.ports import Progress
from noria.settings import CallingSettings
from noria.stats.intervals import of_share
from noria.tools.calling import Complete, Dialogue, Form, converse
from noria.tools.toolbox import FAULTS, Toolbox, read

ASPECTS: Final = ("tool", "arguments", "answer", "grounded", "success")
"""In the order in which they are told; `success` is all that apply."""
_REFUSAL: Final = re.compile(
    r"\b(do(es)? not know|don.?t know|doesn.?t know|cannot|can.?t|could not|couldn.?t|unable|not available|unavailable|"
    r"no (tool|information|data|way|record|forecast|access)|not (have|found|find|known|possible|provided)|unknown)\b",
    re.IGNORECASE,
)
_FACTS: Final = re.compile(
    r"\d+(?:[.,]\d+)*"  # numbers
    r"|[A-Za-z]\w*_\w+|[A-Z]+[a-z]+[A-Z]\w*"  # names of columns
    r"|[A-Z\[][A-Za-z0-9@+\-\[\]()=#/\\.]*[=#\[\]()][A-Za-z0-9@+\-\[\]()=#/\\.]*"  # SMILES
)


class Wanted(Record):
    """A call that the question needs: the arguments that count, and what its result must contain.

    Texts are compared without case. Arguments that may be written in many ways, such as SQL, are judged by `gives`.
    """

    name: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    gives: tuple[str, ...] = ()


class Question(Record):
    """A question with what is right.

    `says` are texts that the answer must contain, alternatives between bars; `never` texts that it must not. `also`
    are tools that may be called beside those wanted. `tools` are the patterns of those that are offered. The answer to
    a question of kind absent is that it cannot be known.
    """

    id: str
    kind: Literal["date", "weather", "chain", "table", "query", "none", "absent"]
    question: Annotated[str, Field(min_length=1)]
    tools: tuple[str, ...] = ("*",)
    calls: tuple[Wanted, ...] = ()
    also: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


class Scored(Record):
    """What came of one question; `arguments` is None where no call is wanted."""

    id: str
    kind: str
    tool: bool
    arguments: bool | None
    answer: bool
    grounded: bool
    ended: str
    said: str | None
    called: tuple[str, ...]

    @property
    def success(self) -> bool:
        """Whether all that applies is right."""
        return self.tool and self.arguments is not False and self.answer and self.grounded


def read_questions(file: Path) -> list[Question]:
    """Questions of a JSONL file; raises NotFound, and Invalid with the line."""
    if not file.is_file():
        raise NotFound(f"there is no file '{file}'", "such as examples/tools/questions.jsonl")
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(Question.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the line"
            raise Invalid(f"'{place}': {first['msg']}", "correct that line", where=f"{file.name}:{number}") from error
    if not found:
        raise Invalid(f"'{file}' holds no questions", "one JSON object a line")
    return found


def measure(
    ask: Complete,
    toolbox: Toolbox,
    questions: Sequence[Question],
    limits: CallingSettings,
    form: Form,
    progress: Progress,
) -> list[tuple[Scored, Dialogue]]:
    """Ask every question with the tools that it offers; raises what `ask` raises, NotFound for a missing tool."""
    found = []
    for done, each in enumerate(questions):
        progress.update("questions", done, len(questions), each.id)
        turns = [{"role": "user", "content": each.question}]
        dialogue = converse(ask, toolbox.only(each.tools), turns, limits, form, f"question {each.id}")
        found.append((score(each, dialogue), dialogue))
    progress.update("questions", len(questions), len(questions))
    return found


def score(question: Question, dialogue: Dialogue) -> Scored:
    """Judge a dialogue.

    `tool`: the wanted tools were called, in order, and none besides `also`. `arguments`: each wanted call went well,
    with what counts. `answer`: it says what it must. `grounded`: it has no number, column or SMILES that stands neither
    in the question nor in a tool's name or result.
    """
    names = [each.name for each in dialogue.made if each.outcome != "repeated"]
    wanted = [each.name for each in question.calls]
    others = [name for name in names if name not in question.also or name in wanted]
    text = (dialogue.answer or "").casefold()
    says = all(any(part.casefold() in text for part in each.split("|")) for each in question.says)
    refused = question.kind != "absent" or bool(_REFUSAL.search(dialogue.answer or ""))
    return Scored(
        id=question.id,
        kind=question.kind,
        tool=_in_order(wanted, others) and set(others) <= set(wanted),
        arguments=all(_made(each, dialogue) for each in question.calls) if question.calls else None,
        answer=dialogue.answer is not None
        and says
        and refused
        and not any(each.casefold() in text for each in question.never),
        grounded=not invented(dialogue.answer or "", [question.question, *names, *dialogue.results]),
        ended=dialogue.ended,
        said=dialogue.answer,
        called=tuple(f"{each.name} {each.arguments} {each.outcome}" for each in dialogue.made),
    )


def invented(answer: str, known: Sequence[str]) -> list[str]:
    """Numbers, names of columns and SMILES of an answer that none of the texts has."""
    there = "\n".join(known).casefold()
    # Thousands are written with a comma and without.
    there += there.replace(",", "")
    facts = [found.rstrip(".,") for found in _FACTS.findall(answer)]
    return [each for each in facts if each.casefold() not in there and each.replace(",", "") not in there]


def rates(scored: Sequence[Scored], confidence: float = 0.95) -> dict[str, dict[str, dict[str, JsonValue]]]:
    """By kind of question and by aspect: how many are right of how many, the share, and Wilson's interval of it."""
    kinds = {"all": list(scored)}
    for each in scored:
        kinds.setdefault(each.kind, []).append(each)
    return {kind: _aspects(rows, confidence) for kind, rows in kinds.items()}


def _aspects(rows: Sequence[Scored], confidence: float) -> dict[str, dict[str, JsonValue]]:
    found: dict[str, dict[str, JsonValue]] = {}
    for aspect in ASPECTS:
        values = [getattr(each, aspect) for each in rows if getattr(each, aspect) is not None]
        if values:
            low, high = of_share(sum(values), len(values), confidence)
            share = round(sum(values) / len(values), 4)
            found[aspect] = {"right": sum(values), "of": len(values), "share": share, "low": low, "high": high}
    return found


def _in_order(wanted: Sequence[str], names: Sequence[str]) -> bool:
    left = iter(names)
    return all(name in left for name in wanted)


def _made(wanted: Wanted, dialogue: Dialogue) -> bool:
    for each in dialogue.made:
        if each.name != wanted.name or each.outcome in FAULTS:
            continue
        given = read(each.arguments) or {}
        if _agree(wanted.arguments, given) and all(part.casefold() in each.result.casefold() for part in wanted.gives):
            return True
    return False


def _agree(wanted: Mapping[str, JsonValue], given: Mapping[str, JsonValue]) -> bool:
    return all(name in given and _plain(given[name]) == _plain(value) for name, value in wanted.items())


def _plain(value: JsonValue) -> JsonValue:
    return value.casefold().strip() if isinstance(value, str) else value
