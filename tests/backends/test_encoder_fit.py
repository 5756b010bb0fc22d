"""Heads fitted on vectors: against a library, on skewed rows, with groups kept whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.backends import encoder_fit
from noria.backends.encoder_fit import Rows, check, fit, folds_of, rows_of
from noria.backends.encoder_model import softmax


def blobs(counts: tuple[int, ...], *, apart: float = 2.0, several: bool = False, balance: bool = False) -> Rows:
    random = np.random.default_rng(3)
    labels = [f"class {number}" for number in range(len(counts))]
    centres = random.normal(0, apart, (len(counts), 6))
    targets = [label for label, count in zip(labels, counts, strict=True) for _ in range(count)]
    vectors = np.vstack([centres[labels.index(each)] + random.normal(0, 1.5, 6) for each in targets])
    groups = [f"g{number // 2}" for number in range(len(targets))]
    return rows_of(vectors, [(each,) for each in targets], labels, groups, several=several, balance=balance)


def test_it_is_the_logistic_regression_that_a_library_fits() -> None:
    from sklearn.linear_model import LogisticRegression

    rows = blobs((30, 40, 20))
    mine = softmax(fit(rows, 1e-2).logits(rows.vectors))
    mean = rows.vectors.mean(axis=0)
    scale = 1 / np.sqrt(np.square(rows.vectors - mean).sum(axis=1).mean())
    scaled = (rows.vectors - mean) * scale
    theirs = LogisticRegression(C=1 / (1e-2 * len(scaled)), tol=1e-8, max_iter=5000).fit(
        scaled, rows.wanted.argmax(axis=1)
    )
    assert np.allclose(mine, theirs.predict_proba(scaled), atol=2e-3)


@pytest.mark.parametrize("several", [False, True])
def test_the_loss_falls_and_the_same_rows_give_the_same_head(several: bool) -> None:
    rows = blobs((30, 20), several=several)
    first, again = fit(rows, 0.01), fit(rows, 0.01)
    assert first.losses[-1] < first.losses[0]
    assert np.array_equal(first.weight, again.weight)
    assert rows.right(first.logits(rows.vectors)) > 0.8


def test_a_start_elsewhere_ends_at_the_same_head() -> None:
    rows = blobs((30, 20))
    cold, warm = fit(rows, 0.01), fit(rows, 0.01, fit(rows, 1.0))
    assert np.allclose(cold.logits(rows.vectors), warm.logits(rows.vectors), atol=1e-2)


def test_a_rare_class_is_found_where_classes_are_balanced() -> None:
    plain, balanced = (blobs((190, 10), apart=0.6, balance=each) for each in (False, True))

    def recall(rows: Rows) -> float:
        given = fit(rows, 0.01).logits(rows.vectors).argmax(axis=1)
        return float((given[rows.wanted[:, 1] > 0] == 1).mean())

    assert recall(balanced) > recall(plain)


def test_groups_alone_show_that_what_was_learned_by_heart_is_worth_nothing() -> None:
    """Pairs of equal vectors with a label by lot: without whole groups a fold would know its rows."""
    random = np.random.default_rng(0)
    once = random.normal(size=(60, 40))
    labels = [("a", "b")[int(random.integers(2))] for _ in range(60)]
    vectors, targets = np.repeat(once, 2, axis=0), [(each,) for each in labels for _ in range(2)]
    names = [f"g{number // 2}" for number in range(120)]
    whole = rows_of(vectors, targets, ["a", "b"], names, several=False, balance=False)
    apart = rows_of(vectors, targets, ["a", "b"], [f"r{n}" for n in range(120)], several=False, balance=False)
    honest, flattered = check(whole, 0.001), check(apart, 0.001)
    assert honest.right is not None
    assert flattered.right is not None
    assert honest.right < 0.7 < flattered.right
    assert honest.temperature > flattered.temperature


def test_too_few_groups_are_said_to_tell_nothing() -> None:
    rows = blobs((5, 5))
    alone = check(rows.take(range(10)).__class__(rows.vectors, rows.wanted, rows.weights, ["g"] * 10, False), None)
    assert (alone.l2, alone.temperature, alone.loss) == (encoder_fit.USUAL, 1.0, None)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(2, 6))
def test_folds_part_no_group_and_hold_every_row_once(numbers: list[int], most: int) -> None:
    groups = [f"g{number}" for number in numbers]
    folds = folds_of(groups, most)
    if len(set(groups)) < 2:
        assert not folds
        return
    assert sorted(int(place) for fold in folds for place in fold) == list(range(len(groups)))
    for fold in folds:
        inside = {groups[place] for place in fold}
        assert all(groups[place] not in inside for place in range(len(groups)) if place not in set(fold.tolist()))
