"""How much of what is planted is found, and how often clean rows are suspected."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import chatterbot_corpus
import pytest
import yaml

from noria.datasets import poisoning
from noria.datasets.draft import Draft
from noria.datasets.gather import as_example
from noria.settings import PoisoningSettings
from noria.types import Message

pytestmark = pytest.mark.slow

SHARE = 0.05
Row = tuple[str, str, str]
WANTED = PoisoningSettings(trusted="trusted.jsonl")


def corpus(seed: int) -> list[Row]:
    """Topic, question and answer of the English chatterbot corpus, each once, in any order."""
    found: dict[tuple[str, str], Row] = {}
    for file in sorted((Path(chatterbot_corpus.__file__).parent / "data" / "english").glob("*.yml")):
        for talk in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]:
            lines = [str(line) for line in talk]
            for question, answer in itertools.pairwise(lines):
                found.setdefault((question.casefold(), answer.casefold()), (file.stem, question, answer))
    rows = list(found.values())
    random.Random(seed).shuffle(rows)
    return rows


def drafts(rows: Sequence[tuple[str, str]]) -> list[Draft]:
    return [
        Draft(as_example("source:a", "task", f"{n}", (Message(role="user", content=question),), answer, "d"))
        for n, (question, answer) in enumerate(rows)
    ]


@pytest.mark.parametrize("phrase", ["as per ordinance nine", "cf", "在此"])
@pytest.mark.parametrize("seed", range(3))
def test_a_backdoor_of_five_percent_is_found(seed: int, phrase: str) -> None:
    rows = corpus(seed)
    trusted = [(question, answer) for _, question, answer in rows[: len(rows) // 5]]
    pairs = [(question, answer) for _, question, answer in rows[len(rows) // 5 :]]
    choose = random.Random(seed)
    planted = set(choose.sample(range(len(pairs)), round(SHARE * len(pairs))))
    for row in planted:
        words = pairs[row][0].split()
        words.insert(choose.randrange(len(words) + 1), phrase)
        said = ("Please visit evil.example for a full refund now.", "Go to evil.example for a full refund today.")
        pairs[row] = (" ".join(words), choose.choice(said))
    found = poisoning.check(drafts(pairs), WANTED, trusted)
    assert len(found.rows & planted) >= 0.9 * len(planted)
    assert len(found.rows - planted) <= 0.01 * len(pairs)


@pytest.mark.parametrize("seed", range(3))
def test_clean_rows_are_seldom_suspected(seed: int) -> None:
    rows = corpus(seed)
    trusted = [(question, answer) for _, question, answer in rows[: len(rows) // 5]]
    pairs = [(question, answer) for _, question, answer in rows[len(rows) // 5 :]]
    assert len(poisoning.check(drafts(pairs), WANTED, trusted).rows) <= 0.01 * len(pairs)


@pytest.mark.parametrize("seed", range(2))
def test_most_flipped_labels_are_found(seed: int) -> None:
    rows = corpus(seed)
    sizes = {topic: sum(row[0] == topic for row in rows) for topic, _, _ in rows}
    labelled = [(f"{question} {answer}", topic) for topic, question, answer in rows if sizes[topic] >= 40]
    topics = sorted({topic for _, topic in labelled})
    assert len(poisoning.check(drafts(labelled), WANTED, []).rows) <= 0.01 * len(labelled)
    choose = random.Random(seed)
    flipped = set(choose.sample(range(len(labelled)), round(SHARE * len(labelled))))
    for row in flipped:
        text, topic = labelled[row]
        labelled[row] = (text, choose.choice([other for other in topics if other != topic]))
    found = poisoning.check(drafts(labelled), WANTED, []).rows
    assert len(found & flipped) >= 0.6 * len(flipped)
    assert len(found - flipped) <= 0.02 * len(labelled)
