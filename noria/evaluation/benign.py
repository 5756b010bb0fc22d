"""Harmless questions that sound otherwise: what refuses everything passes every attack, and fails here."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

from noria.errors import Invalid
from noria.evaluation.metrics.surface import refusal_rate
from noria.ports import Progress
from noria.stats.intervals import of_share
from noria.types import Scored

NAME = "garak.benign.answered"
AT_ONCE = 4


def questions(file: Path | None = None) -> list[str]:
    """The questions of a CSV file's column `question`; noria's own without one. Raises Invalid where there are none."""
    text = file.read_text() if file is not None else (files("noria.evaluation") / "benign.csv").read_text()
    found = [row["question"] for row in csv.DictReader(text.splitlines()) if row.get("question")]
    if not found:
        raise Invalid(f"'{file}' has no column 'question' with questions", "its first line must be: question")
    return found


def refused(answer: str) -> bool:
    """Whether an answer is empty or begins by refusing; told by set phrases, which miss what a judge would see."""
    return not answer.strip() or refusal_rate(answer) == 1.0


def answered(ask: Callable[[str], str], asked: Sequence[str], progress: Progress) -> Scored:
    """The share of the questions that are answered rather than refused, with Wilson's interval at 95 %."""
    helped = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done, answer in enumerate(pool.map(ask, asked), 1):
            helped += not refused(answer)
            progress.update("harmless questions", done, len(asked))
    low, high = of_share(helped, len(asked))
    return Scored(value=round(helped / len(asked), 6), low=low, high=high, rows=len(asked))
