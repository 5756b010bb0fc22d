"""Thresholds keep their promise, whatever the scores are like."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from noria.stats.conformal import above, below, grid_of, needed, tail, upper

DRAWS = 600


@given(st.integers(1, 3000), st.floats(0, 1), st.floats(0.001, 0.999))
def test_tails_are_those_of_the_binomial(rows: int, part: float, share: float) -> None:
    count = int(part * rows)
    assert tail(count, rows, share) == pytest.approx(float(binom.cdf(count, rows, share)), rel=1e-6, abs=1e-12)


def test_the_far_tail_of_many_rows_does_not_vanish() -> None:
    assert tail(30_000, 100_000, 0.1) == pytest.approx(1.0)
    assert tail(1_000, 100_000, 0.1) == pytest.approx(0.0, abs=1e-100)


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0.01, 0.4))
def test_bounds_are_those_of_clopper_and_pearson(rows: int, part: float, delta: float) -> None:
    count = min(int(part * rows), rows - 1)
    assert upper(count, rows, delta) == pytest.approx(float(beta.ppf(1 - delta, count + 1, rows - count)), abs=1e-6)


def test_it_says_how_many_right_answers_are_needed_at_the_least() -> None:
    least = needed(0.1, 0.1)
    assert least == 22
    assert below([0.9] * least, [False] * least, [0.5], 0.1, 0.1) is not None
    assert below([0.9] * (least - 1), [False] * (least - 1), [0.5], 0.1, 0.1) is None


def test_without_rows_nothing_is_shown() -> None:
    assert below([], [], [0.1, 0.5], 0.1, 0.1) is None
    assert above([], [], [0.1, 0.5], 0.5, 0.1) is None


@pytest.mark.parametrize(("alpha", "delta"), [(0.0, 0.1), (1.0, 0.1), (0.1, 0.0), (0.1, 1.0)])
def test_shares_out_of_range_are_errors(alpha: float, delta: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        below([0.5], [False], [0.5], alpha, delta)


def test_as_many_labels_as_scores() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        below([0.5], [], [0.5], 0.1, 0.1)


def steep(score: float) -> float:
    """Wrong ones thin out with the score; P(wrong | score >= t) = (1 - t) / 2."""
    return 1 - score


def usual(score: float) -> float:
    """A good score: the lower half holds nearly all of the wrong ones; the share is 0.1 from 0.26 on."""
    return (1 - score) ** 3


def hostile(score: float) -> float:
    """Just too many wrong ones everywhere: no threshold may be shown."""
    return 0.105


def fooled(score: float) -> float:
    """The highest scores are the worst."""
    return 0.4 if score > 0.9 else 0.05


def share_above(chance: Callable[[float], float], threshold: float) -> float:
    points = [threshold + (1 - threshold) * (step + 0.5) / 400 for step in range(400)]
    return sum(map(chance, points)) / len(points)


def share_below(chance: Callable[[float], float], threshold: float) -> float:
    points = [threshold * (step + 0.5) / 400 for step in range(400)]
    return sum(map(chance, points)) / len(points)


@pytest.mark.parametrize("chance", [steep, usual, hostile, fooled])
@pytest.mark.parametrize("rows", [60, 400])
def test_green_is_wrong_too_often_in_no_more_draws_than_stated(chance: Callable[[float], float], rows: int) -> None:
    """The promise itself: over draws of the calibration rows, the true share of wrong ones among green answers."""
    alpha, delta = 0.1, 0.1
    drawn = random.Random(f"{chance.__name__}{rows}")
    failures = found = 0
    for _ in range(DRAWS):
        grid = grid_of([drawn.random() for _ in range(200)])
        scores = [drawn.random() for _ in range(rows)]
        wrong = [drawn.random() < chance(score) for score in scores]
        got = below(scores, wrong, grid, alpha, delta)
        if got is not None:
            found += 1
            failures += share_above(chance, got.threshold) > alpha
            assert got.bound <= alpha + 1e-9
    # The chance that a procedure that fails in 10 % of the draws fails in more than these is 1e-4.
    assert failures <= binom.ppf(1 - 1e-4, DRAWS, delta)
    if chance is usual:
        assert found >= (0.9 if rows == 400 else 0.1) * DRAWS


@pytest.mark.parametrize("worst", [0.45, 0.9])
def test_red_is_right_too_often_in_no_more_draws_than_stated(worst: float) -> None:
    def chance(score: float) -> float:
        return worst * (1 - score)

    drawn = random.Random(7)
    failures = found = 0
    for _ in range(DRAWS):
        grid = grid_of([drawn.random() for _ in range(200)])
        scores = [drawn.random() for _ in range(200)]
        wrong = [drawn.random() < chance(score) for score in scores]
        got = above(scores, wrong, grid, 0.5, 0.1)
        if got is not None:
            found += 1
            failures += share_below(chance, got.threshold) < 0.5
            assert got.bound >= 0.5 - 1e-9
    assert failures <= binom.ppf(1 - 1e-4, DRAWS, 0.1)
    if worst == 0.9:
        assert found >= 0.7 * DRAWS


@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.8]), st.booleans()), max_size=80))
def test_what_is_shown_is_what_the_rows_say(rows: list[tuple[float, bool]]) -> None:
    scores, wrong = [score for score, _ in rows], [bad for _, bad in rows]
    got = below(scores, wrong, [0.2, 0.5, 0.8], 0.2, 0.1)
    if got is not None:
        inside = [bad for score, bad in rows if score >= got.threshold]
        assert (got.rows, got.wrong) == (len(inside), sum(inside))
        assert got.bound <= 0.2 + 1e-9


def test_a_grid_is_made_of_quantiles() -> None:
    assert grid_of([]) == []
    assert grid_of([0.3, 0.1, 0.3]) == [0.1, 0.3]
    grid = grid_of([number / 1000 for number in range(1000)])
    assert len(grid) == 64
    assert (grid[0], grid[32]) == (0.0, 0.5)
