"""What may be looked at after every answer, and the budget of a life."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.stats import anytime, budget
from noria.stats.budget import Spent

LEVEL = 0.05


def votes(random: np.random.Generator, shape: tuple[int, ...], gain: float) -> anytime.Floats:
    """Win, tie or loss."""
    return random.choice([1.0, 0.0, -1.0], size=shape, p=[0.15 + gain / 2, 0.7, 0.15 - gain / 2])


@pytest.mark.slow
def test_looking_at_every_answer_refutes_what_is_true_seldom_enough() -> None:
    capital = anytime.log_capital(votes(np.random.default_rng(1), (1000, 1500), 0.0), 0.0)
    assert (anytime.first(capital, LEVEL) > 0).mean() <= LEVEL


@pytest.mark.slow
def test_so_it_does_where_the_mean_moves_below_the_null() -> None:
    random = np.random.default_rng(2)
    wave = -0.1 + 0.1 * np.sin(np.arange(1500) / 50)
    scores = np.where(random.random((1000, 1500)) < 0.5 + wave / 2, 1.0, -1.0)
    assert (anytime.first(anytime.log_capital(scores, 0.0), LEVEL) > 0).mean() <= LEVEL
    assert (anytime.first(anytime.since_any(scores, 0.0), LEVEL) > 0).mean() <= LEVEL


def test_a_gain_is_found() -> None:
    found = anytime.first(anytime.log_capital(votes(np.random.default_rng(3), (200, 2000), 0.1), 0.0), LEVEL)
    assert (found > 0).mean() > 0.99
    assert 100 < np.median(found[found > 0]) < 500


def test_a_late_decline_is_found_sooner_by_those_who_begin_anew() -> None:
    random = np.random.default_rng(4)
    scores = np.concatenate([votes(random, (100, 3000), -0.1), votes(random, (100, 1500), 0.1)], axis=-1)
    plain = anytime.first(anytime.log_capital(scores, 0.0), LEVEL)
    anew = anytime.first(anytime.since_any(scores, 0.0), LEVEL)
    assert (plain > 0).mean() < 0.2
    assert (anew > 3000).mean() > 0.9


@given(
    scores=st.lists(st.floats(-1, 1), min_size=1, max_size=60),
    null=st.floats(-0.9, 0.9),
    stretch=st.floats(0.1, 50),
    shift=st.floats(-10, 10),
)
@settings(max_examples=50)
def test_the_unit_of_the_scores_does_not_matter(scores: list[float], null: float, stretch: float, shift: float) -> None:
    plain = np.array(scores)
    moved = np.clip(plain * stretch + shift, -stretch + shift, stretch + shift)
    one = anytime.log_capital(plain, null)
    other = anytime.log_capital(moved, null * stretch + shift, -stretch + shift, stretch + shift)
    assert np.allclose(one, other, atol=1e-6)


@given(scores=st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=200))
@settings(max_examples=30)
def test_an_interval_holds_what_is_not_refuted(scores: list[float]) -> None:
    array = np.array(scores)
    low, high = anytime.interval(array, LEVEL)
    assert -1 <= low <= array.mean() <= high <= 1
    if low > -1:
        assert anytime.log_capital(array, low - 1e-3 if low > -0.99 else -0.9999)[-1] >= np.log(2 / LEVEL) - 0.2
    assert anytime.log_capital(array, min(low + 1e-3, 0.999))[-1] <= np.log(2 / LEVEL) + 0.2


def test_beginning_anew_at_every_block_is_the_sum_of_those_bettors() -> None:
    scores = votes(np.random.default_rng(5), (130,), 0.05)
    expected = np.zeros(130)
    for at in range(130):
        capital = 1 / (at // anytime.EVERY + 2)
        for block, start in enumerate(range(0, at + 1, anytime.EVERY), 1):
            own = np.exp(anytime.log_capital(scores[start : at + 1], 0.0)[-1])
            capital += own / (block * (block + 1))
        expected[at] = np.log(capital)
    assert np.allclose(anytime.since_any(scores, 0.0), expected)


@pytest.mark.parametrize(("scores", "null"), [([2.0], 0.0), ([0.0], 1.0), ([float("nan")], 0.0)])
def test_what_is_out_of_bounds_is_an_error(scores: list[float], null: float) -> None:
    with pytest.raises(ValueError, match=r"bounds|outside"):
        anytime.log_capital(np.array(scores), null)


def test_the_shares_of_a_life_sum_to_one() -> None:
    assert sum(budget.share(number) for number in range(1, 200_001)) == pytest.approx(1, abs=1e-3)


@given(acted=st.lists(st.booleans(), max_size=40))
def test_a_life_never_spends_more_than_it_has(acted: list[bool]) -> None:
    spent: list[Spent] = []
    for each in acted:
        spent.append(Spent(budget.level(LEVEL, spent), each))
    lost = sum(each.level for each in spent if not each.acted)
    left = budget.left(LEVEL, spent)
    assert left > 0
    assert lost + left <= LEVEL + 1e-9
    assert budget.level(LEVEL, spent) <= left


def test_success_hands_its_level_on() -> None:
    first = budget.level(LEVEL, [])
    assert budget.level(LEVEL, [Spent(first, True)]) > first
    assert budget.level(LEVEL, [Spent(first, False)]) < first
