"""Paired bootstrap: coverage, clusters, and that it can tell nothing from nothing."""

from __future__ import annotations

import numpy as np
import pytest

from noria.stats.paired import bootstrap


def test_the_same_arguments_give_the_same_interval() -> None:
    before, after, rows = [0.1, 0.4, 0.2, 0.9], [0.3, 0.4, 0.6, 0.8], list("abcd")
    assert bootstrap("f1", before, after, rows) == bootstrap("f1", before, after, rows)


def test_equal_scores_have_no_gain_at_all() -> None:
    same = bootstrap("f1", [0.5] * 20, [0.5] * 20, [str(row) for row in range(20)])
    assert (same.gain, same.low, same.high) == (0.0, 0.0, 0.0)


def test_the_interval_covers_the_true_gain_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    rows = [str(row) for row in range(60)]
    covered = 0
    for _ in range(300):
        before = generator.normal(0.5, 0.2, 60)
        after = before + generator.normal(0.05, 0.2, 60)
        each = bootstrap("f1", before.tolist(), after.tolist(), rows, resamples=500)
        covered += each.low <= 0.05 <= each.high
    assert 0.90 <= covered / 300 <= 0.99


def test_rows_of_one_conversation_count_once() -> None:
    gains = [0.9, 0.1, 0.2, 0.0]
    alone = bootstrap("f1", [0.0] * 4, gains, list("abcd"))
    repeated = bootstrap("f1", [0.0] * 40, gains * 10, list("abcd") * 10)
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.1)


@pytest.mark.parametrize(("before", "after", "rows"), [([], [], []), ([1.0], [1.0, 2.0], ["a"]), ([1.0], [1.0], [])])
def test_what_cannot_be_paired_is_refused(before: list[float], after: list[float], rows: list[str]) -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        bootstrap("f1", before, after, rows)
