"""Intervals of one value: equal to what is published, right by resampling, and honest where rows say little."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from noria.evaluation import metrics
from noria.evaluation.metrics import Answered
from noria.stats import intervals
from noria.stats.statistic import OfSums, Quantile, mean, members, rows_of, summed

SHARE = mean(0, 1)


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


@pytest.mark.parametrize(("hits", "rows"), [(7, 20), (5, 20), (81, 263)])
def test_shares_of_independent_rows_are_wilsons(hits: int, rows: int) -> None:
    found = intervals.of(rows_of([1.0] * hits + [0.0] * (rows - hits)), names(rows), SHARE)
    theirs = stats.binomtest(hits, rows).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert found.method == "Wilson"


@pytest.mark.parametrize(("hits", "rows"), [(0, 20), (1, 20), (19, 20), (20, 20), (2, 300)])
def test_shares_near_an_end_are_no_narrower_than_exact_ones(hits: int, rows: int) -> None:
    found = intervals.of(rows_of([1.0] * hits + [0.0] * (rows - hits)), names(rows), SHARE)
    exact = stats.binomtest(hits, rows).proportion_ci(0.95, method="exact")
    wilson = stats.binomtest(hits, rows).proportion_ci(0.95, method="wilson")
    assert found.low == pytest.approx(min(exact.low, wilson.low))
    assert found.high == pytest.approx(max(exact.high, wilson.high))
    assert intervals.RARE in found.warnings


def test_the_jackknife_of_a_mean_is_the_textbook_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=30)
    found = intervals.jackknife(rows_of(values.tolist()), mean())
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(30))
    assert found.influence == pytest.approx(values - values.mean())


@pytest.mark.slow
def test_bootstrap_of_sums_is_the_naive_resampling_of_rows() -> None:
    """One product of matrices gives what drawing conversations and scoring their answers anew would."""
    random = np.random.default_rng(2)
    texts = ["it ships today", "it ships on monday", "no idea at all", "monday", ""]
    answers = [Answered(str(random.choice(texts)), str(random.choice(texts[:4]))) for _ in range(40)]
    clusters = [str(random.integers(0, 12)) for _ in answers]
    member, count = members(clusters)
    drawn = intervals.draws(count, 50, seed=3)
    assert drawn.sum(axis=1).tolist() == [count] * 50
    for name in ("bleu", "chrf", "f1_macro", "token_f1", "hamming_loss"):
        metric = metrics.find(name)
        statistic = metric.statistic
        assert isinstance(statistic, OfSums)
        quick = statistic.of(drawn @ summed(metric.sums(answers), member, count))
        for times, value in zip(drawn, quick, strict=True):
            sample = [each for each, of in zip(answers, member, strict=True) for _ in range(int(times[of]))]
            # Classes are those of all answers: a sample may lack some, which then count for nothing.
            assert value == pytest.approx(metric.value(sample)), name


def test_rows_of_one_conversation_count_once() -> None:
    random = np.random.default_rng(4)
    values = random.beta(2, 2, 30)
    alone = intervals.of(rows_of(values.tolist()), names(30), SHARE)
    repeated = intervals.of(rows_of(values.tolist() * 5), names(30) * 5, SHARE)
    assert (repeated.low, repeated.high) == pytest.approx((alone.low, alone.high))


def test_rows_that_are_all_alike_do_not_show_that_all_others_are() -> None:
    found = intervals.of(rows_of([1.0] * 40), names(20) * 2, SHARE)
    assert found.high == 1.0
    assert found.low < 0.9
    assert "widened: hardly any row differs" in found.warnings
    endless = intervals.of(rows_of([3.0] * 40), names(20) * 2, mean(0))
    assert (endless.low, endless.high) == (3.0, 3.0)
    assert intervals.ALIKE in endless.warnings


def test_one_conversation_says_nothing() -> None:
    assert intervals.of(rows_of([0.5, 0.7]), ["a", "a"], SHARE).low == 0.0
    endless = intervals.of(rows_of([0.5, 0.7]), ["a", "a"], mean(0))
    assert (endless.low, endless.high) == (0.0, math.inf)
    assert "fewer than 20 conversations" in endless.warnings


def test_a_high_quantile_of_few_rows_has_no_upper_bound() -> None:
    values = np.random.default_rng(5).exponential(size=(30, 1))
    found = intervals.of(values, names(30), Quantile(0.95, 0))
    assert found.high == math.inf
    assert "too few rows for a bound on each side" in found.warnings
    middle = intervals.of(values, names(30), Quantile(0.5, 0))
    assert values.min() < middle.low < middle.value < middle.high < values.max()


def test_skewed_values_are_warned_of() -> None:
    values = np.exp(2 * np.random.default_rng(6).normal(size=30))
    assert "very skewed: may be too narrow" in intervals.of(rows_of(values.tolist()), names(30), mean(0)).warnings


@pytest.mark.parametrize("rows", [0, 3])
def test_what_does_not_belong_together_is_refused(rows: int) -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        intervals.of(rows_of([0.5] * rows), names(2) if rows else [], SHARE)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9)), min_size=1, max_size=40),
    st.sampled_from([SHARE, mean(0), mean(), Quantile(0.5, 0)]),
    st.floats(0.5, 0.999),
)
def test_an_interval_holds_its_value_and_stays_in_range(
    rows: list[tuple[float, int]], statistic: OfSums | Quantile, confidence: float
) -> None:
    values = rows_of([value for value, _ in rows])
    found = intervals.of(values, [str(of) for _, of in rows], statistic, confidence=confidence)
    assert statistic.low <= found.low + 1e-9
    assert found.high - 1e-9 <= statistic.high
    assert found.low <= found.high
    if isinstance(statistic, OfSums) and statistic.high == 1:
        assert found.low - 1e-9 <= found.value <= found.high + 1e-9
