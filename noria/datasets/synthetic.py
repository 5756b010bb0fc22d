"""Questions that an engine makes up to documents, for training only; what it has once said is not asked again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from noria import prompts
from noria.datasets.draft import SYNTHETIC, Draft
from noria.datasets.gather import as_example
from noria.datasets.scrub import Scrubber
from noria.datasets.shingles import words
from noria.ports import Engine
from noria.settings import SyntheticSettings
from noria.stage import Work
from noria.types import Document, Message, digest_of

ORDER = (
    "Read the text. Write {count} different questions that a customer could ask and that the text answers. "
    "One question on a line, nothing else.\n\n{text}"
)
"""What the engine is told, with `count` and `text`."""
_TOKENS = 48
"""Most tokens of one question."""

_MARK = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):])\s*")


def questions(work: Work, documents: Iterable[Document], wanted: SyntheticSettings, scrubber: Scrubber) -> list[Draft]:
    """Made-up questions to scrubbed documents, answered by what the documents say.

    Greedy answers of one model to one text are kept in the project's state folder under the digest of both, so that a
    rerun makes the same rows and starts no engine. Raises Invalid or Unavailable as engines do.
    """
    settings = work.platform.settings.engines[wanted.engine]
    kind = work.platform.engines[settings.kind]
    base, quantization = kind.base(settings)
    folder = work.platform.settings.state / "synthetic"
    chosen = [document for document, _ in zip(documents, range(wanted.documents), strict=False)]
    engine = None
    drafts: list[Draft] = []
    with ExitStack() as stack:
        for done, document in enumerate(chosen):
            order = ORDER.format(count=wanted.per_document, text=_text(document, work.task.context_chars))
            file = folder / f"{digest_of([str(base), quantization, settings.url, order])}.json"
            if not file.is_file():
                if engine is None:
                    log = work.platform.settings.state / "logs" / "synthetic.log"
                    engine = kind.start(settings, {}, log)
                    stack.callback(engine.close)
                _keep(_ask(engine, order, wanted), file)
            drafts += _drafts(document, json.loads(file.read_text(encoding="utf-8")), wanted, work, scrubber)
            work.progress.update("made-up questions", done + 1, len(chosen))
    return drafts


def _ask(engine: Engine, order: str, wanted: SyntheticSettings) -> list[str]:
    said = engine.answer([Message(role="user", content=order)], None, _TOKENS * wanted.per_document, [])
    return list(_questions(said.text, wanted.per_document))


def _questions(text: str, most: int) -> Iterator[str]:
    """What reads as a question in an answer, without numbers and bullets, each once."""
    seen: set[tuple[str, ...]] = set()
    for line in text.splitlines():
        question = _MARK.sub("", line).strip().strip("\"'*")
        key = tuple(words(question))
        # A question that is none teaches a task that nobody has.
        if question.endswith(("?", "？", "؟")) and 2 <= len(key) <= 60 and key not in seen and len(seen) < most:
            seen.add(key)
            yield question


def _keep(found: list[str], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    fresh.replace(file)


def _text(document: Document, limit: int) -> str:
    return prompts.shorten(document.text, limit)


def _drafts(
    document: Document, found: list[str], wanted: SyntheticSettings, work: Work, scrubber: Scrubber
) -> Iterator[Draft]:
    target = prompts.shorten(document.fields.get("body", "").strip() or document.text, work.task.answer_chars)
    for question in found:
        messages = (Message(role="user", content=scrubber.text(question)),)
        origin = f"{SYNTHETIC}{wanted.source}"
        yield Draft(as_example(origin, "task", document.conversation, messages, target, document.id))
