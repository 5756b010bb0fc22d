"""Reader of WhatsApp's text exports, in the date formats of several locales."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

from noria.lake.dialogue import Said, by_silence, heard, pairs
from noria.lake.rows import Fault, Item, Skip, decode, size

_START = re.compile(
    r"[\u200e\u200f]*\[?(\d{1,4})([./-])\s?(\d{1,2})[./-]\s?(\d{1,4})\.?,?"
    r"(?:\s(?:à|às|a las|alle|at|klo|kl\.?|om|um))?[\s\u202f]+(上午|下午|午前|午後|오전|오후)?\s?"
    r"(\d{1,2})[:.](\d{2})(?:[:.](\d{2}))?(?:\s?([ap])\.?\s?m\.?)?(?:\]|\s[-–])\s(.*)",
    re.IGNORECASE | re.DOTALL,
)
_SPEAKER = re.compile(r"([^:\n]{1,80}):\s(.*)", re.DOTALL)
_MEDIA = re.compile(r"<[^<>\n]{3,60}>|\S[^\n]{0,200}\.\w{2,5} \([^()\n]{4,40}\)")
_EDITED = re.compile(
    r"<(?:This message was edited|Diese Nachricht wurde bearbeitet|Ce message a été modifié"
    r"|Se editó este mensaje|Questo messaggio è stato modificato|Dit bericht is bewerkt|Mensagem editada)\.?>$"
)
_DELETED = re.compile(
    r"(?:This message was deleted|You deleted this message|Diese Nachricht wurde gelöscht"
    r"|Du hast diese Nachricht gelöscht|Ce message a été supprimé|Vous avez supprimé ce message"
    r"|Se eliminó este mensaje|Eliminaste este mensaje|Questo messaggio è stato eliminato"
    r"|Hai eliminato questo messaggio|Dit bericht is verwijderd|U hebt dit bericht verwijderd"
    r"|Mensagem apagada|Você apagou esta mensagem)\.?"
)
_AFTERNOON = frozenset({"下午", "午後", "오후", "p"})
_PROBE = 20


def is_whatsapp(text: str) -> bool:
    """Whether one of the first lines starts as a message of an export does."""
    return any(_START.match(line) for line in text.split("\n", _PROBE)[:_PROBE])


def whatsapp_rows(data: bytes, assistants: Collection[str] = ()) -> Iterator[Item]:
    """Dialogues of an export; silence of four hours parts them; the offset is that of the question's first byte.

    Lines of the system, media and deleted messages are left out; names are used to tell who answers and are not
    kept.
    """
    text, start = decode(data)
    messages = list(_messages(text, start))
    if not messages:
        yield Fault(0, "no message of a WhatsApp export")
        return
    order = _order([found for found, _ in messages])
    said: list[Said] = []
    for found, offset in messages:
        speaker = _SPEAKER.fullmatch(found[10])
        words = _words(speaker[2]) if speaker else ""
        if speaker is None:
            yield Skip("line of the system")
        elif not words:
            yield Skip("media or deleted message")
        elif (at := _seconds(found, order)) is None:
            yield Fault(offset, "there is no such date or time")
        else:
            said.append(Said((speaker[1].strip("\u200e\u202a\u202c~ "),), words, offset, at))
    for dialogue in by_silence(said):
        yield from pairs(heard(dialogue, assistants or _others(said)))


def _others(said: list[Said]) -> set[str]:
    """Everybody but who spoke first in the file: roles do not change from one dialogue to the next."""
    return {one.speakers[0] for one in said} - {said[0].speakers[0]}


def _messages(text: str, offset: int) -> Iterator[tuple[re.Match[str], int]]:
    """Each message's match and where it starts; a line that starts none goes on with the one before."""
    lines: list[str] = []
    start = offset
    for line in text.splitlines(keepends=True):
        if _START.match(line):
            yield from _message(lines, start)
            lines, start = [], offset
        lines.append(line)
        offset += size(line)
    yield from _message(lines, start)


def _message(lines: list[str], start: int) -> Iterator[tuple[re.Match[str], int]]:
    if found := _START.fullmatch("".join(lines).rstrip()):
        yield found, start


def _words(text: str) -> str:
    """What was said, without notes of the app; nothing for media and what was deleted."""
    if text.startswith("\u200e"):
        return ""
    text = _EDITED.sub("", text.replace("\u200e", "").strip()).rstrip()
    head, _, rest = text.partition("\n")
    if _MEDIA.fullmatch(head):
        text = rest.strip()
    return "" if _DELETED.fullmatch(text) else text


def _order(messages: list[re.Match[str]]) -> str:
    """Which of a date's three numbers is which: `ymd`, `mdy` or `dmy`, by numbers that can only be one of them.

    Where none tells, month first with a slash and a twelve-hour clock, as in the USA, and day first otherwise.
    """
    if any(len(found[1]) == 4 for found in messages):
        return "ymd"
    if any(int(found[1]) > 12 for found in messages):
        return "dmy"
    if any(int(found[3]) > 12 for found in messages):
        return "mdy"
    return "mdy" if all(found[2] == "/" and found[9] for found in messages) else "dmy"


def _seconds(found: re.Match[str], order: str) -> float | None:
    numbers = dict(zip(order, (int(found[1]), int(found[3]), int(found[4])), strict=True))
    year = numbers["y"] + 2000 if numbers["y"] < 100 else numbers["y"]
    half = (found[5] or found[9] or "").lower()
    hour = int(found[6]) % 12 + 12 * (half in _AFTERNOON) if half else int(found[6])
    try:
        at = datetime(year, numbers["m"], numbers["d"], hour, int(found[7]), int(found[8] or 0), tzinfo=UTC)
    except ValueError:
        return None
    return at.timestamp()
