"""Few labels and many judgements: what is promised holds for any judge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.stats.prediction_powered import Judged, Labelled, mean, rogan_gladen


def rows(count: int, seed: int, error: float = 0.1) -> tuple[list[float], list[float], list[str]]:
    drawn = np.random.default_rng(seed)
    human = (drawn.random(count) < 0.7).astype(float)
    judged = np.where(drawn.random(count) < error, 1.0, human)
    return human.tolist(), judged.tolist(), [str(number) for number in range(count)]


def test_an_unbiased_judge_of_many_rows_narrows_the_interval() -> None:
    human, judged, names = rows(1100, 1)
    labelled = Labelled(human[:100], judged[:100], names[:100])
    alone = mean(labelled, Judged([], []), (0, 1))
    helped = mean(labelled, Judged(judged, names), (0, 1))
    assert helped.high - helped.low < 0.8 * (alone.high - alone.low)
    assert 0.3 < helped.weight <= 1.0


def test_a_judge_that_says_the_same_of_all_is_not_used() -> None:
    human, _, names = rows(300, 2)
    found = mean(Labelled(human[:100], [1.0] * 100, names[:100]), Judged([1.0] * 300, names), (0, 1))
    assert found.weight == 0.0
    assert found.value == pytest.approx(sum(human[:100]) / 100)


def test_a_biased_judge_is_put_right() -> None:
    human, judged, names = rows(4000, 3, error=0.6)
    found = mean(Labelled(human[:200], judged[:200], names[:200]), Judged(judged, names), (0, 1))
    assert found.low < 0.7 < found.high
    assert sum(judged) / len(judged) > found.high


def test_conversations_that_are_balanced_within_do_not_know_the_mean() -> None:
    """One answer of each grade to every question: all conversations have the same mean."""
    grades = [1.0, 2.0, 3.0, 4.0, 5.0] * 8
    found = mean(
        Labelled(grades, grades[::-1], [str(n // 5) for n in range(40)]), Judged([2.0] * 12, ["x"] * 12), (1, 5)
    )
    assert found.low < 2.7
    assert found.high > 3.3


def test_labels_that_all_agree_leave_room_for_what_they_have_missed() -> None:
    names = [str(number) for number in range(20)]
    found = mean(Labelled([1.0] * 20, [1.0] * 20, names), Judged([1.0] * 500, [f"b{n}" for n in range(500)]), (0, 1))
    assert found.high == 1.0
    assert found.low < 0.9


@given(
    scores=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 9)), min_size=4, max_size=60),
    others=st.lists(st.integers(1, 5), max_size=60),
)
def test_the_interval_stays_on_the_scale_and_holds_its_estimate(
    scores: list[tuple[int, int, int]], others: list[int]
) -> None:
    clusters = [str(each[2]) for each in scores]
    if len(set(clusters)) < 2:
        return
    labelled = Labelled([float(each[0]) for each in scores], [float(each[1]) for each in scores], clusters)
    found = mean(labelled, Judged([float(each) for each in others], [f"o{n}" for n in range(len(others))]), (1, 5))
    assert 1 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 5
    assert 0 <= found.weight <= 1


def test_wrong_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in number"):
        mean(Labelled([1.0], [1.0, 0.0], ["a", "b"]), Judged([], []), (0, 1))
    with pytest.raises(ValueError, match="two clusters"):
        mean(Labelled([1.0, 0.0], [1.0, 0.0], ["a", "a"]), Judged([], []), (0, 1))
    with pytest.raises(ValueError, match="outside"):
        mean(Labelled([1.0, 7.0], [1.0, 0.0], ["a", "b"]), Judged([], []), (0, 1))


def test_the_share_that_a_lenient_judge_calls_good_is_put_right() -> None:
    """Sensitivity 0.9, specificity 0.6, half of the rows good: the judge calls 65 % good."""
    found = rogan_gladen(650, 1000, hits=180, positives=200, rejections=120, negatives=200)
    assert found is not None
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.5 < found.high


def test_a_judge_that_does_not_tell_good_from_bad_cannot_be_put_right() -> None:
    assert rogan_gladen(650, 1000, hits=65, positives=100, rejections=38, negatives=100) is None
    assert rogan_gladen(650, 1000, hits=0, positives=0, rejections=38, negatives=100) is None
