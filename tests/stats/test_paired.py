"""Paired comparison: equal to published examples, covering, and unable to tell something from nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from noria.stats import paired
from noria.stats.statistic import Quantile, mean, rows_of
from noria.types import Interval

Z = 1.959963984540054


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def binary(better: int, worse: int, same: int) -> tuple[list[float], list[float]]:
    before = [0.0] * better + [1.0] * worse + [1.0] * same
    return before, [1.0] * better + [0.0] * worse + [1.0] * same


def test_the_same_arguments_give_the_same_interval() -> None:
    before, after, rows = [0.1, 0.4, 0.2, 0.9], [0.3, 0.4, 0.6, 0.8], list("abcd")
    assert paired.of_scores("f1", before, after, rows) == paired.of_scores("f1", before, after, rows)


def test_tangos_interval_without_a_change_has_a_closed_form() -> None:
    half = Z**2 / (20 + Z**2)
    assert paired.tango(0, 0, 20, Z) == pytest.approx((-half, half))


def test_tangos_bounds_solve_his_equation() -> None:
    """The bounds are where the score statistic, with the likelihood maximised by brute force, is the quantile."""
    better, worse, rows = 12, 3, 50
    for bound in paired.tango(better, worse, rows, Z):
        losing = np.linspace(max(0.0, -bound), (1 - bound) / 2, 400_001)[1:-1]
        chance = losing + bound
        fits = better * np.log(chance) + worse * np.log(losing) + (rows - better - worse) * np.log(1 - chance - losing)
        best = losing[np.argmax(fits)]
        variance = rows * (2 * best + bound * (1 - bound))
        assert abs(better - worse - rows * bound) / math.sqrt(variance) == pytest.approx(Z, abs=1e-4)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (5, 5), (12, 3), (0, 7), (150, 120)])
def test_mcnemars_p_value_is_the_exact_binomial_one(better: int, worse: int) -> None:
    theirs = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert paired.mcnemar(better, worse) == pytest.approx(theirs)


def test_independent_right_and_wrong_rows_have_a_p_value() -> None:
    before, after = binary(12, 3, 35)
    found = paired.of_scores("exact_match", before, after, names(50))
    assert found.p_value == pytest.approx(0.03515625)
    assert found.method == "gain: Tango; values: Wilson; widened: hardly any row differs"
    assert (found.low, found.high) == pytest.approx(paired.tango(12, 3, 50, Z), abs=1e-6)
    assert found.before_bounds is not None
    assert found.before_bounds[0] < found.before < found.before_bounds[1]
    together = paired.of_scores("exact_match", before, after, names(25) * 2)
    assert together.p_value is None


def test_equal_scores_have_no_gain_but_other_rows_might() -> None:
    same = paired.of_scores("f1", [0.5, 1.0] * 20, [0.5, 1.0] * 20, names(40))
    assert same.gain == 0.0
    assert same.low == pytest.approx(-same.high)
    assert 0.05 < same.high < 0.15
    assert "widened: hardly any conversation changed" in same.method


def test_equal_rows_without_an_end_are_told_of() -> None:
    found = paired.compare("bullet_points", rows_of([0.0] * 30), rows_of([0.0] * 30), names(30), mean(0))
    assert (found.low, found.high) == (0.0, 0.0)
    assert "nothing is known of others" in found.method


def test_rows_of_one_conversation_count_once() -> None:
    gains = [0.9, 0.1, 0.2, 0.0, 0.3, -0.2, 0.5, 0.1]
    alone = paired.of_scores("f1", [0.2] * 8, [0.2 + gain for gain in gains], names(8), low=-1, high=2)
    repeated = paired.of_scores("f1", [0.2] * 80, [0.2 + gain for gain in gains] * 10, names(8) * 10, low=-1, high=2)
    assert (repeated.low, repeated.high) == pytest.approx((alone.low, alone.high), abs=1e-4)


def test_the_direction_and_the_bounds_of_both_sides_are_noted() -> None:
    random = np.random.default_rng(1)
    before, after = random.lognormal(size=40), random.lognormal(size=40)
    found = paired.compare(
        "latency", rows_of(before.tolist()), rows_of(after.tolist()), names(40), mean(0), higher_is_better=False
    )
    assert not found.higher_is_better
    assert found.gain == pytest.approx(after.mean() - before.mean(), abs=1e-6)
    for value, bounds in ((found.before, found.before_bounds), (found.after, found.after_bounds)):
        assert bounds is not None
        assert bounds[0] < value < bounds[1]


def test_bounds_that_do_not_exist_survive_json() -> None:
    values = np.random.default_rng(2).exponential(size=(30, 1))
    found = paired.compare("latency_p95", values, values + 0.1, names(30), Quantile(0.95, 0))
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert '"low":"-inf"' in found.model_dump_json()
    assert Interval.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(("before", "after", "rows"), [([], [], []), ([1.0], [1.0, 2.0], ["a"]), ([1.0], [1.0], [])])
def test_what_cannot_be_paired_is_refused(before: list[float], after: list[float], rows: list[str]) -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired.of_scores("f1", before, after, rows)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired.compare("f1", rows_of(before), rows_of(after), rows, mean(0, 1))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 9)), min_size=1, max_size=40))
def test_swapping_the_systems_swaps_the_interval(rows: list[tuple[float, float, int]]) -> None:
    before, after, clusters = [row[0] for row in rows], [row[1] for row in rows], [str(row[2]) for row in rows]
    there = paired.of_scores("f1", before, after, clusters)
    back = paired.of_scores("f1", after, before, clusters)
    assert (there.low, there.gain, there.high) == pytest.approx((-back.high, -back.gain, -back.low), abs=2e-6)
    assert -1 <= there.low <= there.gain + 1e-6
    assert there.gain - 1e-6 <= there.high <= 1


def covered(alike: float, clusters: int, rows: int, repetitions: int = 400) -> tuple[float, float]:
    """How often the intervals of the value and of the gain hold the truth; `make bench-coverage` does it at length."""
    random = np.random.default_rng(7)
    held = np.zeros(2)
    grades = stats.norm(3.5, math.hypot(alike, 0.8)).cdf(np.array([1.5, 2.5, 3.5, 4.5]))
    truth = 5 - float(grades.sum())
    member = [str(number) for number in range(clusters) for _ in range(rows)]
    for _ in range(repetitions):
        talk = random.normal(0, alike, clusters).repeat(rows)
        before = np.clip(np.round(3.5 + talk + random.normal(0, 0.8, clusters * rows)), 1, 5)
        after = np.clip(np.round(3.5 + talk + random.normal(0, 0.8, clusters * rows)), 1, 5)
        found = paired.of_scores("grade", before.tolist(), after.tolist(), member, low=1, high=5)
        assert found.before_bounds is not None
        held += [found.before_bounds[0] <= truth <= found.before_bounds[1], found.low <= 0 <= found.high]
    return float(held[0]) / repetitions, float(held[1]) / repetitions


@pytest.mark.parametrize(("alike", "clusters", "rows"), [(0.0, 40, 1), (0.6, 20, 4)])
def test_intervals_cover_as_often_as_they_say(alike: float, clusters: int, rows: int) -> None:
    # Three standard errors of 400 repetitions beside 93 and 97 %.
    for share in covered(alike, clusters, rows):
        assert 0.93 - 0.03 <= share <= 0.97 + 0.02
