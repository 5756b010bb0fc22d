"""Personal data out of documents and examples: replaced by kind, counted, never kept."""

from __future__ import annotations

from collections import Counter

from noria.guards.personal import find, scrub
from noria.types import Document, Message, digest_of


class Scrubber:
    """Replaces personal data by its kind and counts what it replaced."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def text(self, text: str) -> str:
        """One text, counted."""
        clean, counts = scrub(text)
        self.counts.update(counts)
        return clean

    def messages(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """A conversation, counted."""
        return tuple(Message(role=message.role, content=self.text(message.content)) for message in messages)

    def document(self, document: Document) -> Document:
        """A document: its text is counted, its fields repeat the text and are not."""
        fields = {name: scrub(value)[0] for name, value in document.fields.items()}
        text = self.text(document.text)
        return document.model_copy(
            update={"text": text, "fields": fields, "conversation": self.conversation(document.conversation)}
        )

    def conversation(self, name: str) -> str:
        """A conversation's name; one that tells who it was with becomes a digest."""
        return digest_of(name) if find(name) else name
