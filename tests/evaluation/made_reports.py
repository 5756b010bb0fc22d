"""Reports made up for tests: as many rows, groups and losses as a test wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from noria.evaluation.report import OWN_SLICES
from noria.stats.paired import of_scores
from noria.types import Candidate, Interval, Ref, Report, RowScore, digest_of

LANGUAGES = ("en", "de", "fr", "ru")
LENGTHS = ("up to 8 words", "9 to 20 words", "21 to 60 words")
TOPICS = ("parcel, delivery, late", "money, refund, card", "repair, wheel, broken")


def candidate(adapter: str | None, base: str = "smollm2-135m-instruct") -> Candidate:
    return Candidate(
        task="helpdesk",
        base=Ref(kind="base", name=base, digest="0" * 16),
        adapter=Ref(kind="adapter", name="helpdesk", digest=adapter * 16) if adapter else None,
        engine="local",
        quantization="Q4_1",
        prompt="1" * 16,
    )


def intervals(rows: Sequence[RowScore]) -> dict[str, dict[str, Interval]]:
    groups = {"all": [row for row in rows if row.slice in OWN_SLICES]}
    for row in rows:
        groups.setdefault(row.slice, []).append(row)
    return {
        group: {
            "token_f1": of_scores(
                "token_f1", [row.before["token_f1"] for row in members], [row.after["token_f1"] for row in members],
                [row.conversation for row in members],
            )
        }
        for group, members in groups.items()
    }  # fmt: skip


def made(
    rows: int = 300,
    gain: float = 0.0,
    seed: int = 0,
    lost: Mapping[str, float] | None = None,
    per_conversation: int = 1,
    score: float = 0.5,
) -> Report:
    """`lost` maps values of tags to what is added to the candidate's score there; noise is heavy, as F1 is."""
    generator = np.random.default_rng(seed)
    scores = []
    for number in range(rows):
        tags = {
            "language": LANGUAGES[int(generator.integers(len(LANGUAGES)))],
            "length": LENGTHS[int(generator.integers(len(LENGTHS)))],
            "topic": TOPICS[int(generator.integers(len(TOPICS)))],
        }
        before = float(np.clip(generator.normal(score, 0.3), 0, 1))
        # Half of the answers stay what they were.
        moved = generator.normal(gain, 0.25) if generator.random() < 0.5 else gain
        moved += sum(change for value, change in (lost or {}).items() if value in tags.values())
        after = float(np.clip(before + moved, 0, 1))
        scores.append(
            RowScore(
                id=digest_of(number), slice="traffic" if number % 5 == 0 else "task",
                conversation=f"c{number // per_conversation}", question=f"Question {number}?", target="The answer.",
                champion="An old answer.", candidate=f"Answer {number}.",
                before={"token_f1": round(before, 6)}, after={"token_f1": round(after, 6)}, tags=tags,
            )
        )  # fmt: skip
    return Report(
        candidate=candidate("a"), champion=candidate(None), intervals=intervals(scores),
        rows=tuple(scores), checks={"parity": 0.98, "changed": 1.0},
    )  # fmt: skip
