"""Near duplicates: what is planted is found, and none of it crosses a split."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import chatterbot_corpus
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from noria.datasets import similar
from noria.datasets.draft import Draft
from noria.datasets.gather import as_example
from noria.datasets.shingles import char_shingles, jaccard, word_shingles
from noria.datasets.split import Plan, split
from noria.types import Message

TEXTS = st.lists(st.text("abc ", max_size=12), max_size=12)


def near(left: str, right: str) -> float:
    return jaccard(char_shingles(left), char_shingles(right))


@given(TEXTS)
def test_who_is_near_lies_in_one_cluster_and_nobody_else(texts: list[str]) -> None:
    found = similar.clusters(texts)
    for one, left in enumerate(texts):
        assert found[one] <= one
        for other, right in enumerate(texts):
            if near(left, right) >= 0.8:
                assert found[one] == found[other]
        linked = [other for other, right in enumerate(texts) if other != one and near(left, right) >= similar.SIMILAR]
        assert linked or found.count(found[one]) == 1


@given(TEXTS, TEXTS)
def test_matches_are_verified(texts: list[str], held: list[str]) -> None:
    found = similar.matches(texts, held)
    assert all(near(texts[number], held[place]) >= similar.SIMILAR for number, place in found.items())
    assert {number for number, text in enumerate(texts) if text in held} <= set(found)


def test_a_flood_of_one_text_is_one_cluster() -> None:
    texts = [f"Where is my order number {number % 7}, please, it is late?" for number in range(3000)]
    assert set(similar.clusters(texts)) == {0}


def edited(text: str, choose: random.Random, by: str) -> str | None:
    """The text with as many edits as leave it a near duplicate of Jaccard similarity 0.8 or more, or None."""
    shingles = char_shingles if by == "characters" else word_shingles
    best, line = None, text
    for _ in range(6):
        parts: list[str] = list(line) if by == "characters" else line.split()
        at = choose.randrange(len(parts))
        parts[at : at + choose.choice((0, 1))] = [choose.choice("aeinrst") if by == "characters" else "really"]
        line = ("" if by == "characters" else " ").join(parts)
        if jaccard(shingles(text), shingles(line)) < 0.8:
            break
        if line != text:
            best = line
    return best


def questions(count: int, choose: random.Random) -> Sequence[str]:
    """Different questions of real sentences in several languages."""
    folder = Path(chatterbot_corpus.__file__).parent / "data"
    said = {
        str(line)
        for language in ("english", "german", "french", "spanish", "russian", "chinese", "hindi")
        for file in sorted((folder / language).glob("*.yml"))
        for talk in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
        for line in talk
    }
    pool = sorted(line for line in said if len(line) > 12)
    return [" ".join(choose.sample(pool, 3)) for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["characters", "words"])
def test_none_of_1000_planted_near_duplicates_crosses_the_split(by: str) -> None:
    choose = random.Random(11)
    pairs: list[tuple[str, str]] = []
    for text in questions(4000, choose):
        if len(pairs) < 1000 and (copy := edited(text, choose, by)) is not None:
            pairs.append((text, copy))
    assert len(pairs) == 1000
    drafts = [
        Draft(
            as_example("source:a", "task", f"{number}-{side}", (Message(role="user", content=text),), f"{number}", "d")
        )
        for number, pair in enumerate(pairs)
        for side, text in enumerate(pair)
    ]
    whole = split(drafts, {}, Plan(0.5))
    # Half of the copies come one turn later, when the sides of the others are given.
    first = split([draft for draft in drafts if not draft.example.conversation.endswith("1")], {}, Plan(0.5))
    later = split(drafts, first.members, Plan(0.5))
    for sides in (whole, later):
        trained = {draft.example.target for draft in sides.train}
        sealed = {draft.example.target for draft in sides.test}
        assert len(trained) > 300
        assert len(sealed) > 300
        assert len(trained & sealed) == 0
