"""Intervals over conversations, and preference at equal length."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from noria.stats import clustered
from noria.stats.preference import length_control


def test_rows_of_one_conversation_count_as_one() -> None:
    numbers = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    once = clustered.mean(numbers, list("abcdef"))
    often = clustered.mean(numbers * 10, list("abcdef") * 10)
    assert once is not None
    assert often is not None
    assert often.low == pytest.approx(once.low)
    assert clustered.mean(numbers, ["a"] * 6) is None
    balanced = clustered.mean([0.0, 1.0] * 10, [str(n // 2) for n in range(20)])
    assert balanced is not None
    assert balanced.high - balanced.low > 0.3


def test_the_slope_is_that_of_x_alone() -> None:
    drawn = np.random.default_rng(0)
    given = drawn.normal(0, 1, 500)
    x = given + drawn.normal(0, 1, 500)
    y = 2 * given + 0.5 * x + drawn.normal(0, 0.1, 500)
    found = clustered.slope(x.tolist(), y.tolist(), given.tolist(), [str(n) for n in range(500)])
    assert found is not None
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.05


def test_a_slope_that_cannot_be_told_is_not() -> None:
    names = [str(n) for n in range(20)]
    x = [float(n) for n in range(20)]
    assert clustered.slope(x, x, x, names) is None
    assert clustered.slope([1.0] * 20, x, x[::-1], names) is None
    assert clustered.slope(x, x, [0.0] * 20, ["a"] * 20) is None


def test_perfect_agreement_of_few_conversations_is_not_sure() -> None:
    def always(chosen: Sequence[int]) -> float:
        return 1.0

    found = clustered.coefficient(always, list("abcde"))
    assert found is not None
    assert found.value == found.high == 1.0
    assert found.low < 0.5
    assert clustered.coefficient(lambda chosen: math.nan, list("abcde")) is None


def test_what_only_length_decides_is_a_draw_at_equal_length() -> None:
    """A judge who always prefers the longer answer separates the outcomes; the coefficients stay finite."""
    differences = [float(each) for each in range(-50, 70) if each]
    found = length_control([float(each > 0) for each in differences], differences)
    assert found is not None
    assert 0.45 < found.win_rate < 0.55
    assert 1 < found.slope < 100


def test_what_length_does_not_decide_keeps_its_win_rate() -> None:
    drawn = np.random.default_rng(4)
    wins = (drawn.random(2000) < 0.8).astype(float).tolist()
    found = length_control(wins, drawn.normal(0, 30, 2000).tolist())
    assert found is not None
    assert found.win_rate == pytest.approx(0.8, abs=0.03)
    assert abs(found.slope) < 0.2
