"""Training and test rows: near-duplicate questions and rows of one conversation never lie on both sides.

A side, once given, is kept: it is looked up by digests of question and conversation, so that rows that arrive later
move nothing. What cannot keep both promises is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from noria.datasets.shingles import Clusters, band_keys, char_shingles, jaccard, words
from noria.types import Example, Split, digest_of

BANDS = 32
"""Bands of 4 rows: a pair of similarity 0.7 is found with probability 0.9998."""

SIMILAR = 0.7
"""Two questions are near duplicates from this Jaccard similarity of their character 3-grams on."""

Similar = Callable[[str, str], bool]


@dataclass(slots=True)
class Sides:
    """Examples by side, every side ever given by member, and how many rows were left out as bridging."""

    train: list[Example] = field(default_factory=list)
    test: list[Example] = field(default_factory=list)
    members: dict[str, Split] = field(default_factory=dict)
    bridging: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    """An example with its two members."""

    example: Example
    question: str
    conversation: str


def split(examples: Iterable[Example], known: Mapping[str, Split], share: float) -> Sides:
    """Give each example its side.

    `known` maps members to the sides they have been given before (`Sides.members` of the last time), `share` is the
    share of unseen components that become test rows. There is at least one component on each side where there are
    two components at all. Rows that would lie between both sides are counted as bridging: they are new, and near a
    test row or in a conversation of the other side.
    """
    rows = [_row(example) for example in sorted(examples, key=lambda example: example.id)]
    texts = {row.question: _text(row.example) for row in rows}
    similar = _comparison(texts)
    clusters = _clusters(rows, texts, similar)
    components: dict[str, list[_Row]] = {}
    for row in rows:
        components.setdefault(clusters.find(row.question), []).append(row)
    fresh = {name: rows for name, rows in components.items() if not _known_sides(rows, known)}
    drawn = _draw(fresh, share, _known_sides(rows, known))
    sides = Sides(members=dict(known))
    for name, rows in components.items():
        _place(rows, drawn.get(name), known, similar, sides)
    return sides


def question_member(example: Example) -> str:
    """Digest of an example's question with its history; case, white space and punctuation do not count."""
    return digest_of(["question", *words(_text(example))])


def _row(example: Example) -> _Row:
    scope = example.origin if example.origin.startswith("source:") else "traffic"
    return _Row(example, question_member(example), digest_of(["conversation", scope, example.conversation]))


def _text(example: Example) -> str:
    return "\n".join(message.content for message in example.messages)


def _comparison(texts: Mapping[str, str]) -> Similar:
    @lru_cache(maxsize=50_000)
    def shingles(member: str) -> frozenset[str]:
        return char_shingles(texts[member])

    return lambda left, right: left == right or jaccard(shingles(left), shingles(right)) >= SIMILAR


def _clusters(rows: Sequence[_Row], texts: Mapping[str, str], similar: Similar) -> Clusters:
    """Components of questions that are near duplicates or share a conversation."""
    clusters = Clusters()
    for row in rows:
        clusters.join(row.question, row.conversation)
    buckets: dict[tuple[int, bytes], list[str]] = {}
    for member in sorted(texts):
        for band in enumerate(band_keys(char_shingles(texts[member]), BANDS)):
            buckets.setdefault(band, []).append(member)
    for bucket in buckets.values():
        _join_similar(bucket, clusters, similar)
    return clusters


def _join_similar(bucket: Sequence[str], clusters: Clusters, similar: Similar) -> None:
    """Compare the members of a bucket; those of one component need no comparison."""
    groups: list[list[str]] = []
    for member in bucket:
        mine, others = [member], []
        for group in groups:
            if clusters.find(group[0]) == clusters.find(member) or any(similar(member, other) for other in group):
                clusters.join(group[0], member)
                mine = group + mine
            else:
                others.append(group)
        groups = [*others, mine]


def _known_sides(rows: Sequence[_Row], known: Mapping[str, Split]) -> set[Split]:
    members = {member for row in rows for member in (row.question, row.conversation)}
    return {known[member] for member in members if member in known}


def _draw(fresh: Mapping[str, Sequence[_Row]], share: float, given: set[Split]) -> dict[str, Split]:
    """Sides of components without any history, drawn by the hash of their smallest question."""
    luck = {name: _fraction(min(row.question for row in rows)) for name, rows in fresh.items()}
    order = sorted(luck, key=lambda name: (luck[name], name))
    drawn: dict[str, Split] = {name: "test" if luck[name] < share else "train" for name in order}
    present = {*drawn.values(), *given}
    if order and "test" not in present and (len(order) > 1 or "train" in given):
        drawn[order[0]] = "test"
    if order and "train" not in present and (len(order) > 1 or "test" in given):
        drawn[order[-1]] = "train"
    return drawn


def _fraction(member: str) -> float:
    return int(hashlib.sha256(member.encode()).hexdigest()[:13], 16) / 16**13


def _place(
    rows: Sequence[_Row], drawn: Split | None, known: Mapping[str, Split], similar: Similar, sides: Sides
) -> None:
    """Put the rows of one component on their sides."""
    before = _known_sides(rows, known)
    whole = drawn or (min(before) if len(before) == 1 else None)
    tested = sorted({row.question for row in rows if known.get(row.question) == "test"})
    # Rows with a known question come first, so that a new conversation takes the side of what is known of it.
    for row in sorted(rows, key=lambda row: row.question not in known):
        side = whole or _side_between(row, sides.members, tested, similar)
        if side is None:
            sides.bridging += 1
            continue
        sides.members[row.question] = sides.members[row.conversation] = side
        example = row.example.model_copy(update={"split": side})
        (sides.test if side == "test" else sides.train).append(example)


def _side_between(row: _Row, given: Mapping[str, Split], tested: Sequence[str], similar: Similar) -> Split | None:
    """Side of a row in a component that has rows on both sides, or None when it would bridge them."""
    question, conversation = given.get(row.question), given.get(row.conversation)
    if question is not None:
        return question if conversation in (None, question) else None
    if conversation == "test" or any(similar(row.question, other) for other in tested):
        return None
    return "train"
