"""Advice: each rule is triggered by its evidence, and by nothing less."""

from __future__ import annotations

import pytest
from made_reports import candidate, made

from noria.evaluation import advice, slices
from noria.evaluation.advice import Known, Tried
from noria.types import Interval, Report


def interval(gain: float, low: float, high: float, rows: int = 100, after: float = 0.6) -> Interval:
    return Interval(name="token_f1", before=after - gain, after=after, gain=gain, low=low, high=high, rows=rows)


def report(each: Interval, base: str = "smollm2-135m-instruct", adapter: str | None = "a") -> Report:
    whole = made(40)
    return whole.model_copy(update={"intervals": {"all": {"token_f1": each}}, "candidate": candidate(adapter, base)})


def rules(of: Report, known: Known | None = None) -> dict[str, advice.Advice]:
    return {each.rule: each for each in advice.of(of, known)}


CERTAIN = interval(0.1, 0.05, 0.15)
UNSURE = interval(0.02, -0.04, 0.08)


def test_too_few_rows_say_the_smallest_margin_and_how_many_more() -> None:
    found = rules(report(UNSURE))["too-few-rows"]
    assert found.evidence["certified"] == pytest.approx(0.04)
    # (0.02 + 0.04) / 0.02 = 3 times narrower takes 9 times the rows.
    assert found.evidence["needed"] == 901
    assert found.evidence["more"] == 801
    assert "801 more" in found.advice
    assert "too-few-rows" not in rules(report(CERTAIN))
    assert "too-few-rows" not in rules(report(interval(-0.1, -0.2, 0.01)))


def test_rows_needed_are_those_that_an_interval_shrinks_by() -> None:
    assert advice.rows_needed(interval(0.0, -0.04, 0.04), 0.02) == 401
    assert advice.rows_needed(interval(-0.03, -0.04, 0.04), 0.02) is None
    worse = interval(0.0, -0.04, 0.04).model_copy(update={"higher_is_better": False})
    assert advice.rows_needed(worse, 0.02) == 401


def test_a_stronger_model_is_advised_where_the_score_stays_low_and_more_so_where_it_is_small() -> None:
    low = interval(0.0, -0.05, 0.05, after=0.3)
    small = rules(report(low))["stronger-model"]
    assert "all the more so for small models" in small.advice
    large = rules(report(low, "llama-3.1-70b"))["stronger-model"]
    assert "small" not in large.advice
    assert "stronger-model" not in rules(report(UNSURE))
    assert "stronger-model" not in rules(report(interval(0.1, 0.05, 0.15, after=0.3)))


def test_long_prompt_tuning_means_that_the_model_is_too_weak() -> None:
    base = str(candidate(None).base)
    tried = [Tried(str(number) * 16, base, None, better=False) for number in (2, 3)]
    assert "too weak" in rules(report(UNSURE, adapter=None), Known(tried=tried))["long-prompt-tuning"].advice
    assert "long-prompt-tuning" not in rules(report(UNSURE, adapter=None), Known(tried=tried[:1]))
    won = [*tried, Tried("4" * 16, base, None, better=True)]
    assert "long-prompt-tuning" not in rules(report(UNSURE, adapter=None), Known(tried=won))
    others = [Tried(each.prompt, "base:other@0000000000000000", None, False) for each in tried]
    assert "long-prompt-tuning" not in rules(report(UNSURE, adapter=None), Known(tried=others))


def test_training_is_to_stop_before_the_rows_are_known_by_heart() -> None:
    falling = [3.0 - 0.1 * step for step in range(20)]
    assert "stop-before-overfitting" not in rules(report(UNSURE), Known(losses=falling))
    by_heart = [*falling, *[0.02] * 20]
    assert "stop earlier" in rules(report(UNSURE), Known(losses=by_heart))["stop-before-overfitting"].advice
    flat = [*falling, *[1.1] * 40]
    assert "stopped falling" in rules(report(UNSURE), Known(losses=flat))["stop-before-overfitting"].fact
    assert "stop-before-overfitting" not in rules(report(CERTAIN), Known(losses=by_heart))


def test_groups_that_lost_come_first() -> None:
    lost = made(400, gain=0.05, lost={"ru": -0.3})
    found = advice.of(lost, Known(groups=slices.groups(lost)))
    assert found[0].rule == "lost-groups"
    assert "language = ru" in found[0].fact


def test_the_same_answers_and_few_conversations_are_told() -> None:
    same = report(UNSURE)
    rows = tuple(row.model_copy(update={"candidate": row.champion, "conversation": "one"}) for row in same.rows)
    found = rules(same.model_copy(update={"rows": rows}))
    assert found.keys() >= {"same-answers", "few-conversations"}
    assert not {"same-answers", "few-conversations"} & rules(same).keys()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("smollm2-135m-instruct", 135e6),
        ("qwen2.5-7b", 7e9),
        ("phi-3.5", None),
        ("llama-3.2-1.5b-q4", 1.5e9),
        ("bert", None),
    ],
)
def test_a_model_tells_its_size_by_its_name(name: str, size: float | None) -> None:
    assert advice.parameters(name) == size
