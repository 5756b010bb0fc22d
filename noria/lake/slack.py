"""Reader of Slack's exports: a ZIP archive of channels and days, or the messages of one day."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterator
from typing import Any

from noria.lake.archive import Archive, Unreadable
from noria.lake.dialogue import Said, by_silence, heard, pairs
from noria.lake.rows import Fault, Item, Skip, broken, decode
from noria.lake.tables import parse_json

_PEOPLE = frozenset({"", "bot_message", "thread_broadcast", "me_message", "file_share", "reply_broadcast"})
"""Subtypes of messages that somebody wrote; all others tell of joins, topics and the like."""

_MARK = re.compile(r"<([@#!])([^<>|]*)(?:\|([^<>]*))?>")
_LINK = re.compile(r"<((?:https?|mailto|tel):[^<>|]+)(?:\|([^<>]*))?>")


def is_slack(value: object) -> bool:
    """Whether a JSON value is the list of one day's messages."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and "ts" in one and one.get("type", "message") == "message" for one in value)
    )


def slack_rows(archive: Archive, assistants: Collection[str] = ()) -> Iterator[Item]:
    """Dialogues of an export's channels; the offset counts the messages of the archive in the order of its files."""
    number = 0
    channels: dict[str, list[tuple[dict[str, Any], int]]] = {}
    for name in sorted(archive.names):
        channel, _, day = name.rpartition("/")
        if not channel or not day.endswith(".json"):
            continue
        try:
            messages = _day(archive.read(name))
        except (Unreadable, ValueError) as error:
            yield Fault(number, f"'{name}': {error}")
            continue
        for message in messages:
            channels.setdefault(channel, []).append((message, number))
            number += 1
    if not channels:
        yield Fault(0, "the archive holds no day of a channel: CHANNEL/YYYY-MM-DD.json")
    for channel, found in channels.items():
        yield from _channel(channel, found, assistants)


def day_rows(messages: list[dict[str, Any]], assistants: Collection[str] = ()) -> Iterator[Item]:
    """Dialogues of one day; the offset is the message's number."""
    yield from _channel("", [(message, number) for number, message in enumerate(messages)], assistants)


def _day(data: bytes) -> list[dict[str, Any]]:
    text, _ = decode(data)
    if reason := broken(text):
        raise ValueError(reason)
    value = parse_json(text)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError("not a list of messages")
    return value


def _channel(channel: str, messages: list[tuple[dict[str, Any], int]], assistants: Collection[str]) -> Iterator[Item]:
    """A thread is a dialogue; what stands in no thread is parted by silence."""
    threads: dict[str, list[Said]] = {}
    loose: list[Said] = []
    for message, number in messages:
        said = _said(message, number)
        if isinstance(said, Said):
            thread = message.get("thread_ts")
            (threads.setdefault(thread, []) if isinstance(thread, str) else loose).append(said)
        else:
            yield said
    dialogues = [*threads.values(), *by_silence(sorted(loose, key=_when))]
    for dialogue in dialogues:
        ordered = sorted(dialogue, key=_when)
        yield from pairs(heard(ordered, assistants), fields={"channel": channel} if channel else None)


def _when(said: Said) -> tuple[float, int]:
    return said.at, said.offset


def _said(message: dict[str, Any], number: int) -> Said | Fault | Skip:
    if str(message.get("subtype") or "") not in _PEOPLE or message.get("hidden"):
        return Skip("line of the system")
    text = message.get("text")
    if not isinstance(text, str) or not text.strip():
        return Skip("message without text")
    if reason := broken(text):
        return Fault(number, reason)
    try:
        at = float(message.get("ts", ""))
    except (TypeError, ValueError):
        return Fault(number, f"'{message.get('ts')}' is no time of a message")
    return Said(_speakers(message), _plain(text), number, at)


def _speakers(message: dict[str, Any]) -> tuple[str, ...]:
    profile = message.get("user_profile")
    names = [message.get(key) for key in ("user", "bot_id", "username")]
    if isinstance(profile, dict):
        names += [profile.get(key) for key in ("real_name", "display_name", "name")]
    return tuple(name for name in names if isinstance(name, str) and name)


def _plain(text: str) -> str:
    """Slack's marks as text; who is mentioned becomes `@user`, as ids and names say who somebody is."""

    def mark(found: re.Match[str]) -> str:
        sign, name, label = found[1], found[2], found[3]
        if sign == "@":
            return "@user"
        return f"#{label or 'channel'}" if sign == "#" else f"@{(label or name.partition('^')[0]).lstrip('@')}"

    def link(found: re.Match[str]) -> str:
        address = found[1].removeprefix("mailto:").removeprefix("tel:")
        return f"{found[2]} ({address})" if found[2] and found[2] != address else address

    return html.unescape(_LINK.sub(link, _MARK.sub(mark, text))).strip()
