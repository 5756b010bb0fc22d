"""Where examples come from: mapped documents, and what users said of answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from noria import prompts
from noria.datasets.scrub import Scrubber
from noria.errors import Invalid
from noria.settings import SourceSettings, TaskSettings
from noria.types import Document, Example, Feedback, Interaction, Message, digest_of

CORRECTION, THUMBS = "traffic:correction", "traffic:thumbs"

THUMBS_PER_USER = 3
"""Most liked answers of one user in a dataset, so that no single user steers the model."""


def from_documents(documents: Iterable[Document], source: SourceSettings, task: TaskSettings) -> Iterator[Example]:
    """Examples of one source by its map, `limit` at most, those with the smallest document ids.

    `documents` come scrubbed and in order of their ids; one without a question or an answer gives nothing.
    """
    left = source.limit
    for document in documents:
        question = document.fields.get(source.map["question"], "").strip()
        answer = document.fields.get(source.map["answer"], "").strip()
        if not question or not answer:
            continue
        if left is not None:
            if not left:
                return
            left -= 1
        yield _example(
            f"source:{source.name}",
            source.slice,
            document.conversation,
            (Message(role="user", content=question),),
            prompts.shorten(answer, task.answer_chars),
            document.id,
        )


@dataclass(frozen=True, slots=True)
class Said:
    """The feedback on one interaction that counts: the latest correction, and the latest thumbs."""

    correction: Feedback | None
    thumbs: Feedback | None


def from_traffic(
    interactions: Sequence[Interaction], feedback: Sequence[Feedback], task: TaskSettings, scrubber: Scrubber
) -> Iterator[Example]:
    """Examples of what was corrected, and of what was liked, at most three per user.

    Both lists are in order of time. Interactions that may not be used for training give nothing, nor do those that
    hold more than text.
    """
    said = _said(feedback)
    liked: dict[str, int] = {}
    for interaction in interactions:
        here = said.get(interaction.id)
        messages = _turns(interaction) if here and interaction.trainable else ()
        if here is None or not messages:
            continue
        if here.correction is not None:
            origin, target = CORRECTION, here.correction.correction or ""
        elif here.thumbs is not None and (here.thumbs.value or 0) >= 1 and interaction.status == 200:
            if liked.get(here.thumbs.user, 0) >= THUMBS_PER_USER or not interaction.answer.strip():
                continue
            liked[here.thumbs.user] = liked.get(here.thumbs.user, 0) + 1
            origin, target = THUMBS, interaction.answer
        else:
            continue
        yield _example(
            origin,
            "traffic",
            scrubber.conversation(interaction.conversation),
            scrubber.messages(messages),
            prompts.shorten(scrubber.text(target.strip()), task.answer_chars),
            "",
        )


def _said(feedback: Sequence[Feedback]) -> dict[str, Said]:
    said: dict[str, Said] = {}
    for note in feedback:
        here = said.get(note.interaction, Said(None, None))
        if note.correction and note.correction.strip():
            here = Said(note, here.thumbs)
        if note.metric == "thumbs" and note.value is not None:
            here = Said(here.correction, note)
        said[note.interaction] = here
    return said


def _turns(interaction: Interaction) -> tuple[Message, ...]:
    """The user's and the assistant's turns; nothing where they are no text or do not end with the user."""
    turns: list[Message] = []
    for message in interaction.messages:
        role = message.get("role")
        if role != "user" and role != "assistant":
            continue
        try:
            text = prompts.text_of(message.get("content")).strip()
        except Invalid:
            return ()
        if text:
            turns.append(Message(role="user" if role == "user" else "assistant", content=text))
    return tuple(turns) if turns and turns[-1].role == "user" else ()


def _example(
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
