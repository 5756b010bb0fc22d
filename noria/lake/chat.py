"""Reader of chat logs; which format a file has is found out from its first bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeGuard

from noria.lake.archive import ZIP, Archive, Unreadable
from noria.lake.arrow import is_arrow, records
from noria.lake.dialogue import Role, Turn, pairs
from noria.lake.rows import Fault, Item, Row, Skip, decode, size
from noria.lake.slack import day_rows, is_slack, slack_rows
from noria.lake.tables import parse_json
from noria.lake.whatsapp import is_whatsapp, whatsapp_rows

_ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "chatbot", "model", "bot"), "assistant"),
}
_TEXTS = frozenset({"text", "input_text", "output_text"})
_FORMATS = "OpenAI messages, ShareGPT, a WhatsApp export or a Slack export"


def chat_rows(data: bytes, assistants: Collection[str] = ()) -> Iterator[Item]:
    """Questions and answers of a chat log, with the fields of `dialogue.pairs`.

    JSON, JSON lines, Parquet and Arrow with OpenAI's `messages` or ShareGPT's `conversations`; a WhatsApp export as
    text or ZIP; a Slack export as ZIP or one of its days. `assistants` are the people whose turns are answers, by
    name, id or address; without them who speaks first asks and all others answer. The offset is that of the line's
    or message's first byte in JSON lines and WhatsApp, the row's or message's number elsewhere.
    """
    if is_arrow(data):
        for row, number in records(data):
            yield from row if isinstance(row, list) else _dialogue(row, number)
        return
    if data.startswith(ZIP):
        yield from _unpacked(data, assistants)
        return
    text, offset = decode(data)
    if is_whatsapp(text):
        yield from whatsapp_rows(data, assistants)
    elif text.lstrip()[:1] in ("{", "["):
        yield from _json(text, offset, assistants)
    elif text.strip():
        yield Fault(0, f"not a known chat log: neither {_FORMATS}")


def _unpacked(data: bytes, assistants: Collection[str]) -> Iterator[Item]:
    try:
        archive = Archive(data)
        chats = [name for name in archive.names if name.rpartition("/")[2].endswith("chat.txt")]
        chats = chats or [name for name in archive.names if name.endswith(".txt") and "/" not in name]
        files = [archive.read(name) for name in chats]
    except Unreadable as error:
        yield Fault(0, str(error))
        return
    if not files:
        yield from slack_rows(archive, assistants)
    for file in files:
        yield from whatsapp_rows(file, assistants)


def _json(text: str, offset: int, assistants: Collection[str]) -> Iterator[Item]:
    """One JSON value; where there is more than one, JSON lines."""
    try:
        value = parse_json(text)
    except ValueError as error:
        first = text.lstrip().partition("\n")[0]
        if not _is_json(first):
            yield Fault(0, f"not valid JSON: {error}")
            return
        for line in text.split("\n"):
            if line.strip():
                yield from _line(line, offset)
            offset += size(line) + 1
        return
    if is_slack(value):
        yield from day_rows(value, assistants)
    elif isinstance(value, list) and not _is_turns(value):
        for number, one in enumerate(value):
            yield from _dialogue(one, number)
    else:
        yield from _dialogue(value, 0)


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


def _line(line: str, offset: int) -> Iterator[Item]:
    try:
        value = parse_json(line)
    except ValueError as error:
        yield Fault(offset, f"not valid JSON: {error}")
        return
    yield from _dialogue(value, offset)


def _dialogue(value: object, offset: int) -> Iterator[Item]:
    """The rows of one dialogue in one of the known forms."""
    record: Mapping[str, Any] = value if isinstance(value, dict) else {"messages": value}
    given = record.get("input")
    if isinstance(given, dict) and "preferred_output" in record:
        yield from _preferred(given, record, offset)
        return
    found = (record.get(key) for key in ("messages", "conversations", "conversation"))
    turns = next(filter(_is_turns, found), None)
    if turns is None:
        columns = ", ".join(map(str, record)) if isinstance(value, dict) else "no object"
        yield Fault(offset, f"not a dialogue: there is neither 'messages' nor 'conversations', but: {columns}")
        return
    last = next((record[key] for key in ("answer", "target") if isinstance(record.get(key), str)), None)
    if last is not None:
        turns = [*turns, {"role": "assistant", "content": last}]
    said, left_out = _turns(turns, record.get("system"), offset)
    yield from left_out
    yield from pairs(said, _name(record))


def _preferred(given: dict[str, Any], record: Mapping[str, Any], offset: int) -> Iterator[Item]:
    """OpenAI's preference pairs: the rejected answer stands in the field `rejected` of the last row."""
    before, better, worse = given.get("messages"), record.get("preferred_output"), record.get("non_preferred_output")
    if not (_is_turns(before) and _is_turns(better)):
        yield Fault(offset, "a preference without 'messages' in its input, or without its preferred output")
        return
    said, left_out = _turns([*before, *better], None, offset)
    yield from left_out
    rejected = _turns(worse, None, offset)[0] if _is_turns(worse) else []
    *others, last = pairs(said, _name(record)) or [Skip("dialogue without a question")]
    yield from others
    if isinstance(last, Row) and rejected:
        fields = {**last.fields, "rejected": "\n".join(turn.text for turn in rejected)}
        last = Row(fields, last.offset, last.text, last.conversation)
    yield last


def _is_turns(value: object) -> TypeGuard[list[dict[str, Any]]]:
    """Whether a value is a list of turns: objects with who spoke and what."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)
    )


def _name(record: Mapping[str, Any]) -> str | None:
    for key in ("conversation", "conversation_id"):
        if isinstance(record.get(key), str) and record[key].strip():
            return str(record[key])
    return None


def _turns(values: list[dict[str, Any]], system: object, offset: int) -> tuple[list[Turn], list[Item]]:
    """Turns in order, and what is left out: those of tools. A turn that holds more than text is not taught."""
    turns = [Turn("system", system, offset)] if isinstance(system, str) else []
    left_out: list[Item] = []
    for value in values:
        role = _ROLES.get(str(value.get("role", value.get("from"))).lower())
        if role is None or value.get("tool_calls") or value.get("function_call"):
            left_out.append(Skip("turn of a tool"))
            continue
        text, whole = _text(value.get("content", value.get("value")))
        turns.append(Turn(role, text, offset, whole and value.get("weight", 1) != 0))
    return turns, left_out


def _text(content: object) -> tuple[str, bool]:
    """The text of a message, and whether that is all of it."""
    if isinstance(content, str):
        return content, True
    parts = content if isinstance(content, list) else []
    texts = [part["text"] for part in parts if _is_text(part)]
    return "\n".join(texts), len(texts) == len(parts)


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type", "text") in _TEXTS and isinstance(part.get("text"), str)
