"""Answers that are none are told from those that are, and counted."""

from __future__ import annotations

import pytest

from noria.evaluation import garbage

PROSE = (
    "A refrigerator moves heat out of a box. A fluid evaporates inside and takes heat up, a compressor pumps it "
    "outside, and there it gives the heat away and becomes liquid again, so that the circle can begin anew."
)
# Answers of a real model: the first only names its topic often, the second goes round.
SEASONS = (
    "We have seasons because of the Earth's orbit around the Sun. The Earth takes approximately 365.25 days to "
    "complete one orbit around the Sun. This is known as a cycle of the Earth's orbit around the Sun. The Earth's "
    "orbit is called a planet's orbit around the Sun."
)
BURN = (
    "If you burn your finger on a hot pan, it's important to know that it can be a serious situation. First, you need "
    "to know that it can be a serious situation. Second, you need to know that it can be a serious situation. Third, "
    "you need to know that it can"
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        (" \n ?!", "empty"),
        ("Paris.", None),
        ("no no no", None),
        (PROSE, None),
        ("the the the the the the the", "repeated"),
        ("I am happy to help you with that. " * 8, "repeated"),
        ("ha" * 60, "repeated"),
        ("one two " * 20, "repeated"),
        ("ünlü şehir İstanbul'dur.", None),
        (SEASONS, None),
        (BURN, "repeated"),
        ("1. Wash it. 2. Dry it. 3. Fold it. 4. Put it away.", None),
    ],
)
def test_the_form_of_an_answer(text: str, fault: str | None) -> None:
    assert garbage.fault(text) == fault


def test_what_was_cut_off_is_counted_by_itself() -> None:
    found = garbage.count([(PROSE, True), ("", True), (PROSE, False), ("la la la la la la", True)])
    assert found == garbage.Garbage(answers=4, empty=1, repeated=1, cut=1)
    assert found.all == 2


def test_nothing_asked_is_nothing_wrong() -> None:
    assert garbage.count([]).all == 0
