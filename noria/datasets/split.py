"""Training and test rows: near-duplicate questions and rows of one conversation never lie on both sides.

A side, once given, is kept: it is looked up by digests of question, conversation and user, so that rows that arrive
later move nothing. What cannot keep all promises is left out.

Test rows belong to numbered sealed sets. Each verdict on a set tells a little of it to whoever makes the next candidate
(Dwork et al., "The reusable holdout", Science 2015), so a set is looked at so often only and the next one takes over;
rows of a set that has been retired are neither shown nor learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Literal

from noria.datasets import similar
from noria.datasets.draft import Draft
from noria.datasets.shingles import Clusters, char_shingles, jaccard, words
from noria.types import Example, Split, digest_of


@dataclass(frozen=True, slots=True)
class Side:
    """Where a member lies; `sealed` is the number of its sealed set, 0 for a training row."""

    split: Split
    sealed: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How to split. `share` of the components that are new become test rows, by time where `after` says so.

    New test rows go to the sealed set number `filling`.
    """

    share: float
    by: tuple[str, ...] = ("conversation",)
    after: date | Literal["newest"] | None = None
    filling: int = 1


@dataclass(slots=True)
class Sides:
    """Examples by side, every side ever given by member, and how many rows were left out as bridging."""

    train: list[Draft] = field(default_factory=list)
    test: list[Draft] = field(default_factory=list)
    members: dict[str, Side] = field(default_factory=dict)
    bridging: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    """A draft with its members: its question, and what else it must stay together with."""

    draft: Draft
    question: str
    groups: tuple[str, ...]

    @property
    def members(self) -> tuple[str, ...]:
        return self.question, *self.groups


def split(drafts: Iterable[Draft], known: Mapping[str, Side], plan: Plan) -> Sides:
    """Give each example its side.

    `known` maps members to the sides they have been given before (`Sides.members` of the last time). There is at least
    one component on each side where there are two components at all. Rows that would lie between both sides are counted
    as bridging: they are new, and near a test row or in a conversation of the other side, or newer than a training row
    may be. Made-up questions follow the real ones beside them and never make test rows.
    """
    rows = [_row(draft, plan) for draft in sorted(drafts, key=lambda draft: draft.example.id)]
    components = _components(rows)
    given = {side.split for side in _known(rows, known)}
    drawn = _draw({name: rows for name, rows in components.items() if not _known(rows, known)}, plan, given)
    sides = Sides(members=dict(known))
    for name, together in components.items():
        _place(together, drawn.get(name), known, plan, sides)
    return sides


def question_member(draft: Draft) -> str:
    """Digest of a question with its history; case, white space and punctuation do not count."""
    return digest_of(["question", *words(draft.text)])


def group_members(draft: Draft, by: Sequence[str]) -> tuple[str, ...]:
    """Digests of what a row must stay together with: its conversation, its user."""
    origin = draft.example.origin
    # What is made up of a document stays with what the document says itself.
    scope = f"source:{origin.removeprefix('synthetic:')}" if draft.synthetic else origin
    scope = scope if scope.startswith("source:") else "traffic"
    names = {"conversation": draft.example.conversation, "user": draft.user}
    return tuple(digest_of([kind, scope, names[kind]]) for kind in by if names[kind])


def _row(draft: Draft, plan: Plan) -> _Row:
    return _Row(draft, question_member(draft), group_members(draft, plan.by))


def _components(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    """Rows whose questions are near duplicates or that share a group, over any number of steps."""
    texts = {row.question: row.draft.text for row in rows}
    together = Clusters()
    for row in rows:
        for group in row.groups:
            together.join(row.question, group)
    members = sorted(texts)
    for member, first in zip(members, similar.clusters([texts[member] for member in members]), strict=True):
        together.join(member, members[first])
    components: dict[str, list[_Row]] = {}
    for row in rows:
        components.setdefault(together.find(row.question), []).append(row)
    return components


def _known(rows: Sequence[_Row], known: Mapping[str, Side]) -> set[Side]:
    return {known[member] for row in rows for member in row.members if member in known}


def _draw(fresh: Mapping[str, Sequence[_Row]], plan: Plan, given: set[Split]) -> dict[str, Split]:
    """Sides of components without any history: by their time, else by the hash of their smallest question."""
    real = {name: rows for name, rows in fresh.items() if not all(row.draft.synthetic for row in rows)}
    luck = {name: _fraction(min(row.question for row in rows)) for name, rows in real.items()}
    order = sorted(luck, key=lambda name: (luck[name], name))
    drawn: dict[str, Split] = {name: "test" if luck[name] < plan.share else "train" for name in order}
    if plan.after is not None:
        _by_time(real, plan, drawn)
        order.sort(key=lambda name: drawn[name] == "train")
    present = {*drawn.values(), *given}
    if order and "test" not in present and (len(order) > 1 or "train" in given):
        drawn[order[0]] = "test"
    if order and "train" not in present and (len(order) > 1 or "test" in given):
        drawn[order[-1]] = "train"
    return drawn | {name: "train" for name in fresh if name not in real}


def _by_time(fresh: Mapping[str, Sequence[_Row]], plan: Plan, drawn: dict[str, Split]) -> None:
    """Sides of the components that have times: a component is as old as its oldest row."""
    began: dict[str, datetime] = {}
    for name, rows in fresh.items():
        if times := [row.draft.at for row in rows if row.draft.at is not None]:
            began[name] = min(times)
    cut = _midnight(plan.after)
    if cut is None:
        newest = sorted(began, key=lambda name: (began[name], name))
        sealed = set(newest[len(newest) - round(plan.share * len(newest)) :])
    else:
        sealed = {name for name, at in began.items() if at >= cut}
    drawn.update({name: "test" if name in sealed else "train" for name in began})


def _midnight(after: date | str | None) -> datetime | None:
    return datetime.combine(after, time(), UTC) if isinstance(after, date) else None


def _fraction(member: str) -> float:
    return int(hashlib.sha256(member.encode()).hexdigest()[:13], 16) / 16**13


def _place(rows: Sequence[_Row], drawn: Split | None, known: Mapping[str, Side], plan: Plan, sides: Sides) -> None:
    """Put the rows of one component on their sides."""
    before = _known(rows, known)
    whole = Side(drawn, plan.filling if drawn == "test" else 0) if drawn else None
    if len({side.split for side in before}) == 1:
        # A test component that two sets have met by now belongs to the older one: it has been looked at.
        whole = min(before, key=lambda side: side.sealed)
    tested = _tested(rows, known) if whole is None else []
    late = _midnight(plan.after)
    # Rows with a known question come first, so that a new conversation takes the side of what is known of it.
    for row in sorted(rows, key=lambda row: (row.question not in known, row.draft.synthetic)):
        side = whole or _side_between(row, sides.members, tested)
        if side is None or _refused(row, side, late, known):
            sides.bridging += 1
            continue
        for member in row.members:
            sides.members[member] = side
        (sides.test if side.split == "test" else sides.train).append(row.draft)


def _refused(row: _Row, side: Side, late: datetime | None, known: Mapping[str, Side]) -> bool:
    """Whether a row may not lie on this side: a made-up one in the test, a new one in training that is too new."""
    if side.split == "test":
        return row.draft.synthetic
    return late is not None and row.draft.at is not None and row.draft.at >= late and row.question not in known


def _tested(rows: Sequence[_Row], known: Mapping[str, Side]) -> list[frozenset[str]]:
    texts = {row.question: row.draft.text for row in rows}
    there = sorted(member for member in texts if member in known and known[member].split == "test")
    return [char_shingles(texts[member]) for member in there]


def _side_between(row: _Row, given: Mapping[str, Side], tested: Sequence[frozenset[str]]) -> Side | None:
    """Side of a row in a component that has rows on both sides, or None when it would bridge them."""
    groups = [given[group] for group in row.groups if group in given]
    question = given.get(row.question)
    if question is not None:
        return question if all(side.split == question.split for side in groups) else None
    if any(side.split == "test" for side in groups):
        return None
    mine = char_shingles(row.draft.text)
    near = any(jaccard(mine, other) >= similar.SIMILAR for other in tested)
    return None if near else Side("train")


def on(side: Split, drafts: Iterable[Draft]) -> list[Example]:
    """The examples of these drafts as rows of a side."""
    return [
        draft.example if draft.example.split == side else draft.example.model_copy(update={"split": side})
        for draft in drafts
    ]
