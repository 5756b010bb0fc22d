"""A project that asks for labels, its traffic, and a child that chooses rows until it is killed."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from noria.apps import start
from noria.apps.recording import recorder
from noria.evaluation import queue
from noria.ports import Platform
from noria.types import Feedback, Interaction, new_id
from noria.wiring import open_project

NEW, OLD = "candidate:helpdesk@0123456789abcdef", "candidate:helpdesk@fedcba9876543210"


def project(folder: Path, *lines: str, more: str = "") -> Path:
    start.make(folder)
    file = folder / "noria.toml"
    file.write_text("\n".join([file.read_text(), "[tasks.helpdesk.labels]", *lines, more, ""]))
    return folder


def answered(number: int, ago: timedelta = timedelta(), **more: Any) -> Interaction:
    at = datetime.now(UTC) - ago + timedelta(milliseconds=number)  # noqa: TID251
    found = Interaction(
        id=new_id(at), at=at, task="helpdesk", served_by=NEW, user="u" * 16, conversation=f"c{number}",
        messages=({"role": "user", "content": f"Question {number}?"},), context="The manual.",
        answer=f"Press {number}.", finish_reason="stop", status=200, error=None, stream=False, prompt_tokens=1,
        completion_tokens=1, first_token_seconds=None, seconds=0.1, trainable=True,
    )  # fmt: skip
    return found.model_copy(update=more)


def traffic(count: int, seed: int = 1, **more: Any) -> list[Interaction]:
    """Answers with even scores."""
    drawing = random.Random(seed)
    return [answered(number, support=round(drawing.random(), 6), **more) for number in range(count)]


def log(platform: Platform, records: Iterable[Interaction | Feedback]) -> None:
    with recorder(platform) as writer:
        for each in records:
            writer.append(each.model_dump_json().encode())


if __name__ == "__main__":
    # Chooses again and again from traffic that goes on coming, as a cron job would.
    platform = open_project(Path(sys.argv[1]))
    number = int(sys.argv[2])
    while True:
        log(platform, [answered(number + place, support=place / 40) for place in range(40)])
        number += 40
        queue.choose(platform, "helpdesk")
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
