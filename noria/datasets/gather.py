"""Where examples come from: mapped documents, headings that are questions, and what users said of answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from noria import prompts
from noria.datasets.draft import Draft
from noria.datasets.scrub import Scrubber
from noria.errors import Invalid
from noria.settings import SourceSettings, TaskSettings
from noria.types import Document, Example, Feedback, Interaction, Message, digest_of

CORRECTION, THUMBS = "traffic:correction", "traffic:thumbs"
HEADINGS = {"question": "heading", "answer": "body"}
"""The fields that readers of pages give, as a map."""

FREE = 10
"""Rows that one user may give whatever the share of them."""

_ASKS = "?\uff1f\u061f\u037e\u2047\u2049\u203d"
"""What ends a question: question marks of Latin, CJK, Arabic and Greek."""


def from_documents(documents: Iterable[Document], source: SourceSettings, task: TaskSettings) -> Iterator[Draft]:
    """Examples of one source by its map, `limit` at most, those with the smallest document ids.

    `documents` come scrubbed and in order of their ids; one without a question or an answer gives nothing, and where
    headings are the questions, one whose heading asks nothing. A field `history` holds the messages before the
    question, as a JSON list of objects with role and content.
    """
    columns = source.map or HEADINGS
    left = source.limit
    for document in documents:
        question = document.fields.get(columns["question"], "").strip()
        answer = document.fields.get(columns["answer"], "").strip()
        if not question or not answer or not (source.map or is_question(question)):
            continue
        if left is not None:
            if not left:
                return
            left -= 1
        before = () if "history" in columns.values() else _history(document.fields.get("history", ""))
        example = as_example(
            f"source:{source.name}",
            source.slice,
            document.conversation,
            (*before, Message(role="user", content=question)),
            prompts.shorten(answer, task.answer_chars),
            document.id,
        )
        user = document.fields.get(columns.get("user", ""), "").strip()
        at = _time(document.fields.get(columns.get("at", ""), "").strip())
        yield Draft(example, digest_of(["user", user]) if user else "", at=at)


def is_question(heading: str) -> bool:
    """Whether a heading asks something: by its question mark, in any script (Armenian has it inside the word)."""
    text = heading.rstrip("\"'”’»)] ")
    return text.endswith(tuple(_ASKS)) or "\u055e" in text


def _history(text: str) -> tuple[Message, ...]:
    try:
        told = json.loads(text) if text.startswith("[") else []
    except ValueError:
        return ()
    turns: list[Message] = []
    for each in told:
        role, content = (each.get("role"), each.get("content")) if isinstance(each, dict) else (None, None)
        if (role == "user" or role == "assistant") and isinstance(content, str) and content.strip():
            turns.append(Message(role="user" if role == "user" else "assistant", content=content.strip()))
    return tuple(turns)


def _time(text: str) -> datetime | None:
    """A time of a table in ISO 8601, in UTC where it says nothing else; None for what is no time."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Said:
    """The feedback on one interaction that counts: the latest correction, and the latest thumbs."""

    correction: Feedback | None
    thumbs: Feedback | None


def from_traffic(
    interactions: Sequence[Interaction], feedback: Sequence[Feedback], task: TaskSettings, scrubber: Scrubber
) -> list[Draft]:
    """Examples of what was corrected, and of what was liked, `feedback.thumbs_per_user` at most of one user's votes.

    Both lists are in order of time. Interactions that may not be used for training give nothing, nor do those that
    hold more than text. Where all rows of one user's feedback are more than `feedback.user_share`, the latest are left
    out.
    """
    found = []
    for interaction, messages, note in commented(interactions, feedback, task):
        origin, target = (CORRECTION, note.correction) if note.correction else (THUMBS, interaction.answer)
        example = as_example(
            origin,
            "traffic",
            scrubber.conversation(interaction.conversation),
            scrubber.messages(messages),
            prompts.shorten(scrubber.text((target or "").strip()), task.answer_chars),
            "",
        )
        found.append(Draft(example, interaction.user, note.user, interaction.at))
    return _shared_out(found, task.feedback.user_share)


def commented(
    interactions: Sequence[Interaction], feedback: Sequence[Feedback], task: TaskSettings
) -> Iterator[tuple[Interaction, tuple[Message, ...], Feedback]]:
    """Interactions that teach something, their messages, and the correction or else the vote that says so."""
    said = said_of(feedback)
    liked: Counter[str] = Counter()
    for interaction in interactions:
        here = said.get(interaction.id)
        messages = turns(interaction) if here and interaction.trainable else ()
        if here is None or not messages:
            continue
        if here.correction is not None:
            yield interaction, messages, here.correction
        elif here.thumbs is not None and (here.thumbs.value or 0) >= 1 and answered(interaction):
            liked[here.thumbs.user] += 1
            if liked[here.thumbs.user] <= task.feedback.thumbs_per_user:
                # A note may carry a blank correction beside the vote.
                yield interaction, messages, here.thumbs.model_copy(update={"correction": None})


def answered(interaction: Interaction) -> bool:
    """Whether there was an answer at all."""
    return interaction.status == 200 and bool(interaction.answer.strip())


def _shared_out(drafts: list[Draft], share: float) -> list[Draft]:
    """Leave out the latest rows of a user who gives more than the share: a flood does not raise its own limit."""
    counts = Counter(draft.giver for draft in drafts)
    if share == 1.0:
        return drafts
    most = {giver: max(FREE, int(share / (1 - share) * (len(drafts) - count))) for giver, count in counts.items()}
    given: Counter[str] = Counter()
    kept = []
    for draft in drafts:
        given[draft.giver] += 1
        if given[draft.giver] <= most[draft.giver]:
            kept.append(draft)
    return kept


def said_of(feedback: Sequence[Feedback]) -> dict[str, Said]:
    """What counts of the feedback, by interaction."""
    said: dict[str, Said] = {}
    for note in feedback:
        here = said.get(note.interaction, Said(None, None))
        if note.correction and note.correction.strip():
            here = Said(note, here.thumbs)
        if note.metric == "thumbs" and note.value is not None:
            here = Said(here.correction, note)
        said[note.interaction] = here
    return said


def turns(interaction: Interaction) -> tuple[Message, ...]:
    """The user's and the assistant's turns; nothing where they are no text or do not end with the user."""
    found: list[Message] = []
    for message in interaction.messages:
        role = message.get("role")
        if role != "user" and role != "assistant":
            continue
        try:
            text = prompts.text_of(message.get("content")).strip()
        except Invalid:
            return ()
        if text:
            found.append(Message(role="user" if role == "user" else "assistant", content=text))
    return tuple(found) if found and found[-1].role == "user" else ()


def as_example(
    origin: str, part: str, conversation: str, messages: tuple[Message, ...], target: str, document: str
) -> Example:
    """An example whose id depends on question and answer only; context and split are given later."""
    content = [part for message in messages for part in (message.role, message.content)]
    return Example(
        id=digest_of([*content, target]),
        origin=origin,
        slice=part,
        conversation=conversation,
        messages=messages,
        context=None,
        target=target,
        split="train",
        document=document,
    )
