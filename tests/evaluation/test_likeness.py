"""How far two models lie apart: what must hold of divergences, and what the sums are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.evaluation import agreement

logits = st.lists(st.floats(-12, 12, width=32), min_size=5, max_size=5)


def array(*rows: list[float]) -> agreement.Logits:
    return np.array(rows, dtype=np.float32)


@given(logits, logits)
def test_a_divergence_is_never_negative_and_nothing_from_itself(one: list[float], other: list[float]) -> None:
    assert agreement.divergence(array(one), array(other))[0] >= 0
    assert agreement.divergence(array(one), array(one))[0] == 0


def test_the_divergence_is_the_one_of_the_books() -> None:
    p, q = [0.5, 0.25, 0.25], [0.25, 0.5, 0.25]
    found = agreement.divergence(*(array([math.log(each) for each in row]) for row in (p, q)))
    assert found[0] == pytest.approx(0.5 * math.log(2) + 0.25 * math.log(0.5), abs=1e-6)


def test_positions_with_the_same_choice_are_counted() -> None:
    source, other = array([3, 1, 0], [0, 2, 1], [1, 0, 4]), array([2, 1, 0], [3, 2, 1], [0, 0, 1])
    found = agreement.fidelity(source, other)
    assert found.agreement == pytest.approx(2 / 3)
    assert found.positions == 3
    assert found.kl_high >= found.kl > 0


def test_many_positions_are_the_same_as_few() -> None:
    random = np.random.default_rng(1)
    source, other = (random.standard_normal((150, 7)).astype(np.float32) for _ in range(2))
    whole = agreement.divergence(source, other)
    assert whole == pytest.approx([agreement.divergence(source[n : n + 1], other[n : n + 1])[0] for n in range(150)])


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        agreement.fidelity(array([1, 2]), array([1, 2, 3]))


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary() -> None:
    assert agreement.perplexity(np.full(9, math.log(50))) == pytest.approx(50)
    assert math.isnan(agreement.perplexity(np.zeros(0)))
