"""Rows of a task of kind classify."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from noria.datasets import labelled
from noria.datasets.draft import Draft
from noria.datasets.gather import as_example
from noria.errors import Invalid
from noria.settings import EncoderRecipe, TaskSettings
from noria.types import Message

HERE = "noria.toml:7"


def task(*classes: str, several: bool = False) -> TaskSettings:
    return TaskSettings(
        kind="classify", classes=classes, multi_label=several, sources=("data",), base="b", engine="e",
        recipe=EncoderRecipe(),
    )  # fmt: skip


def drafts(targets: Sequence[str], origin: str = "source:data") -> list[Draft]:
    return [
        Draft(as_example(origin, "task", f"c{n}", (Message(role="user", content=f"text {n}"),), target, ""))
        for n, target in enumerate(targets)
    ]


def test_targets_come_in_the_words_of_the_classes() -> None:
    found = labelled.labelled(drafts(["Yes.", "no", "NO"]), task("yes", "no"), HERE)
    assert [each.example.target for each in found] == ["yes", "no", "no"]
    assert len({each.example.id for each in found}) == 3


def test_without_classes_the_sources_name_them() -> None:
    found = labelled.labelled(
        [*drafts(["no", "yes", "No"]), *drafts(["YES", "rubbish"], "traffic:correction")], task(), HERE
    )
    assert [each.example.target for each in found] == ["No", "yes", "No", "yes"]


def test_a_source_that_names_another_class_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(Invalid, match=r"2 rows .* 'yess'") as caught:
        labelled.labelled(drafts(["yess", "yess", "no"]), task("yes", "no"), HERE)
    assert "yes" in caught.value.hint
    assert caught.value.where == HERE


def test_free_texts_are_no_classes() -> None:
    with pytest.raises(Invalid, match="201 classes"):
        labelled.labelled(drafts([f"answer {number}" for number in range(201)]), task(), HERE)


@pytest.mark.parametrize(
    ("train", "several", "said"),
    [
        (["yes"] * 9, False, "of one class: 'yes'"),
        (["yes"] * 8 + ["no"], False, "'no' .* one training row"),
        (["yes", "no", "yes"], False, "4 labelled rows"),
        (["yes; no"] * 9, True, "of one class"),
    ],
)
def test_what_no_classifier_can_be_made_of_is_refused(train: list[str], several: bool, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        labelled.check(drafts(train), drafts(["yes"]), "help", task("yes", "no", several=several), HERE)


def test_enough_rows_of_two_classes_pass() -> None:
    labelled.check(drafts(["yes", "no"] * 4), drafts(["yes"]), "help", task("yes", "no"), HERE)
