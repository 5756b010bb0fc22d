"""Dialogues: what was said becomes one row per question and its answer, with what was said before."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from noria.lake.rows import Fault, Item, Row, Skip, broken
from noria.names import digest_of

HISTORY = 20
"""Most turns before a question that its row keeps, so that a dialogue's rows grow with its length, not its square."""

SILENCE = 4 * 3600.0
"""Seconds without a message after which people start another dialogue."""

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said; an answer that is not `taught` is history for later ones only."""

    role: Role
    text: str
    offset: int
    taught: bool = True


@dataclass(frozen=True, slots=True)
class Said:
    """What one person said, and when in seconds; `speakers` are all names that the person goes by."""

    speakers: tuple[str, ...]
    text: str
    offset: int
    at: float = 0.0


def pairs(turns: Sequence[Turn], conversation: str | None = None, fields: dict[str, str] | None = None) -> list[Item]:
    """One row per question and its answer, with the fields `question`, `answer` and `history`.

    `history` is JSON: the turns before the question, `{"role": …, "content": …}`, oldest first, HISTORY at most.
    Turns of one side in a row are one turn. System prompts are in the field `system`. Without a `conversation` the
    dialogue is named by its content, so that copies belong together.
    """
    said = [turn for turn in turns if turn.text.strip() or not turn.taught]
    for turn in said:
        if reason := broken(turn.text):
            return [Fault(turn.offset, reason)]
    system = "\n".join(turn.text.strip() for turn in said if turn.role == "system")
    merged = [_one(list(group)) for _, group in groupby(_without_system(said), key=lambda turn: turn.role)]
    given = conversation if conversation and not broken(conversation) else None
    name = given or digest_of(["conversation", *(turn.text for turn in said)])
    more = {**({"system": system} if system else {}), **(fields or {})}
    return list(_rows(merged, name, more))


def heard(said: Sequence[Said], assistants: Collection[str]) -> list[Turn]:
    """Turns of a dialogue between people: those of `assistants` answer; without any, who speaks first asks."""
    first = said[0].speakers if said else ()

    def role(speakers: tuple[str, ...]) -> Role:
        answers = not set(assistants).isdisjoint(speakers) if assistants else speakers != first
        return "assistant" if answers else "user"

    return [Turn(role(one.speakers), one.text, one.offset) for one in said]


def by_silence(said: Sequence[Said]) -> Iterator[list[Said]]:
    """Dialogues: what was said in order of time, parted where nobody spoke for SILENCE."""
    current: list[Said] = []
    for one in said:
        if current and one.at - current[-1].at > SILENCE:
            yield current
            current = []
        current.append(one)
    if current:
        yield current


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    return [turn for turn in turns if turn.role != "system"]


def _one(group: list[Turn]) -> Turn:
    text = "\n".join(turn.text.strip() for turn in group)
    return Turn(group[0].role, text, group[0].offset, all(turn.taught for turn in group))


def _rows(turns: list[Turn], conversation: str, more: dict[str, str]) -> Iterator[Item]:
    for number, turn in enumerate(turns):
        if turn.role != "user":
            continue
        if number + 1 == len(turns):
            yield Skip("question without an answer")
            continue
        answer = turns[number + 1]
        if not (turn.taught and answer.taught):
            yield Skip("answer that is not to be learned")
            continue
        before = turns[max(0, number - HISTORY) : number]
        history = json.dumps(
            [{"role": past.role, "content": past.text} for past in before if past.text], ensure_ascii=False
        )
        fields = {"question": turn.text, "answer": answer.text, "history": history, **more}
        yield Row(fields, turn.offset, text=f"{turn.text}\n{answer.text}", conversation=conversation)
