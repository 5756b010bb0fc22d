"""Agreement by hand, and against a library."""

from __future__ import annotations

import math
import random
from typing import Literal

import pytest
from sklearn.metrics import cohen_kappa_score

from noria.stats.agreement import Level, cohen_kappa, krippendorff_alpha

GAP = None
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C: four observers, twelve units, gaps.
PRINTED: list[list[float | None]] = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, GAP, GAP, GAP],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, GAP, 3],
    [GAP, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, GAP],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, GAP],
]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_the_one_that_is_printed(level: Level, alpha: float) -> None:
    assert krippendorff_alpha(PRINTED, level) == pytest.approx(alpha, abs=5e-4)


def test_alpha_of_two_raters_by_hand() -> None:
    """Ten things, 0 or 1, seven times alike: observed 3/10, expected 2 * 8 * 12 / (20 * 19)."""
    one: list[float | None] = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    other: list[float | None] = [0, 0, 0, 1, 0, 1, 1, 1, 1, 0]
    zeros = 4 + 5
    expected = 2 * zeros * (20 - zeros) / (20 * 19)
    assert krippendorff_alpha([one, other], "nominal") == pytest.approx(1 - 0.3 / expected)


def test_kappa_by_hand() -> None:
    """50 things: 35 alike; chance is 0.5 * 0.6 + 0.5 * 0.4."""
    a = [1.0] * 25 + [0.0] * 25
    b = [1.0] * 20 + [0.0] * 5 + [1.0] * 10 + [0.0] * 15
    assert cohen_kappa(a, b) == pytest.approx((0.7 - 0.5) / 0.5)


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
def test_kappa_is_that_of_scikit_learn(weights: Literal["linear", "quadratic"] | None) -> None:
    drawing = random.Random(1)
    a = [float(drawing.randint(1, 5)) for _ in range(200)]
    b = [float(min(5, max(1, each + drawing.choice([-1, 0, 0, 1])))) for each in a]
    assert cohen_kappa(a, b, weights) == pytest.approx(float(cohen_kappa_score(a, b, weights=weights)))


def test_where_nothing_varies_there_is_no_agreement_to_speak_of() -> None:
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]], "nominal"))
    assert math.isnan(krippendorff_alpha([], "ordinal"))
    assert math.isnan(krippendorff_alpha([[1, None], [None, 2]], "interval"))


def test_ratings_that_cannot_be_paired_are_errors() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        cohen_kappa([1], [])
    with pytest.raises(ValueError, match="one place"):
        krippendorff_alpha([[1, 2], [1]], "nominal")
