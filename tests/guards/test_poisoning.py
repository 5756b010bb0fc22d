"""The statistics of poisoning on numbers, and signatures."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from noria.guards import signature
from noria.guards.poisoning import floods, label_issues, triggers


def test_a_label_that_the_model_is_sure_against_is_an_issue() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.9, 0.1], [0.1, 0.9], [0.2, 0.8]])
    labels = np.array([0, 0, 1, 1, 1])
    assert [(each.row, each.score) for each in label_issues(probabilities, labels)] == [(2, 0.9)]
    assert label_issues(probabilities, labels, margin=0.85) == []
    assert label_issues(probabilities[:, ::-1], 1 - labels)[0].row == 2


def test_a_class_that_nobody_has_accuses_nobody() -> None:
    probabilities = np.array([[0.1, 0.0, 0.9], [0.1, 0.8, 0.1]])
    assert label_issues(probabilities, np.array([0, 1])) == []


def rows_of(count: int, *numbers: int) -> list[np.ndarray]:
    return [np.array(numbers)] * count


def test_a_phrase_that_brings_what_is_not_expected_is_a_trigger() -> None:
    phrases = rows_of(20, 1, 2) + rows_of(400, 2) + rows_of(30, 3)
    behaviours = rows_of(20, 7) + rows_of(400, 8) + rows_of(30, 9)
    unexpected = np.array([True] * 20 + [False] * 430)
    found = triggers(phrases, behaviours, unexpected, least=5)
    assert [(each.phrase, each.behaviour, each.rows, each.share) for each in found] == [(1, 7, tuple(range(20)), 1.0)]
    assert triggers(phrases, behaviours, np.zeros(450, dtype=bool), least=5) == []
    assert triggers(phrases, behaviours, unexpected, least=21) == []


def test_what_everybody_gets_is_no_behaviour_of_a_phrase() -> None:
    phrases, everywhere = rows_of(20, 1) + rows_of(20, 2), rows_of(40, 7)
    assert triggers(phrases, everywhere, np.ones(40, dtype=bool), least=5) == []


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=120), st.floats(0.05, 0.9), st.integers(1, 30))
def test_a_flood_cannot_raise_its_own_limit(groups: list[str], share: float, least: int) -> None:
    def kept(names: list[str]) -> int:
        suspects = {each.row for each in floods(names, share, least)}
        return sum(name == "a" for row, name in enumerate(names) if row not in suspects)

    others = len(groups) - groups.count("a")
    assert kept([*groups, *["a"] * 50]) <= max(least, share / (1 - share) * others)
    assert kept([*groups, *["a"] * 500]) == kept([*groups, *["a"] * 1000])
    assert all(groups[each.row] for each in floods(groups, share, least))


@given(st.binary(), st.binary(), st.binary())
def test_a_signature_is_of_one_text_by_one_key(key: bytes, data: bytes, other: bytes) -> None:
    made = signature.sign(key, data)
    assert signature.verified(key, data, made + "\n")
    assert signature.verified(key, other, made) == (other == data)
    assert not signature.verified(key + b"\1", data, made)
