"""The one definition of how an example becomes text. Data, training, evaluation and serving all import it.

The annotated prompt is the format of the life-cycle booklet:

    [Context] If you've forgotten your password...
    [Question] How can I reset my password?
    [Answer] To reset your password...
    ####

A marker counts only at the start of a line. A line of a text that would read as a marker gets a backslash in front,
and one that has backslashes before a marker gets one more, so that every text survives the way there and back.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from noria.errors import Invalid
from noria.stores import Hit
from noria.types import Digest, Message, Wording, digest_of

TERMINATOR = "####"
STOP = f"\n{TERMINATOR}"
"""What ends an answer when an engine generates."""

_HEADS = ("system", "developer")
_TEXTS = ("text", "input_text", "output_text")
_CONTEXT, _QUESTION, _ANSWER = "[Context]", "[Question]", "[Answer]"
_MARKER = re.compile(r"^(\\*)(\[Context\]|\[Question\]|\[Answer\]|####)", re.MULTILINE)
_ESCAPED = re.compile(r"^\\(\\*(?:\[Context\]|\[Question\]|\[Answer\]|####))", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Annotated:
    """The parts of an annotated prompt; `context` is None where there is none."""

    context: str | None
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Worded:
    """A wording made ready: its system prompt, and its shots as earlier turns in the annotated form."""

    system: str | None
    turns: tuple[Mapping[str, Any], ...]


def worded(wording: Wording | None) -> Worded | None:
    """Make a wording ready, once for all the questions that it stands before."""
    if wording is None:
        return None
    turns: list[Mapping[str, Any]] = []
    for shot in wording.shots:
        given = [{"role": message.role, "content": message.content} for message in shot.messages]
        turns += [*dress(None, given, shot.context), {"role": "assistant", "content": answer_part(shot.target)}]
    return Worded(wording.system, tuple(turns))


def escape(text: str) -> str:
    """Put a backslash before every line start that reads as a marker."""
    if "[" not in text and "#" not in text:
        return text
    return _MARKER.sub(lambda found: f"\\{found[0]}", text)


def unescape(text: str) -> str:
    """Undo `escape`."""
    if "\\" not in text:
        return text
    return _ESCAPED.sub(r"\1", text)


def question_part(context: str | None, question: str) -> str:
    """All that stands before the answer, with the answer's marker at the end."""
    head = "" if context is None else f"{_CONTEXT} {escape(context)}\n"
    return f"{head}{_QUESTION} {escape(question)}\n{_ANSWER}"


def answer_part(answer: str) -> str:
    """What the model learns to write after the marker, terminator included."""
    return f" {escape(answer)}{STOP}"


def annotate(parts: Annotated) -> str:
    """The whole annotated prompt."""
    return question_part(parts.context, parts.question) + answer_part(parts.answer)


def parse(text: str) -> Annotated:
    """Read an annotated prompt back into its parts; raises Invalid where a marker is missing or out of order."""
    marks = [found for found in _MARKER.finditer(text) if not found[1]]
    names = [found[2] for found in marks]
    if names not in ([_CONTEXT, _QUESTION, _ANSWER, TERMINATOR], [_QUESTION, _ANSWER, TERMINATOR]):
        raise Invalid(
            f"not an annotated prompt: its markers are {names or 'missing'}",
            "the order is [Context] (optional), [Question], [Answer], ####",
        )
    if marks[0].start() != 0 or marks[-1].end() != len(text):
        raise Invalid("text before the first marker or after ####", "one annotated prompt at a time")
    parts = [
        unescape(text[here.end() : there.start()].removeprefix(" ").removesuffix("\n"))
        for here, there in itertools.pairwise(marks)
    ]
    context = parts.pop(0) if names[0] == _CONTEXT else None
    return Annotated(context, parts[0], parts[1])


def render(
    system: str | None, messages: Sequence[Message], context: str | None, wording: Worded | None = None
) -> list[Message]:
    """The messages that an engine is given: system prompt first, the last user message annotated.

    A system message of the client's own stands below the task's. Raises Invalid when the conversation does not end
    with the user.
    """
    given = [{"role": message.role, "content": message.content} for message in messages]
    return [Message.model_validate(message) for message in dress(system, given, context, wording)]


def dress(
    system: str | None, messages: Sequence[Mapping[str, Any]], context: str | None, wording: Worded | None = None
) -> list[Mapping[str, Any]]:
    """As `render`, for messages in OpenAI's form: tool calls, tool results and images stay as they are.

    A wording's own system prompt takes the place of the task's; its shots stand before the conversation. Raises
    Invalid when the conversation ends neither with the user nor with a tool's result.
    """
    last = messages[-1] if messages else {}
    if last.get("role") not in ("user", "tool"):
        role = f"'{last.get('role')}'" if messages else "nothing"
        raise Invalid(f"the conversation ends with {role}, not with the user", "send the user's message last")
    if wording is not None and wording.system is not None:
        system = wording.system
    heads = [system] if system else []
    turns: list[Mapping[str, Any]] = [*wording.turns] if wording is not None else []
    for message in messages:
        if message.get("role") not in _HEADS:
            turns.append(message)
        elif text := text_of(message.get("content")):
            heads.append(text)
    if last["role"] == "user":
        turns[-1] = {**last, "content": _asked(context, last.get("content"))}
    return [{"role": "system", "content": "\n".join(heads)}, *turns] if heads else turns


def _asked(context: str | None, content: object) -> object:
    if isinstance(content, str):
        return question_part(context, content)
    if is_text(content):
        return question_part(context, text_of(content))
    # Among images and sounds the text that is the question comes last.
    parts = list(content) if isinstance(content, Sequence) else []
    for number in range(len(parts) - 1, -1, -1):
        if is_text([parts[number]]):
            parts[number] = {"type": "text", "text": question_part(context, text_of([parts[number]]))}
            return parts
    return content


def plain(messages: Sequence[Message]) -> str:
    """What a conversation says without any prompt around it, as an encoder reads it: the last question after its turns.

    System prompts and context are left out; of a single message the text itself is left, annotated or not.
    """
    turns = [message.content for message in messages if message.role != "system"]
    if turns:
        with suppress(Invalid):
            turns[-1] = parse(turns[-1] + answer_part("")).question
    return "\n".join(turns)


def beside(hits: Sequence[Hit], limit: int) -> tuple[str | None, tuple[str, ...]]:
    """The context that stands beside a question, `limit` characters at most, and the documents that are in it.

    Training rows and served requests both come through here, so that the model meets what it has learned from.
    """
    if not hits:
        return None, ()
    context = shorten("\n".join(hit.text for hit in hits), limit)
    # What was cut away is no source.
    starts = itertools.accumulate((len(hit.text) + 1 for hit in hits), initial=0)
    return context, tuple(hit.document for hit, start in zip(hits, starts, strict=False) if start < len(context))


def answer_of(generated: str) -> str:
    """The answer in what an engine generated: without the terminator and what follows it."""
    return unescape(generated.partition(STOP)[0].strip())


def text_of(content: object) -> str:
    """The text of an OpenAI message's `content`: a string, or a list of text parts; raises Invalid for other parts."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, Sequence):
        return "".join(_part(part) for part in content)
    raise Invalid("a message's content is neither text nor a list of parts", "send a string")


def is_text(content: object) -> bool:
    """Whether a message's `content` is text and nothing else."""
    if content is None or isinstance(content, str):
        return True
    return isinstance(content, Sequence) and all(
        isinstance(part, Mapping) and part.get("type") in _TEXTS and isinstance(part.get("text"), str)
        for part in content
    )


def _part(part: object) -> str:
    if isinstance(part, Mapping) and part.get("type") in _TEXTS and isinstance(part.get("text"), str):
        return str(part["text"])
    raise Invalid("this task takes text only", "leave out images, audio and files")


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, cut after a sentence that ends in the second half, else at a word."""
    if len(text) <= limit:
        return text
    head = text[:limit]
    ends = [found.end() for found in re.finditer(r"[.!?](?=\s)", head)]
    if ends and ends[-1] >= limit // 2:
        return head[: ends[-1]]
    return head.rsplit(maxsplit=1)[0] if " " in head else head


def definition(system: str | None, wording: Wording | None = None) -> Digest:
    """Digest of the prompt definition with this system prompt and wording: changes when any served word would."""
    probe = render(system, [Message(role="user", content="?")], "!", worded(wording))
    return digest_of([message.model_dump() for message in probe] + [answer_part("")])
