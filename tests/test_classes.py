"""Classes as answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria import classes

NAMES = ("yes", "no", "needs a doctor")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("yes", "yes"),
        (" Yes. ", "yes"),
        ("NEEDS  a doctor!", "needs a doctor"),
        ("maybe", None),
        ("yes; no", None),
        ("", None),
    ],
)
def test_a_target_is_brought_to_the_words_of_its_class(text: str, wanted: str | None) -> None:
    assert classes.canonical(text, NAMES, several=False) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"), [("no; yes", "yes; no"), ("No;no", "no"), ("yes; maybe", None), (" ; ", None)]
)
def test_several_classes_come_in_the_order_of_the_task(text: str, wanted: str | None) -> None:
    assert classes.canonical(text, NAMES, several=True) == wanted


@given(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
def test_what_is_joined_is_split_again(names: list[str]) -> None:
    assert classes.split(classes.join(names)) == tuple(names)


def test_each_kind_of_engine_is_told_in_its_own_way() -> None:
    assert classes.among("classes", NAMES, several=False) == {"classes": list(NAMES), "several": False}
    assert classes.among("structured_outputs", NAMES, several=False) == {"structured_outputs": {"choice": list(NAMES)}}
    assert classes.among("structured_outputs", NAMES, several=True) == {}
    grammar = str(classes.among("grammar", ('say "so"', "no"), several=True)["grammar"])
    assert grammar == 'root ::= " "? class ("; " class)*\nclass ::= "say \\"so\\"" | "no"'
    assert classes.among("grammar", (), several=False) == classes.among("", NAMES, several=False) == {}
