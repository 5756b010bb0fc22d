"""Weighted samples say the truth of what they were drawn from, and their bounds hold as often as they state."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.stats.lots import drawn
from noria.stats.sampling import hajek, horvitz_thompson, proportional

DRAWS = 1000
Rows = list[tuple[float, float, str]]


POSITIVE = st.floats(1e-3, 1e6)


@given(st.lists(st.just(0.0) | POSITIVE, max_size=60), st.just(0.0) | st.floats(1e-3, 80))
def test_chances_are_in_proportion_and_add_up(weights: list[float], expected: float) -> None:
    chances = proportional(weights, expected)
    assert all(0 <= chance <= 1 for chance in chances)
    positive = sum(weight > 0 for weight in weights)
    assert math.fsum(chances) == pytest.approx(min(expected, positive), rel=1e-6, abs=1e-6)
    for weight, chance in zip(weights, chances, strict=True):
        assert (chance == 0) == (weight == 0 or expected == 0)
    ranked = sorted(zip(weights, chances, strict=True))
    assert all(low[1] <= high[1] + 1e-12 for low, high in itertools.pairwise(ranked))


def test_a_row_of_more_than_its_share_is_certain() -> None:
    assert proportional([8, 1, 1], 2) == [1.0, 0.5, 0.5]
    assert proportional([0, 0], 1) == [0.0, 0.0]
    with pytest.raises(ValueError, match="below 0"):
        proportional([-1.0], 1)
    with pytest.raises(ValueError, match="below 0"):
        proportional([float("nan")], 1)


def test_draws_are_even_and_independent_of_those_under_another_salt() -> None:
    first = [drawn("label", str(number)) for number in range(20_000)]
    second = [drawn("confirm", str(number)) for number in range(20_000)]
    for share in (0.02, 0.3):
        # Five standard deviations.
        reach = 5 * math.sqrt(share * (1 - share) / 20_000)
        assert abs(sum(each < share for each in first) / 20_000 - share) < reach
        both = sum(one < share and other < share for one, other in zip(first, second, strict=True)) / 20_000
        assert abs(both - share**2) < 5 * share / math.sqrt(20_000)
    assert drawn("label", "1") == first[1]


def test_totals_and_means_by_hand() -> None:
    assert horvitz_thompson([1, 0, 1], [0.5, 0.1, 0.25]) == 6.0
    found = hajek([1, 0, 1], [0.5, 0.1, 0.25], ["a", "b", "c"])
    assert found.value == pytest.approx(6 / 16)
    assert (found.rows, found.confidence) == (3, 0.95)
    # Of Kish: 16 squared over 4 + 100 + 16.
    assert hajek([1, 1, 1], [0.5, 0.1, 0.25], ["a", "b", "c"]).effective == pytest.approx(256 / 120)
    # Equal weights: Student's interval of a plain mean; 4.3027 is its quantile at 2 degrees of freedom.
    plain = hajek([1, 2, 3], [0.5, 0.5, 0.5], ["a", "b", "c"])
    assert plain.value == 2.0
    assert plain.high == pytest.approx(2 + 4.302653 / math.sqrt(3))


def test_one_conversation_bounds_nothing() -> None:
    found = hajek([2, 3], [1, 1], ["a", "a"])
    assert (found.value, found.low, found.high) == (2.5, -math.inf, math.inf)


def test_rows_of_one_conversation_are_not_independent() -> None:
    values, chances = [1.0, 1.0, 0.0, 0.0] * 10, [0.5] * 40
    alone = hajek(values, chances, [str(number) for number in range(40)])
    paired = hajek(values, chances, [str(number // 2) for number in range(40)])
    assert paired.high - paired.low > 1.3 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("values", "chances", "clusters"),
    [([], [], []), ([1.0], [0.5], []), ([1.0], [0.0], ["a"]), ([1.0], [1.5], ["a"]), ([1.0], [0.5, 0.5], ["a"])],
)
def test_what_cannot_be_paired_is_an_error(values: list[float], chances: list[float], clusters: list[str]) -> None:
    with pytest.raises(ValueError, match=r"cannot be paired|chance above 0"):
        hajek(values, chances, clusters)


def test_a_confidence_out_of_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="confidence"):
        hajek([1.0], [0.5], ["a"], confidence=1.0)


def rows_of(kind: str, count: int, drawing: random.Random) -> Rows:
    """Score, value and cluster of rows whose value grows with the score, so that doubtful ones are worse."""
    rows: Rows = []
    base = 0.0
    for number in range(count):
        score = drawing.random()
        if kind == "ordinal":
            value = float(min(5, max(1, round(1 + 4 * score + drawing.gauss(0, 1)))))
        elif kind == "clustered":
            base = drawing.random() if number % 3 == 0 else base
            value = float(drawing.random() < (base + score) / 2)
        else:
            value = float(drawing.random() < min(1.0, (0.75 if kind == "mostly right" else 0.0) + 0.3 * score))
        rows.append((score, value, str(number // 3 if kind == "clustered" else number)))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mostly right", "mostly wrong", "ordinal", "clustered"])
@pytest.mark.parametrize(("count", "share", "uncertain"), [(1000, 0.03, 0.05), (2000, 0.05, 0.15)])
def test_bounds_hold_and_nothing_is_biased_where_doubtful_rows_are_preferred(
    kind: str, count: int, share: float, uncertain: float
) -> None:
    drawing = random.Random(f"{kind}{count}")
    everything = rows_of(kind, 200_000, drawing)
    truth = math.fsum(value for _, value, _ in everything) / len(everything)
    hits, found, plain = 0, [], []
    for _ in range(DRAWS):
        rows = rows_of(kind, count, drawing)
        chances = [share + each for each in proportional([1 - score for score, _, _ in rows], uncertain * count)]
        got = [(row, chance) for row, chance in zip(rows, chances, strict=True) if drawing.random() < chance]
        values = [value for (_, value, _), _ in got]
        estimate = hajek(values, [chance for _, chance in got], [cluster for (_, _, cluster), _ in got])
        hits += estimate.low <= truth <= estimate.high
        found.append(estimate.value)
        plain.append(sum(values) / len(values))
    assert 0.93 <= hits / DRAWS <= 0.97
    middle = math.fsum(found) / DRAWS
    spread = math.sqrt(math.fsum((each - middle) ** 2 for each in found) / DRAWS)
    # A ratio of sums has a bias far below its spread; the unweighted mean has one that is no accident.
    assert abs(middle - truth) < 0.15 * spread
    assert abs(math.fsum(plain) / DRAWS - truth) > 0.4 * spread


def test_the_estimated_total_is_unbiased() -> None:
    drawing = random.Random(3)
    rows = rows_of("ordinal", 400, drawing)
    chances = [0.02 + each for each in proportional([1 - score for score, _, _ in rows], 40)]
    truth = math.fsum(value for _, value, _ in rows)
    found = []
    for _ in range(2000):
        got = [(row[1], chance) for row, chance in zip(rows, chances, strict=True) if drawing.random() < chance]
        found.append(horvitz_thompson([value for value, _ in got], [chance for _, chance in got]))
    spread = math.sqrt(
        math.fsum((1 - chance) / chance * row[1] ** 2 for row, chance in zip(rows, chances, strict=True))
    )
    assert abs(math.fsum(found) / 2000 - truth) < 4 * spread / math.sqrt(2000)
