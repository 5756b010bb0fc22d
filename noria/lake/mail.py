"""Reader of e-mail: threads of an mbox file as questions and answers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC
from email import message_from_bytes, policy
from email.errors import MessageError
from email.message import EmailMessage
from email.utils import getaddresses, parsedate_to_datetime

from noria.lake.dialogue import Said, heard, pairs
from noria.lake.html import plain_text
from noria.lake.rows import Fault, Item, Skip, broken

NO_DATE = float("-inf")

_START = re.compile(rb"^From \S.*\d{4}.*$", re.MULTILINE)
_ESCAPED = re.compile(rb"^>(>*From )", re.MULTILINE)
_ID = re.compile(r"<[^<>\s]+>")
_TOLD = re.compile(
    r"^(?:On|Am|Le|El|Il|Op|Em|Den|W dniu|Dne)\b[^\n]{0,200}(?:\n[^\n]{0,120})?"
    r"(?:wrote|schrieb|a écrit|escribió|ha scritto|schreef|escreveu|skrev|napisał(?:\(a\))?|napsal)\b"
    r"[^\n]{0,80}:[ \t]*$(?=\s*(?:>|\Z))",
    re.MULTILINE,
)
_FORWARDED = re.compile(
    r"^[ \t]*+(?:-{3,}+|_{5,}+)[ \t]*+(?:Original Message|Forwarded message"
    r"|Ursprüngliche Nachricht|Weitergeleitete Nachricht"
    r"|Message d'origine|Message transféré|Mensaje original|Mensaje reenviado|Messaggio originale"
    r"|Messaggio inoltrato|Oorspronkelijk bericht|Mensagem original)?[ \t]*+-*+[ \t]*+$"
    r"|^(?:From|Von|De|Da|Van):[^\n]+\n(?:(?:Sent|Date|Gesendet|Datum|Envoyé|Enviado|Fecha|Inviato|Data|Verzonden):)",
    re.MULTILINE,
)
_SIGNATURE = re.compile(
    r"^(?:-- ?|Sent from my [^\n]{2,40}|Von meinem [^\n]{2,40} gesendet|Envoyé de mon [^\n]{2,40}"
    r"|Enviado desde mi [^\n]{2,40}|Inviato da(?:l mio)? [^\n]{2,40}|Verzonden (?:vanaf|met) mijn [^\n]{2,40})$",
    re.MULTILINE,
)
_SUBJECT = re.compile(r"^(?:\s*(?:re|aw|sv|antw|fwd?|wg|tr|rv|rif|i)\s*(?:\[\d+\])?:)+\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mail:
    """One message: its own words, its subject, its name and those it answers, oldest first."""

    said: Said
    subject: str
    name: str
    answers: tuple[str, ...]


def mbox_rows(data: bytes, assistants: Collection[str] = ()) -> Iterator[Item]:
    """Questions and answers of an mbox file, or of one message; the offset is that of the message's first byte.

    A thread, found by References and In-Reply-To (RFC 5322), is a dialogue: who began it asks and all others
    answer, or `assistants` do, by address or name. The fields are those of `dialogue.pairs` and `subject`. Quoted
    text and signatures are cut; HTML is read where there is no plain text. Names and addresses of the heads are
    not kept.
    """
    mails: list[Mail] = []
    for raw, offset in _messages(data):
        found = _mail(raw, offset)
        if isinstance(found, Mail):
            mails.append(found)
        else:
            yield found
    for thread in _threads(mails):
        said = [mail.said for mail in thread]
        yield from pairs(heard(said, assistants), fields={"subject": _SUBJECT.sub("", thread[0].subject)})


def _messages(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Messages of the file without their `From ` lines, which only count at its start and after an empty line."""
    starts = [
        found
        for found in _START.finditer(data)
        if found.start() == 0 or data.endswith((b"\n\n", b"\r\n\r\n"), 0, found.start())
    ]
    if not starts or starts[0].start() > 0:
        before = data[: starts[0].start()] if starts else data
        if before.strip():
            yield before, 0
    ends = [*(found.start() for found in starts[1:]), len(data)]
    for found, end in zip(starts, ends, strict=bool(starts)):
        yield _ESCAPED.sub(rb"\1", data[found.end() + 1 : end]), found.start()


def _mail(raw: bytes, offset: int) -> Mail | Fault | Skip:
    try:
        message = message_from_bytes(raw, policy=policy.default)
        heads = {name: str(message[name] or "") for name in ("from", "subject", "date", "message-id")}
        before = f"{message['references'] or ''} {message['in-reply-to'] or ''}"
        text = _body(message)
    except (MessageError, LookupError, ValueError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        return Fault(offset, f"not a readable message: {type(error).__name__}: {error}")
    if not heads["from"] and not heads["message-id"]:
        return Fault(offset, "not a message: it has neither From nor Message-ID")
    words = own_words(text)
    if not words:
        return Skip("message without words of its own")
    if reason := broken(words) or broken(heads["subject"]):
        return Fault(offset, reason)
    people = tuple(part for pair in getaddresses([heads["from"]]) for part in reversed(pair) if part) or ("",)
    named = _ID.findall(heads["message-id"])
    said = Said((people[0].lower(), *people), words, offset, _seconds(heads["date"]))
    return Mail(said, heads["subject"].strip(), named[0] if named else f"<{offset}>", tuple(_ID.findall(before)))


def _seconds(date: str) -> float:
    """Seconds since 1970, or NO_DATE."""
    try:
        at = parsedate_to_datetime(date)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return NO_DATE


def _body(message: EmailMessage) -> str:
    part = message.get_body(preferencelist=("plain", "html"))
    if part is None:
        return ""
    content = part.get_content()
    if not isinstance(content, str):
        return ""
    return plain_text(content) if part.get_content_subtype() == "html" else content


def own_words(text: str) -> str:
    """A message's text without what it quotes, without its signature and what is forwarded below it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for mark in (_FORWARDED, _SIGNATURE):
        if found := mark.search(text):
            text = text[: found.start()]
    text = _TOLD.sub("", text)
    lines = [line.rstrip() for line in text.split("\n") if not line.lstrip().startswith(">")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _threads(mails: list[Mail]) -> Iterator[list[Mail]]:
    """Messages that answer one another, in order of time where all have one, else of the file."""
    leader: dict[str, str] = {}

    def root(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for mail in mails:
        for other in mail.answers:
            leader[root(mail.name)] = root(other)
    threads: dict[str, list[Mail]] = {}
    for mail in mails:
        threads.setdefault(root(mail.name), []).append(mail)
    for thread in threads.values():
        dated = all(mail.said.at != NO_DATE for mail in thread)
        yield sorted(thread, key=lambda mail: (mail.said.at, mail.said.offset)) if dated else thread
