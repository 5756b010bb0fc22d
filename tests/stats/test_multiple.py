"""Tests on many groups: valid one by one, no false alarms together; intervals of shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.stats.intervals import of_share
from noria.stats.multiple import holm, loss_p


def test_holm_is_what_one_works_out_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_never_lowers_a_value(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(low <= high <= 1 for low, high in zip(values, adjusted, strict=True))
    order = sorted(range(len(values)), key=lambda number: values[number])
    assert [adjusted[number] for number in order] == sorted(adjusted)


def test_a_loss_is_seen_and_a_gain_is_none() -> None:
    rows = [str(row) for row in range(40)]
    assert loss_p([-0.2] * 40, rows) == pytest.approx(1e-4)
    assert loss_p([0.2] * 40, rows) == 1.0
    assert loss_p([0.0] * 40, rows) == 1.0


def test_without_a_difference_small_values_are_as_rare_as_they_say() -> None:
    generator = np.random.default_rng(5)
    rows = [str(row) for row in range(30)]
    found = [loss_p(generator.standard_t(3, 30).tolist(), rows, flips=399) for _ in range(1000)]
    assert 0.03 <= np.mean(np.asarray(found) <= 0.05) <= 0.07


def test_rows_of_one_conversation_count_once() -> None:
    gains = [-0.3, 0.1, -0.2, -0.1, -0.2]
    assert loss_p(gains * 10, list("abcde") * 10) == pytest.approx(loss_p(gains, list("abcde")), abs=0.02)


@pytest.mark.parametrize(("gains", "clusters"), [([], []), ([0.1], [])])
def test_what_cannot_be_tested_is_refused(gains: list[float], clusters: list[str]) -> None:
    with pytest.raises(ValueError, match="cannot be tested"):
        loss_p(gains, clusters)


def test_wilson_is_that_of_the_book() -> None:
    # Newcombe (1998), table I: 81 of 263 and 0 of 20.
    assert of_share(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert of_share(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert of_share(20, 20)[1] == 1.0
    with pytest.raises(ValueError, match="no share"):
        of_share(3, 2)
