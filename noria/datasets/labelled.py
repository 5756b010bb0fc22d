"""Rows of a task of kind classify: their targets are classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import JsonValue

from noria import classes
from noria.datasets.draft import Draft
from noria.errors import Invalid
from noria.settings import TaskSettings, known
from noria.types import digest_of

LEAST = 8
"""Rows below which nothing can be learned and measured."""
MOST = 200
"""More classes than this are no classification."""


def params(task: TaskSettings) -> dict[str, JsonValue]:
    """What of the settings changes the rows; nothing for a task of another kind."""
    return {} if task.kind == "chat" else {"classes": list(task.classes), "multi_label": task.multi_label}


def labelled(drafts: Sequence[Draft], task: TaskSettings, where: str) -> list[Draft]:
    """The drafts with their targets in the classes' own words.

    Rows of traffic that name no class are left out: a user may write anything. One of a source is Invalid, and so are
    more than 200 classes where the settings name none.
    """
    if task.kind == "chat":
        return list(drafts)
    names = task.classes or _found(drafts, task, where)
    kept, strange = [], Counter[str]()
    for draft in drafts:
        example = draft.example
        target = classes.canonical(example.target, names, task.multi_label)
        if target == example.target:
            kept.append(draft)
        elif target is not None:
            content = [part for message in example.messages for part in (message.role, message.content)]
            changed = example.model_copy(update={"target": target, "id": digest_of([*content, target])})
            kept.append(Draft(changed, draft.user, draft.giver, draft.at))
        elif _of_source(draft):
            strange[example.target] += 1
    if strange:
        first, count = strange.most_common(1)[0]
        raise Invalid(
            f"{strange.total()} rows have a target that is none of the classes, {count} of them '{first[:80]}'",
            known(first, names),
            where=where,
        )
    return kept


def check(train: Sequence[Draft], test: Sequence[Draft], name: str, task: TaskSettings, where: str) -> None:
    """Raise Invalid where a classifier cannot be made of these rows, or not be measured."""
    if task.kind == "chat":
        return
    if len(train) + len(test) < LEAST:
        raise Invalid(
            f"task '{name}' has {len(train) + len(test)} labelled rows; {LEAST} is the least", "label more", where=where
        )
    counts = Counter(each for draft in train for each in _classes(draft.example.target, task))
    everywhere = task.multi_label and min(counts.values(), default=0) == len(train)
    if len(counts) < 2 or everywhere:
        only = f"'{next(iter(counts))}'" if len(counts) == 1 else "the same classes"
        raise Invalid(
            f"all {len(train)} training rows of task '{name}' are of one class: {only}",
            "add rows of the others",
            where=where,
        )
    scarce = [each for each, count in sorted(counts.items()) if count < 2]
    if len(counts) - len(scarce) < 2:
        raise Invalid(
            f"class '{scarce[0]}' of task '{name}' has one training row, and fewer than two classes have more",
            "add rows of each class, in conversations of their own",
            where=where,
        )


def _found(drafts: Sequence[Draft], task: TaskSettings, where: str) -> tuple[str, ...]:
    """The classes that sources name, each in the words that come first in the alphabet."""
    texts = {each for draft in drafts if _of_source(draft) for each in _classes(draft.example.target, task)}
    names: list[str] = []
    for text in sorted(texts):
        if classes.canonical(text, names, several=False) is None:
            names.append(text)
    if len(names) > MOST:
        raise Invalid(
            f"the sources name {len(names)} classes, such as '{names[0][:80]}'; the most is {MOST}",
            'is it a task of kind = "chat"?',
            where=where,
        )
    return tuple(names)


def _classes(target: str, task: TaskSettings) -> tuple[str, ...]:
    return classes.split(target) if task.multi_label else (target,)


def _of_source(draft: Draft) -> bool:
    return draft.example.origin.startswith("source:")
