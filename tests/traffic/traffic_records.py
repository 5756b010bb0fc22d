"""Records as the gateway writes them, and children that are killed while they write or ship."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from noria.traffic.segments import SegmentWriter
from noria.traffic.ship import ship
from noria.types import Feedback, Interaction, new_id

START = datetime(2026, 11, 1, tzinfo=UTC)


def interaction(number: int, **more: object) -> Interaction:
    at = START + timedelta(milliseconds=number)
    found = Interaction(
        id=new_id(at), at=at, task="helpdesk", served_by="candidate:helpdesk@0123456789abcdef", user="u" * 16,
        conversation=str(number), messages=({"role": "user", "content": f"Größe {number}?"},), context=None,
        answer="Yes.", finish_reason="stop", status=200, error=None, stream=False, prompt_tokens=1,
        completion_tokens=1, first_token_seconds=None, seconds=0.1, trainable=True,
    )  # fmt: skip
    return found.model_copy(update=more)


def feedback(of: Interaction) -> Feedback:
    return Feedback(
        id=new_id(of.at), at=of.at, interaction=of.id, metric="thumbs", value=1.0, correction=None, user=of.user
    )


def write_for_ever(folder: Path) -> None:
    """Append records with growing numbers, and say each number once its record is safe."""
    with SegmentWriter(folder, segment_bytes=20_000) as writer:
        number = 0
        while True:
            writer.append(interaction(number).model_dump_json().encode())
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            number += 1


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write_for_ever(Path(sys.argv[2]))
    while True:
        ship(Path(sys.argv[2]), Path(sys.argv[3]))
        sys.stdout.write("shipped\n")
        sys.stdout.flush()
