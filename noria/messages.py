"""Messages of a conversation, and the words that a candidate has in place of weights."""

from __future__ import annotations

from typing import Literal

from noria.names import Digest, Record


class Message(Record):
    """One message of a conversation in OpenAI's sense."""

    role: Literal["system", "user", "assistant"]
    content: str


class Shot(Record):
    """A training row that stands in the prompt: its id, conversation up to the question, context and wanted answer."""

    id: Digest
    messages: tuple[Message, ...]
    context: str | None
    target: str


class Wording(Record):
    """What stands before every question: a system prompt (None: the task's own) and worked examples, in order."""

    system: str | None = None
    shots: tuple[Shot, ...] = ()
