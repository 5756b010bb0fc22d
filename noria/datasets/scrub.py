"""Personal data out of documents and examples: replaced by kind or pseudonym, counted, never kept."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from noria import pseudonyms
from noria.guards import personal
from noria.settings import ScrubAction, ScrubSettings
from noria.types import Document, Example, Finding, Message, digest_of

if TYPE_CHECKING:
    import pyarrow as pa

DROP = "\ufdd1"
"""A noncharacter that marks a text whose row is to be dropped; it is taken out of what comes in."""
KEY = "pseudonym.key"
_TOKEN = str.maketrans("0123456789abcdef", "ghijklmnopabcdef")
"""Pseudonyms are letters only: digits could be taken for another number."""
_TOKEN_LETTERS = 12
_ROUNDS = 4

Recognise = Callable[[str, Sequence[str]], Sequence[Finding]]
"""A model that finds kinds (`name`, `place`) in a text, with scores."""
Batches = Iterator["pa.RecordBatch"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What is done with what is found. `key` keys the pseudonyms, empty where none are made."""

    settings: ScrubSettings = field(default_factory=ScrubSettings)
    key: bytes = b""

    def findings(self, text: str) -> list[Finding]:
        """What the validated pass finds in a text and the settings do not leave alone, in order and apart."""
        found = personal.find_all(text, ("mac",) if self.settings.mac else ())
        return self._minded(text, found) if self.settings.leave or self.settings.allow else found

    def named(self, text: str, recognise: Recognise) -> list[Finding]:
        """What a model finds, where the settings ask for it and the text is in the sample."""
        wanted = [kind for kind, asked in (("name", self.settings.names), ("place", self.settings.places)) if asked]
        if not wanted or not text.strip() or not self._sampled(text):
            return []
        return self._minded(text, list(recognise(text, wanted)))

    def told(self, finding: Finding, value: str) -> str:
        """What stands in the place of a finding."""
        actions: Mapping[str, ScrubAction] = {kind: each for kind, each in self.settings.actions.items()}
        action = actions.get(finding.kind, self.settings.action)
        if action == "pseudonym":
            return f"<{finding.kind}:{pseudonym(self.key, finding.kind, value)}>"
        return f"<{finding.kind}>{DROP}" if action == "drop" else f"<{finding.kind}>"

    def _minded(self, text: str, found: list[Finding]) -> list[Finding]:
        allowed = {each.casefold() for each in self.settings.allow}
        return [
            each
            for each in found
            if each.kind not in self.settings.leave and text[each.start : each.end].casefold() not in allowed
        ]

    def _sampled(self, text: str) -> bool:
        if self.settings.sample >= 1.0:
            return True
        return int(digest_of(["sample", text])[:13], 16) / 16**13 < self.settings.sample


def pseudonym(key: bytes, kind: str, value: str) -> str:
    """Twelve letters for a value of a kind: HMAC-SHA-256 (RFC 2104), so that without the key nothing leads back.

    Case, white space and punctuation do not count; the same value of another kind has another pseudonym.
    """
    plain = value.casefold() if kind == "email" else "".join(filter(str.isalnum, value.casefold()))
    digest = hmac.digest(key, f"{kind}\0{plain}".encode(), "sha256").hex()
    return digest[:_TOKEN_LETTERS].translate(_TOKEN)


def read_key(state: Path) -> bytes:
    """The key of this project's pseudonyms, made once; raises Invalid."""
    return pseudonyms.read(state / KEY)


def rules_of(settings: ScrubSettings, state: Path) -> Rules:
    """The rules of a task; the key is made where pseudonyms are asked for. Raises Invalid for a broken key."""
    return Rules(settings, read_key(state) if settings.keyed else b"")


def params_of(settings: ScrubSettings, state: Path) -> dict[str, JsonValue]:
    """What of scrubbing changes the rows: the settings, and a digest of the key where pseudonyms are made."""
    key = hashlib.sha256(b"key of pseudonyms" + read_key(state)).hexdigest()[:16] if settings.keyed else None
    return {**settings.model_dump(mode="json"), "key": key}


class Scrubber:
    """Takes personal data out of texts and counts what it took out."""

    def __init__(self, rules: Rules = Rules(), recognise: Recognise | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.rules = rules
        self._recognise = recognise

    def aside(self) -> Scrubber:
        """One that does the same and counts for itself."""
        return Scrubber(self.rules, self._recognise)

    def text(self, text: str) -> str:
        """One text, counted."""
        clean, counts = self._clean(text)
        self.counts.update(counts)
        return clean

    def messages(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """A conversation, counted."""
        return tuple(Message(role=message.role, content=self.text(message.content)) for message in messages)

    def document(self, document: Document) -> Document:
        """A document: its text is counted, its fields repeat the text and are not."""
        fields = {name: self._field(value) for name, value in document.fields.items()}
        text = self.text(document.text)
        return document.model_copy(
            update={"text": text, "fields": fields, "conversation": self.conversation(document.conversation)}
        )

    def conversation(self, name: str) -> str:
        """A conversation's name; one that tells who it was with becomes a digest."""
        return digest_of(name) if personal.find_all(name) else name

    def _field(self, value: str) -> str:
        """A column, not counted. In JSON, such as a dialogue's history, each text is cleaned for itself."""
        if value.startswith(("[", "{")):
            with contextlib.suppress(ValueError, RecursionError):
                return json.dumps(self._nested(json.loads(value)), ensure_ascii=False)
        return self._clean(value)[0]

    def _nested(self, value: JsonValue) -> JsonValue:
        if isinstance(value, str):
            return self._clean(value)[0]
        if isinstance(value, list):
            return [self._nested(each) for each in value]
        if isinstance(value, dict):
            return {self._clean(name)[0]: self._nested(each) for name, each in value.items()}
        return value

    def _clean(self, text: str) -> tuple[str, Counter[str]]:
        clean, counts = _replaced(text.replace(DROP, ""), self.rules.findings, self.rules)
        if self._recognise is not None:
            recognise = self._recognise
            clean, named = _replaced(clean, lambda text: self.rules.named(text, recognise), self.rules)
            counts.update(named)
        return clean, counts


def _replaced(text: str, find: Callable[[str], list[Finding]], rules: Rules) -> tuple[str, Counter[str]]:
    """The text without what is found in it, and how many of each kind there were."""
    counts: Counter[str] = Counter()
    # What was taken out may have stood between a number and the word that tells what it is.
    for _ in range(_ROUNDS):
        found = find(text)
        if not found:
            break
        counts.update(personal.counted(found))
        text = personal.replaced(text, found, rules.told)
    return text, counts


def keeps(example: Example) -> bool:
    """Whether a row stays: none of its texts holds what the task drops rows for."""
    return DROP not in example.target and not any(DROP in message.content for message in example.messages)


def keeps_document(document: Document) -> bool:
    """As `keeps`, for a scrubbed document."""
    return DROP not in document.text and not any(DROP in value for value in document.fields.values())
