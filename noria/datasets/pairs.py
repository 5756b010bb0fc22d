"""Preference pairs: what was preferred over what, for the same question, as preference training wants it.

A correction is preferred over the answer that it corrects; a liked answer over a disliked one to nearly the same
question. Only training rows make pairs: a question of the test side, or near one, gives none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from noria import prompts
from noria.datasets import similar
from noria.datasets.contamination import Held
from noria.datasets.draft import Draft
from noria.datasets.gather import CORRECTION, THUMBS, answered, as_example, commented, said_of, turns
from noria.datasets.rows import as_json, write_table
from noria.datasets.schema import PAIRS
from noria.datasets.scrub import DROP, Scrubber
from noria.datasets.shingles import words
from noria.datasets.split import Side, Sides, group_members, question_member
from noria.settings import TaskSettings
from noria.types import Feedback, Interaction, Message, digest_of


@dataclass(frozen=True, slots=True)
class Pair:
    """To `messages`, `chosen` was preferred over `rejected`; the texts are scrubbed."""

    origin: str
    conversation: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    context: str | None = None

    @property
    def id(self) -> str:
        """Digest of messages and both answers."""
        return digest_of([as_json(self.messages), self.chosen, self.rejected])


def gathered(
    interactions: Sequence[Interaction],
    feedback: Sequence[Feedback],
    task: TaskSettings,
    sides: Sides,
    scrubber: Scrubber,
    learned: Collection[str],
) -> list[Pair]:
    """The pairs that traffic holds, each once, in order of their ids.

    What is preferred is among the ids `learned` of the training rows: what poisoning, limits of users or contamination
    took out comes in by no other door. What `scrubber` counts has been counted where the texts became examples.
    """
    liked: list[Draft] = []
    found: list[tuple[Pair, tuple[Draft, ...]]] = []
    for interaction, messages, note in commented(interactions, feedback, task):
        draft = _draft(interaction, messages, note.correction or interaction.answer, task, scrubber)
        if not note.correction:
            liked.append(draft)
        elif answered(interaction):
            rejected = _short(scrubber.text(interaction.answer.strip()), task)
            found.append((_pair(CORRECTION, draft, rejected), (draft,)))
    disliked = list(_disliked(interactions, feedback, task, scrubber))
    found += [(_pair(THUMBS, good, bad.example.target), (good, bad)) for good, bad in _matched(liked, disliked)]
    known = [(pair, drafts) for pair, drafts in found if drafts[0].example.id in learned]
    by_id = {
        pair.id: pair
        for pair in _learnable(known, sides, task.split.by)
        if words(pair.chosen) != words(pair.rejected) and DROP not in pair.rejected
    }
    return [by_id[key] for key in sorted(by_id)]


def write(pairs: Iterable[Pair], beside: Callable[[str], str | None], file: Path) -> int:
    """Write the pairs with the context they would be served with; returns how many there are."""
    rows = [replace(pair, context=beside(pair.messages[-1].content)) for pair in pairs]
    columns: Mapping[str, list[str | None]] = {
        "id": [row.id for row in rows],
        "messages": [as_json(row.messages) for row in rows],
        **{
            name: [getattr(row, name) for row in rows]
            for name in ("origin", "conversation", "context", "chosen", "rejected")
        },
    }
    write_table(pa.table([columns[name] for name in PAIRS.names], schema=PAIRS), PAIRS, "id", file)
    return len(rows)


def _disliked(
    interactions: Sequence[Interaction], feedback: Sequence[Feedback], task: TaskSettings, scrubber: Scrubber
) -> Iterator[Draft]:
    """Answers that were voted down, so many of one user at most as liked ones."""
    said = said_of(feedback)
    voted: Counter[str] = Counter()
    for interaction in interactions:
        thumbs = said[interaction.id].thumbs if interaction.id in said else None
        if thumbs is None or (thumbs.value or 0) > 0 or not interaction.trainable or not answered(interaction):
            continue
        if not (messages := turns(interaction)):
            continue
        voted[thumbs.user] += 1
        if voted[thumbs.user] <= task.feedback.thumbs_per_user:
            yield _draft(interaction, messages, interaction.answer, task, scrubber)


def _matched(liked: Sequence[Draft], disliked: Sequence[Draft]) -> Iterator[tuple[Draft, Draft]]:
    """For each disliked answer the liked one to the same question, or to one that is nearly the same."""
    clusters = similar.clusters([draft.text for draft in (*liked, *disliked)])
    by_cluster: dict[int, list[Draft]] = {}
    for draft, cluster in zip(liked, clusters, strict=False):
        by_cluster.setdefault(cluster, []).append(draft)
    for draft, cluster in zip(disliked, clusters[len(liked) :], strict=True):
        if good := by_cluster.get(cluster):
            same = [each for each in good if each.text == draft.text]
            yield (same or good)[-1], draft


def _learnable(found: Sequence[tuple[Pair, tuple[Draft, ...]]], sides: Sides, by: Sequence[str]) -> Iterator[Pair]:
    """Pairs of which no question is sealed or near a sealed one, and that are in no conversation of a test row."""
    held = Held()
    held.add("sealed rows", (draft.text for draft in sides.test), least=0)
    flat = [(number, draft) for number, (_, drafts) in enumerate(found) for draft in drafts]
    texts = [draft.text for _, draft in flat]
    near = held.near(texts) | held.shared(texts)
    sealed = {
        number for place, (number, draft) in enumerate(flat) if place in near or _tested(draft, sides.members, by)
    }
    yield from (pair for number, (pair, _) in enumerate(found) if number not in sealed)


def _tested(draft: Draft, members: Mapping[str, Side], by: Sequence[str]) -> bool:
    there = (question_member(draft), *group_members(draft, ("conversation", *by)))
    return any(member in members and members[member].split == "test" for member in there)


def _draft(
    interaction: Interaction, messages: tuple[Message, ...], target: str, task: TaskSettings, scrubber: Scrubber
) -> Draft:
    example = as_example(
        THUMBS,
        "traffic",
        scrubber.conversation(interaction.conversation),
        scrubber.messages(messages),
        _short(scrubber.text(target.strip()), task),
        "",
    )
    return Draft(example, interaction.user)


def _short(text: str, task: TaskSettings) -> str:
    return prompts.shorten(text, task.answer_chars)


def _pair(origin: str, draft: Draft, rejected: str) -> Pair:
    example = draft.example
    return Pair(origin, example.conversation, example.messages, example.target, rejected)
