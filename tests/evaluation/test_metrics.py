"""Metrics on cases worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import Invalid
from noria.evaluation import metrics


@pytest.mark.parametrize(
    ("answer", "target", "f1", "rouge", "exact"),
    [
        ("The order ships on Monday.", "the order ships on monday", 1.0, 1.0, 1.0),
        ("ships Monday", "Monday ships", 1.0, 0.5, 0.0),
        ("It ships on Monday", "It ships on Tuesday", 0.75, 0.75, 0.0),
        ("", "something", 0.0, 0.0, 0.0),
        ("Заказ отправлен", "заказ отправлен", 1.0, 1.0, 1.0),
    ],
)
def test_known_values(answer: str, target: str, f1: float, rouge: float, exact: float) -> None:
    assert metrics.token_f1(answer, target) == pytest.approx(f1)
    assert metrics.rouge_l(answer, target) == pytest.approx(rouge)
    assert metrics.exact_match(answer, target) == exact


@given(st.text(), st.text())
def test_every_metric_stays_between_0_and_1(answer: str, target: str) -> None:
    for value in metrics.score(answer, target, list(metrics.METRICS)).values():
        assert 0.0 <= value <= 1.0


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(Invalid) as caught:
        metrics.check(["token_f2"], "noria.toml:9")
    assert "token_f1" in caught.value.hint
    assert caught.value.where == "noria.toml:9"
